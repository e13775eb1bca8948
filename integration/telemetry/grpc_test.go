package telemetry

import (
	"context"
	"errors"
	"net"
	"testing"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	otelcodes "go.opentelemetry.io/otel/codes"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/grpcclient"
	"github.com/backstay-go/backstay/retry"
)

// clinic is a health server that fails as told.
type clinic struct {
	grpc_health_v1.UnimplementedHealthServer
	fail []codes.Code
	hits int
}

func (c *clinic) next() error {
	if c.hits++; c.hits <= len(c.fail) && c.fail[c.hits-1] != codes.OK {
		return status.Error(c.fail[c.hits-1], "canary-message")
	}
	return nil
}

func (c *clinic) Check(context.Context, *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
	return &grpc_health_v1.HealthCheckResponse{Status: grpc_health_v1.HealthCheckResponse_SERVING}, c.next()
}

func (c *clinic) Watch(_ *grpc_health_v1.HealthCheckRequest, s grpc.ServerStreamingServer[grpc_health_v1.HealthCheckResponse]) error {
	if err := c.next(); err != nil {
		return err
	}
	return s.Send(&grpc_health_v1.HealthCheckResponse{Status: grpc_health_v1.HealthCheckResponse_SERVING})
}

// dial returns a client of c through the policies, with otelgrpc inside.
func dial(t *testing.T, c *clinic, provider *sdk.TracerProvider, parts ...backstay.Policy) grpc_health_v1.HealthClient {
	t.Helper()
	listen := bufconn.Listen(1 << 20)
	srv := grpc.NewServer()
	grpc_health_v1.RegisterHealthServer(srv, c)
	served := make(chan error)
	go func() { served <- srv.Serve(listen) }()
	opts := append(grpcclient.DialOptions(parts...),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listen.DialContext(ctx) }),
		grpc.WithStatsHandler(otelgrpc.NewClientHandler(otelgrpc.WithTracerProvider(provider))),
		grpc.WithStatsHandler(grpcclient.ResendCount()))
	conn, err := grpc.NewClient("passthrough:///clinic", opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		srv.Stop()
		<-served
	})
	return grpc_health_v1.NewHealthClient(conn)
}

func tracing(t *testing.T) (*sdk.TracerProvider, *tracetest.InMemoryExporter) {
	t.Helper()
	exporter := tracetest.NewInMemoryExporter()
	provider := sdk.NewTracerProvider(sdk.WithSyncer(exporter))
	t.Cleanup(func() { _ = provider.Shutdown(context.Background()) })
	return provider, exporter
}

// What case 43 is for HTTP: UNAVAILABLE, UNAVAILABLE, OK is three client spans under one logical span, numbered, and the logical span is not marked by what
// was mended.
func TestMendedRPC(t *testing.T) {
	m := newMeter(t)
	provider, exporter := tracing(t)
	client := dial(t, &clinic{fail: []codes.Code{codes.Unavailable, codes.Unavailable}}, provider, retry.New(retry.Config{Attempts: 3, Delay: -1}))
	ctx, caller := provider.Tracer("test").Start(context.Background(), "caller")
	if _, err := client.Check(ctx, &grpc_health_v1.HealthCheckRequest{}, grpcclient.Idempotent()); err != nil {
		t.Fatal(err)
	}
	caller.End()
	clients, logical := byKind(exporter.GetSpans())
	if len(clients) != 3 || len(logical) != 1 {
		t.Fatalf("got %d client spans and %d logical ones, want 3 and 1", len(clients), len(logical))
	}
	for i, want := range []string{"", "1", "2"} {
		if got := attr(clients[i], "backstay.resend_count"); got != want {
			t.Errorf("attempt %d: backstay.resend_count is %q, want %q", i+1, got, want)
		}
		if clients[i].Parent.SpanID() != logical[0].SpanContext.SpanID() {
			t.Errorf("attempt %d: its parent is not the logical span", i+1)
		}
	}
	s := logical[0]
	if s.Status.Code != otelcodes.Unset || attr(s, "error.type") != "" {
		t.Errorf("logical span: got status %v, error.type %q; want neither", s.Status.Code, attr(s, "error.type"))
	}
	if s.Parent.SpanID() != caller.SpanContext().SpanID() || attr(s, "rpc.method") != "grpc.health.v1.Health/Check" || len(s.Events) != 2 || s.Events[0].Name != "backstay.retry" {
		t.Errorf("logical span: got %v, events %v", s.Attributes, s.Events)
	}
	who := []string{"rpc.method=grpc.health.v1.Health/Check", "rpc.system.name=grpc", "backstay.key=passthrough:///clinic"}
	m.want(1, "backstay.call.duration", append(who, "backstay.outcome=success")...)
	m.want(3, "backstay.attempt.count", who...)
	m.want(1, "backstay.attempt.count", append(who, "backstay.attempt.kind=first", "error.type=UNAVAILABLE")...)
}

// A call that ends badly marks its logical span by its status.
func TestFailedRPC(t *testing.T) {
	provider, exporter := tracing(t)
	client := dial(t, &clinic{fail: []codes.Code{codes.DeadlineExceeded}}, provider, retry.New(retry.Config{Attempts: 1}))
	ctx, caller := provider.Tracer("test").Start(context.Background(), "caller")
	_, err := client.Check(ctx, &grpc_health_v1.HealthCheckRequest{})
	caller.End()
	_, logical := byKind(exporter.GetSpans())
	if len(logical) != 1 || logical[0].Status.Code != otelcodes.Error || attr(logical[0], "error.type") != "DEADLINE_EXCEEDED" {
		t.Errorf("got %v and spans %v; want one in error by DEADLINE_EXCEEDED", err, logical)
	}
}

// The logical span of a stream lasts until the stream ends.
func TestStreamSpan(t *testing.T) {
	provider, exporter := tracing(t)
	client := dial(t, &clinic{fail: []codes.Code{codes.Unavailable}}, provider, retry.New(retry.Config{Attempts: 2, Delay: -1}))
	ctx, caller := provider.Tracer("test").Start(context.Background(), "caller")
	stream, err := client.Watch(ctx, &grpc_health_v1.HealthCheckRequest{}, grpcclient.Idempotent())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	if _, logical := byKind(exporter.GetSpans()); len(logical) != 0 {
		t.Error("the logical span has ended before the stream")
	}
	if _, err := stream.Recv(); err == nil {
		t.Fatal("want the stream's end")
	}
	caller.End()
	clients, logical := byKind(exporter.GetSpans())
	if len(clients) != 2 || len(logical) != 1 || logical[0].Status.Code != otelcodes.Unset || clients[1].Parent.SpanID() != logical[0].SpanContext.SpanID() {
		t.Errorf("got %d client spans and logical ones %v; want 2 under one that is not marked", len(clients), logical)
	}
}

// Spans switched off, the caller's span gets the attempts and the events.
func TestRPCEvents(t *testing.T) {
	provider, exporter := tracing(t)
	client := dial(t, &clinic{fail: []codes.Code{codes.Unavailable}}, provider, retry.New(retry.Config{Attempts: 2, Delay: -1}), grpcclient.NoSpans())
	ctx, caller := provider.Tracer("test").Start(context.Background(), "caller")
	if _, err := client.Check(ctx, &grpc_health_v1.HealthCheckRequest{}, grpcclient.Idempotent()); err != nil {
		t.Fatal(err)
	}
	caller.End()
	spans := exporter.GetSpans()
	last := spans[len(spans)-1]
	if _, logical := byKind(spans); len(logical) != 0 || len(last.Events) != 1 || last.Events[0].Name != "backstay.retry" {
		t.Errorf("got %d logical spans, and events of the caller's %v; want none, and the retry", len(logical), last.Events)
	}
	if errors.Is(context.Cause(ctx), context.Canceled) {
		t.Error("the caller's context has ended")
	}
}

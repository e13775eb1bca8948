package telemetry

import (
	"context"
	"fmt"
	"net/url"
	"runtime"
	"testing"

	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/retry"
	"github.com/backstay-go/backstay/telemetry"
)

// One Spans serves many operations, and more of them than it remembers, and providers in turn: each span is what it would be alone, and goes where its caller's goes.
func TestSpansOfOperations(t *testing.T) {
	var spans telemetry.Spans
	var exporters [2]*tracetest.InMemoryExporter
	var callers [2]context.Context
	for i := range callers {
		exporters[i] = tracetest.NewInMemoryExporter()
		callers[i], _ = sdk.NewTracerProvider(sdk.WithSyncer(exporters[i])).Tracer("test").Start(context.Background(), "caller")
	}
	type operation struct {
		start func(context.Context) (context.Context, *telemetry.Span)
		name  string
		attrs map[string]string
	}
	http := func(method, u string) func(context.Context) (context.Context, *telemetry.Span) {
		return func(ctx context.Context) (context.Context, *telemetry.Span) {
			where, err := url.Parse(u)
			if err != nil {
				t.Fatal(err)
			}
			return spans.StartHTTP(ctx, method, where)
		}
	}
	all := []operation{
		{func(ctx context.Context) (context.Context, *telemetry.Span) { return spans.Start(ctx, "charge") }, "backstay charge", map[string]string{"backstay.call": "charge"}},
		{func(ctx context.Context) (context.Context, *telemetry.Span) { return spans.Start(ctx, "GET") }, "backstay GET", map[string]string{"backstay.call": "GET", "http.request.method": ""}},
		{http("GET", "http://a.example:81/x"), "backstay GET", map[string]string{"http.request.method": "GET", "server.address": "a.example", "server.port": "81", "backstay.call": ""}},
		{http("", "https://a.example/x"), "backstay GET", map[string]string{"http.request.method": "GET", "server.address": "a.example", "server.port": ""}},
		{http("POST", "http://[::1]:81/"), "backstay POST", map[string]string{"http.request.method": "POST", "server.address": "::1", "server.port": "81"}},
		{http("BREW", "http://pot.example/"), "backstay _OTHER", map[string]string{"http.request.method": "_OTHER", "server.address": "pot.example"}},
		{func(ctx context.Context) (context.Context, *telemetry.Span) {
			return spans.StartRPC(ctx, "shop.Stock/Take", "dns:///stock")
		}, "backstay shop.Stock/Take", map[string]string{"rpc.system.name": "grpc", "rpc.method": "shop.Stock/Take", "server.address": "dns:///stock"}},
	}
	for i := range 1100 {
		all = append(all, operation{http("GET", fmt.Sprintf("http://host-%d.example/", i)), "backstay GET", map[string]string{"server.address": fmt.Sprintf("host-%d.example", i)}})
	}
	for _, o := range all {
		for round := range 4 {
			to := round % 2
			exporters[to].Reset()
			ctx, span := o.start(callers[to])
			if trace.SpanFromContext(ctx) == trace.SpanFromContext(callers[to]) {
				t.Fatalf("%s: the context has not got the span", o.name)
			}
			span.End("")
			got := exporters[to].GetSpans()
			if len(got) != 1 || got[0].Name != o.name || got[0].SpanKind != trace.SpanKindInternal {
				t.Fatalf("got %v, want one internal span %q", got, o.name)
			}
			for key, want := range o.attrs {
				if v := attr(got[0], key); v != want {
					t.Errorf("%s: %s is %q, want %q", o.name, key, v, want)
				}
			}
		}
	}
}

// A logical span has the events of each call made with its context, whoever else watches them, and each call is measured once.
func TestSpanBesideObservers(t *testing.T) {
	m := newMeter(t)
	provider, exporter := tracing(t)
	p := telemetry.Attach(backstay.Chain(retry.New(retry.Config{Attempts: 2, Delay: -1})), telemetry.Config{})
	fail := func(context.Context) error { return errBoom }
	var spans telemetry.Spans
	for name, c := range map[string]struct {
		outside, inside bool // a report on the context before the span, and after it
		calls           int
	}{"alone": {calls: 1}, "two calls": {calls: 2}, "outside": {outside: true, calls: 1}, "inside": {inside: true, calls: 1}, "all": {true, true, 2}} {
		exporter.Reset()
		ctx, caller := provider.Tracer("test").Start(context.Background(), "caller")
		var reports []*backstay.Report
		report := func() {
			var r *backstay.Report
			ctx, r = backstay.WithReport(ctx)
			reports = append(reports, r)
		}
		if c.outside {
			report()
		}
		ctx, span := spans.Start(ctx, name)
		if c.inside {
			report()
		}
		for range c.calls {
			_ = backstay.Run(ctx, p, fail, backstay.Named(name), backstay.Idempotent())
		}
		span.End("")
		caller.End()
		events := map[string]int{}
		for _, e := range exporter.GetSpans()[0].Events {
			events[e.Name]++
		}
		if events["backstay.retry"] != c.calls || events["backstay.stop"] != c.calls || len(events) != 2 {
			t.Errorf("%s: got events %v, want retry and stop of each of %d calls", name, events, c.calls)
		}
		for _, r := range reports {
			if got := r.Info().Attempts; got != 2*c.calls {
				t.Errorf("%s: a report has %d attempts, want %d", name, got, 2*c.calls)
			}
		}
		m.want(float64(2*c.calls), "backstay.attempt.count", "backstay.call="+name)
		m.want(float64(c.calls), "backstay.call.duration", "backstay.call="+name)
	}
	runtime.KeepAlive(p)
}

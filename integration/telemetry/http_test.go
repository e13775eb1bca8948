// Package telemetry tests what Backstay tells OpenTelemetry, with its SDK and its instrumentation of net/http.
package telemetry

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/codes"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/httpclient"
	"github.com/backstay-go/backstay/retry"
	"github.com/backstay-go/backstay/telemetry"
)

// spansOf makes one request under a recording span, over otelhttp, and returns the spans that ended, the caller's last.
func spansOf(t *testing.T, codes []int, parts ...backstay.Policy) tracetest.SpanStubs {
	t.Helper()
	exporter := tracetest.NewInMemoryExporter()
	provider := sdk.NewTracerProvider(sdk.WithSyncer(exporter))
	defer func() { _ = provider.Shutdown(context.Background()) }()
	hits := 0
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if hits++; hits <= len(codes) {
			if codes[hits-1] == 302 {
				w.Header().Set("Location", "/next")
			}
			w.WriteHeader(codes[hits-1])
		}
		_, _ = io.WriteString(w, "canary-body")
	}))
	defer srv.Close()
	base := otelhttp.NewTransport(telemetry.ResendCount(&http.Transport{}), otelhttp.WithTracerProvider(provider))
	parts = append([]backstay.Policy{retry.New(retry.Config{Attempts: 3, Delay: -1})}, parts...)
	client := &http.Client{Transport: httpclient.New(base, parts...)}
	ctx, caller := provider.Tracer("test").Start(context.Background(), "caller")
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.Replace(srv.URL, "http://", "http://user:canary-password@", 1)+"/?token=canary-query", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Secret", "canary-header")
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	caller.End()
	client.CloseIdleConnections()
	return exporter.GetSpans()
}

// attr returns an attribute as text, or "" when it is not there.
func attr(s tracetest.SpanStub, key string) string {
	for _, a := range s.Attributes {
		if string(a.Key) == key {
			return a.Value.String()
		}
	}
	return ""
}

func byKind(spans tracetest.SpanStubs) (clients tracetest.SpanStubs, logical tracetest.SpanStubs) {
	for _, s := range spans {
		switch {
		case s.SpanKind == trace.SpanKindClient:
			clients = append(clients, s)
		case strings.HasPrefix(s.Name, "backstay "):
			logical = append(logical, s)
		}
	}
	return clients, logical
}

// Transport case 43: 500, 500, 200 is three client spans under one logical span, numbered, and the logical span is not marked by what was mended.
func TestMendedCall(t *testing.T) {
	clients, logical := byKind(spansOf(t, []int{500, 500}))
	if len(clients) != 3 || len(logical) != 1 {
		t.Fatalf("got %d client spans and %d logical ones, want 3 and 1", len(clients), len(logical))
	}
	for i, want := range []string{"", "1", "2"} {
		if got := attr(clients[i], "http.request.resend_count"); got != want {
			t.Errorf("attempt %d: http.request.resend_count is %q, want %q", i+1, got, want)
		}
		if clients[i].Parent.SpanID() != logical[0].SpanContext.SpanID() {
			t.Errorf("attempt %d: its parent is not the logical span", i+1)
		}
	}
	if s := logical[0]; s.Status.Code != codes.Unset || attr(s, "error.type") != "" {
		t.Errorf("logical span: got status %v, error.type %q; want neither", s.Status.Code, attr(s, "error.type"))
	}
}

// A call that ends badly marks its logical span.
func TestFailedCall(t *testing.T) {
	clients, logical := byKind(spansOf(t, []int{503, 503, 503}))
	if len(clients) != 3 || len(logical) != 1 {
		t.Fatalf("got %d client spans and %d logical ones, want 3 and 1", len(clients), len(logical))
	}
	if s := logical[0]; s.Status.Code != codes.Error || attr(s, "error.type") != "503" || attr(s, "http.request.method") != "GET" || attr(s, "server.address") != "127.0.0.1" {
		t.Errorf("logical span: got %v %v", s.Status, s.Attributes)
	}
}

// A redirect's hops count as sent again.
func TestRedirect(t *testing.T) {
	clients, _ := byKind(spansOf(t, []int{302}))
	if len(clients) != 2 || attr(clients[0], "http.request.resend_count") != "" || attr(clients[1], "http.request.resend_count") != "1" {
		t.Errorf("got %d client spans; want 2, the second numbered 1", len(clients))
	}
}

// Without a recording span nothing starts, nor when spans are switched off.
func TestNoSpan(t *testing.T) {
	if _, logical := byKind(spansOf(t, nil, httpclient.NoSpans())); len(logical) != 0 {
		t.Errorf("switched off: got %d logical spans, want none", len(logical))
	}
	if ctx, s := new(telemetry.Spans).StartHTTP(context.Background(), "GET", nil); s != nil || ctx != context.Background() {
		t.Error("a span was started without a caller's")
	}
}

// No span holds anything of the URL's secrets, the headers, the body or an error's text that Backstay put there.
func TestNoSecrets(t *testing.T) {
	_, logical := byKind(spansOf(t, []int{500, 503, 503}))
	if text := fmt.Sprintf("%+v", logical); strings.Contains(text, "canary") {
		t.Errorf("a secret is in a logical span: %s", text)
	}
}

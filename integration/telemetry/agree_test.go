package telemetry

import (
	"context"
	"fmt"
	"strings"
	"testing"

	otelcodes "go.opentelemetry.io/otel/codes"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/grpcclient"
	"github.com/backstay-go/backstay/retry"
	"github.com/backstay-go/backstay/telemetry"
)

// agree compares the error.type of the logical span with that of the call's metrics: the semantic conventions want the same value on both. outcome is the policies' view, which
// is another thing: a 404 says that the dependency works.
func agree(t *testing.T, m *meter, logical tracetest.SpanStubs, errorType, outcome string) {
	t.Helper()
	if len(logical) != 1 {
		t.Fatalf("got %d logical spans, want 1", len(logical))
	}
	status := otelcodes.Unset
	if errorType != "" {
		status = otelcodes.Error
	}
	if s := logical[0]; s.Status.Code != status || attr(s, "error.type") != errorType {
		t.Errorf("logical span: got %v and error.type %q, want %v and %q", s.Status.Code, attr(s, "error.type"), status, errorType)
	}
	for _, name := range []string{"backstay.call.duration", "backstay.call.attempts"} {
		points := m.points()[name]
		if len(points) != 1 || points[0].attrs["error.type"] != errorType || points[0].attrs["backstay.outcome"] != outcome {
			t.Errorf("%s: got %v, want one of error.type %q and outcome %q", name, points, errorType, outcome)
		}
	}
}

// What an answer of 400 and above is to a client span, it is to the metrics; and what an attempt was is not what its call was.
func TestStatusOnSpanAndMetrics(t *testing.T) {
	for _, c := range []struct {
		codes              []int
		errorType, outcome string
	}{
		{[]int{200}, "", "success"},
		{[]int{304}, "", "success"},
		{[]int{400}, "400", "success"},
		{[]int{404}, "404", "success"},
		{[]int{429, 429, 429}, "429", "neutral"},
		{[]int{501}, "501", "success"},
		{[]int{503, 404}, "404", "success"},
		{[]int{503, 503, 503}, "503", "failure"},
		{[]int{503, 200}, "", "success"},
	} {
		t.Run(fmt.Sprint(c.codes), func(t *testing.T) {
			m := newMeter(t)
			_, logical := byKind(spansOf(t, c.codes))
			agree(t, m, logical, c.errorType, c.outcome)
			last := c.codes[len(c.codes)-1]
			want := ""
			if last >= 400 {
				want = fmt.Sprint(last)
			}
			var seen float64
			for _, p := range m.points()["backstay.attempt.count"] {
				if p.attrs["error.type"] == want {
					seen += p.value
				}
			}
			if all, _ := m.value("backstay.attempt.count"); all != float64(len(c.codes)) || seen < 1 {
				t.Errorf("attempts: got %g, of error.type %q %g; want %d, and the last of them so", all, want, seen, len(c.codes))
			}
		})
	}
}

// The same for the codes of gRPC, of which only OK is none of an error to a client.
func TestCodeOnSpanAndMetrics(t *testing.T) {
	for _, c := range []struct {
		code               codes.Code
		errorType, outcome string
	}{
		{codes.OK, "", "success"},
		{codes.NotFound, "NOT_FOUND", "success"},
		{codes.Internal, "INTERNAL", "failure"},
	} {
		t.Run(c.code.String(), func(t *testing.T) {
			m := newMeter(t)
			provider, exporter := tracing(t)
			client := dial(t, &clinic{fail: []codes.Code{c.code}}, provider, retry.New(retry.Config{Attempts: 1}))
			ctx, caller := provider.Tracer("test").Start(context.Background(), "caller")
			_, _ = client.Check(ctx, &grpc_health_v1.HealthCheckRequest{}, grpcclient.Idempotent())
			caller.End()
			_, logical := byKind(exporter.GetSpans())
			agree(t, m, logical, c.errorType, c.outcome)
			if text := fmt.Sprint(logical, m.points()); strings.Contains(text, "canary") {
				t.Errorf("the server's message is in %s", text)
			}
		})
	}
}

// Who looks at a slow call, or at one that took several attempts, gets a trace of one.
func TestExemplars(t *testing.T) {
	m := newMeter(t)
	provider := sdk.NewTracerProvider()
	ctx, caller := provider.Tracer("test").Start(context.Background(), "caller")
	defer caller.End()
	p := telemetry.Attach(backstay.Chain(retry.New(retry.Config{Attempts: 2, Delay: -1})), telemetry.Config{})
	n := 0
	run := func(f func() error) {
		_ = backstay.Run(ctx, p, func(context.Context) error { return f() }, backstay.Idempotent())
	}
	run(func() error { return nil })
	traces := m.exemplars()
	if traces["backstay.call.duration"] != 1 || traces["backstay.call.attempts"] != 0 || traces["backstay.attempt.count"] != 0 {
		t.Errorf("a call of one attempt: got exemplars %v, want one, of its duration", traces)
	}
	run(func() error {
		if n++; n == 1 {
			return errBoom
		}
		return nil
	})
	traces = m.exemplars()
	for name, want := range map[string]int{"backstay.call.attempts": 1, "backstay.attempt.count": 2, "backstay.retry.delay": 1} {
		if traces[name] != want {
			t.Errorf("a call of two attempts: got %d exemplars of %s, want %d", traces[name], name, want)
		}
	}
}

// exemplars returns how many of them each metric has.
func (m *meter) exemplars() map[string]int {
	n := map[string]int{}
	for _, scope := range m.raw().ScopeMetrics {
		for _, metric := range scope.Metrics {
			switch d := metric.Data.(type) {
			case metricdata.Sum[int64]:
				for _, p := range d.DataPoints {
					n[metric.Name] += len(p.Exemplars)
				}
			case metricdata.Histogram[int64]:
				for _, p := range d.DataPoints {
					n[metric.Name] += len(p.Exemplars)
				}
			case metricdata.Histogram[float64]:
				for _, p := range d.DataPoints {
					n[metric.Name] += len(p.Exemplars)
				}
			}
		}
	}
	return n
}

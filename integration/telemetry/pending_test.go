package telemetry

import (
	"context"
	"runtime"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric/noop"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/retry"
	"github.com/backstay-go/backstay/telemetry"
)

func fine(context.Context) error { return nil }

// Attempts that wait to be counted are counted once, however collections fall between them.
func TestAttemptsCountedOnce(t *testing.T) {
	m := newMeter(t)
	p := telemetry.Attach(backstay.Chain(), telemetry.Config{})
	const callers, calls = 4, 2000
	var work sync.WaitGroup
	for range callers {
		work.Go(func() {
			for i := range calls {
				_ = backstay.Run(context.Background(), p, fine, backstay.WithKey([]string{"a", "b"}[i%2]))
			}
		})
	}
	done := make(chan struct{})
	go func() { work.Wait(); close(done) }()
	for over := false; !over; {
		select {
		case <-done:
			over = true
		default:
			m.raw()
		}
	}
	for _, key := range []string{"a", "b"} {
		m.want(callers*calls/2, "backstay.attempt.count", "backstay.key="+key)
	}
	runtime.KeepAlive(p)
}

// A client that was thrown away has all its attempts counted.
func TestForgottenAttempts(t *testing.T) {
	m := newMeter(t)
	gone := make(chan struct{})
	func() {
		p := telemetry.Attach(backstay.Chain(), telemetry.Config{Name: "gone"})
		runtime.AddCleanup(p, func(c chan struct{}) { close(c) }, gone)
		m.raw()
		for range 3 {
			_ = backstay.Run(context.Background(), p, fine)
		}
		runtime.KeepAlive(p)
	}()
	collected(t, gone)
	m.want(3, "backstay.attempt.count", "backstay.client=gone")
}

// Attempts are counted where views leave out the gauges, with which the others would be collected.
func TestAttemptsWithoutGauges(t *testing.T) {
	reader := sdkmetric.NewManualReader()
	views := []sdkmetric.View{}
	for _, name := range []string{"backstay.breaker.count", "backstay.limit.*", "backstay.budget.tokens", "backstay.ratelimit.tokens"} {
		views = append(views, sdkmetric.NewView(sdkmetric.Instrument{Name: name}, sdkmetric.Stream{Aggregation: sdkmetric.AggregationDrop{}}))
	}
	otel.SetMeterProvider(sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader), sdkmetric.WithView(views...)))
	t.Cleanup(func() { otel.SetMeterProvider(noop.NewMeterProvider()) })
	m := &meter{t, reader}
	p := telemetry.Attach(backstay.Chain(), telemetry.Config{})
	for n := range 3 {
		_ = backstay.Run(context.Background(), p, fine)
		m.want(float64(n+1), "backstay.attempt.count")
	}
	runtime.KeepAlive(p)
}

// What is counted of the time since the last collection is exported when the SDK is shut down, and by each of two readers.
func TestAttemptsAtShutdown(t *testing.T) {
	var exported [2]exporter
	provider := sdkmetric.NewMeterProvider(
		sdkmetric.WithReader(sdkmetric.NewPeriodicReader(&exported[0], sdkmetric.WithInterval(time.Hour))),
		sdkmetric.WithReader(sdkmetric.NewPeriodicReader(&exported[1], sdkmetric.WithInterval(time.Hour))))
	otel.SetMeterProvider(provider)
	t.Cleanup(func() { otel.SetMeterProvider(noop.NewMeterProvider()) })
	p := telemetry.Attach(backstay.Chain(), telemetry.Config{})
	_ = backstay.Run(context.Background(), p, fine)
	if err := provider.ForceFlush(context.Background()); err != nil {
		t.Fatal(err)
	}
	for range 4 {
		_ = backstay.Run(context.Background(), p, fine)
	}
	if err := provider.Shutdown(context.Background()); err != nil {
		t.Fatal(err)
	}
	for i := range exported {
		if got := exported[i].last; got != 5 {
			t.Errorf("reader %d: got %d attempts, want 5", i, got)
		}
	}
	runtime.KeepAlive(p)
}

// exporter keeps the latest value of backstay.attempt.count.
type exporter struct {
	sdkmetric.Exporter
	last int64
}

func (*exporter) Temporality(sdkmetric.InstrumentKind) metricdata.Temporality {
	return metricdata.CumulativeTemporality
}

func (*exporter) Aggregation(k sdkmetric.InstrumentKind) sdkmetric.Aggregation {
	return sdkmetric.DefaultAggregationSelector(k)
}

func (e *exporter) Export(_ context.Context, all *metricdata.ResourceMetrics) error {
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			if sum, ok := m.Data.(metricdata.Sum[int64]); ok && m.Name == "backstay.attempt.count" {
				e.last = 0
				for _, p := range sum.DataPoints {
					e.last += p.Value
				}
			}
		}
	}
	return nil
}

func (*exporter) ForceFlush(context.Context) error { return nil }
func (*exporter) Shutdown(context.Context) error   { return nil }

// A measured call costs no allocation, and one with a logical span no more than the span by hand and one object of ours.
func TestAllocations(t *testing.T) {
	m := newMeter(t)
	plain := backstay.Chain(retry.New(retry.Config{}))
	p := telemetry.Attach(plain, telemetry.Config{})
	provider := sdk.NewTracerProvider()
	tracer := provider.Tracer("test")
	root, caller := tracer.Start(context.Background(), "caller")
	defer caller.End()
	m.raw()
	var spans telemetry.Spans
	allocs := func(f func()) float64 { return testing.AllocsPerRun(200, f) }
	bare := allocs(func() { _ = backstay.Run(context.Background(), plain, fine) })
	if got := allocs(func() { _ = backstay.Run(context.Background(), p, fine) }); got != bare {
		t.Errorf("measured: got %g allocations, want the %g of a call that is not", got, bare)
	}
	span := allocs(func() {
		_, span := tracer.Start(root, "backstay f", trace.WithAttributes())
		span.SetAttributes(attribute.String("backstay.call", "f"))
		span.End()
	})
	if got := allocs(func() {
		ctx, span := spans.Start(root, "f")
		_ = backstay.Run(ctx, p, fine)
		span.End("")
	}); got > bare+span+1 {
		t.Errorf("with a span: got %g allocations, want at most one more than the %g of the call and the %g of the span", got, bare, span)
	}
	runtime.KeepAlive(p)
}

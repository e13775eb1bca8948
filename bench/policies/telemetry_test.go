package policies

import (
	"context"
	"testing"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	api "go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/trace"
	oteltrace "go.opentelemetry.io/otel/trace"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/breaker"
	"github.com/backstay-go/backstay/bulkhead"
	"github.com/backstay-go/backstay/retry"
	"github.com/backstay-go/backstay/telemetry"
)

// measured measures calls through p under a context that may carry a span.
func measured(b *testing.B, ctx context.Context, p *backstay.Pipeline) {
	b.ReportAllocs()
	for b.Loop() {
		if v, err := backstay.Do(ctx, p, call); v != one || err != nil {
			b.Fatalf("got %v and error %v, want the item", v, err)
		}
	}
}

// BenchmarkTelemetry is the stack of BenchmarkStackNoTimeout: unwatched, measured where no SDK is installed, and measured where one collects
// metrics, and writes spans too.
func BenchmarkTelemetry(b *testing.B) {
	stack := func() *backstay.Pipeline {
		return backstay.Chain(retry.New(retry.Config{}), bulkhead.New(bulkhead.Config{}), breaker.New(breaker.Config{}))
	}
	plain, without := stack(), telemetry.Attach(stack(), telemetry.Config{}) // before an SDK is installed
	b.Run("unwatched", func(b *testing.B) { measured(b, b.Context(), plain) })
	b.Run("no-sdk", func(b *testing.B) { measured(b, b.Context(), without) })

	reader := metric.NewManualReader()
	otel.SetMeterProvider(metric.NewMeterProvider(metric.WithReader(reader)))
	defer otel.SetMeterProvider(noop.NewMeterProvider())
	with := telemetry.Attach(stack(), telemetry.Config{})
	if err := reader.Collect(b.Context(), &metricdata.ResourceMetrics{}); err != nil { // as a program that has run for a minute
		b.Fatal(err)
	}
	b.Run("sdk-metrics", func(b *testing.B) { measured(b, b.Context(), with) })
	tracer := trace.NewTracerProvider().Tracer("bench")
	root, span := tracer.Start(b.Context(), "caller")
	defer span.End()
	b.Run("sdk-spans", func(b *testing.B) {
		var spans telemetry.Spans
		b.ReportAllocs()
		for b.Loop() {
			ctx, span := spans.Start(root, "bench")
			if v, err := backstay.Do(ctx, with, call); v != one || err != nil {
				b.Fatalf("got %v and error %v, want the item", v, err)
			}
			span.End("")
		}
	})

	// What the SDK itself takes for the same span and the same three measurements, with nothing of ours around it.
	meter := otel.Meter("bench")
	duration, _ := meter.Float64Histogram("bench.duration", api.WithExplicitBucketBoundaries(0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 30))
	perCall, _ := meter.Int64Histogram("bench.attempts", api.WithExplicitBucketBoundaries(1, 2, 3, 4, 5, 10))
	attempts, _ := meter.Int64Counter("bench.attempt.count")
	attrs := api.WithAttributeSet(attribute.NewSet(attribute.String("backstay.outcome", "success")))
	add, record := []api.AddOption{attrs}, []api.RecordOption{attrs}
	measure := func(ctx context.Context, took time.Duration) {
		attempts.Add(ctx, 1, add...)
		duration.Record(ctx, took.Seconds(), record...)
		perCall.Record(ctx, 1, record...)
	}
	b.Run("bare-metrics", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			measure(context.Background(), time.Microsecond)
		}
	})
	named := []oteltrace.SpanStartOption{oteltrace.WithAttributes(attribute.String("backstay.call", "bench"))}
	b.Run("bare-span", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, span := tracer.Start(root, "bench", named...)
			span.End()
		}
	})
	b.Run("by-hand", func(b *testing.B) { // the same span and measurements around the same policies
		b.ReportAllocs()
		for b.Loop() {
			began := time.Now()
			ctx, span := tracer.Start(root, "bench", named...)
			if v, err := backstay.Do(ctx, plain, call); v != one || err != nil {
				b.Fatalf("got %v and error %v, want the item", v, err)
			}
			measure(ctx, time.Since(began))
			span.End()
		}
	})
}

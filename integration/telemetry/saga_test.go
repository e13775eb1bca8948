package telemetry

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/codes"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"github.com/backstay-go/backstay/saga"
	"github.com/backstay-go/backstay/saga/sagamem"
)

type order struct{ Fail, Park bool }

// placing is a saga of three steps, defined anew for each test, since instruments belong to the provider of the moment.
func placing(version int) *saga.Definition[order] {
	return saga.Must(saga.Define("place-order", version, func(b *saga.Builder[order]) {
		saga.Step(b, "reserve", func(*saga.Ctx, order) (int, error) { return 1, nil }).
			Compensate(func(*saga.Ctx, order, saga.Result[int]) error { return nil })
		saga.Step(b, "charge", func(_ *saga.Ctx, o order) (int, error) {
			switch {
			case o.Fail:
				return 0, saga.Fail(errors.New("canary-declined"))
			case o.Park:
				return 0, saga.Park(errors.New("canary-parked"))
			}
			return 1, nil
		}).Pivot()
		saga.Step(b, "confirm", func(*saga.Ctx, order) (int, error) { return 1, nil }).Retriable()
	}))
}

// globalTracing installs a tracer provider until the end of the test.
func globalTracing(t *testing.T) *tracetest.InMemoryExporter {
	t.Helper()
	exporter := tracetest.NewInMemoryExporter()
	otel.SetTracerProvider(sdk.NewTracerProvider(sdk.WithSyncer(exporter)))
	t.Cleanup(func() { otel.SetTracerProvider(tracenoop.NewTracerProvider()) })
	return exporter
}

// running runs an engine until stop.
func running(t *testing.T, store saga.Store, opts ...saga.Option) (e *saga.Engine, stop func()) {
	t.Helper()
	e = saga.New(store, opts...)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- e.Run(ctx) }()
	return e, func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// Starts, ends, steps and what waits for a person are counted.
func TestSagaMetrics(t *testing.T) {
	m := newMeter(t)
	synctest.Test(t, func(t *testing.T) {
		d, store := placing(1), sagamem.New()
		if _, err := placing(2).Start(t.Context(), store, "old", order{}); err != nil { // nobody has version 2
			t.Fatal(err)
		}
		e, stop := running(t, store, saga.Register(d))
		synctest.Wait()
		for key, o := range map[string]order{"good": {}, "bad": {Fail: true}, "stuck": {Park: true}} {
			h, err := d.Start(t.Context(), e, key, o)
			if err != nil {
				t.Fatal(err)
			}
			_ = e.Wait(t.Context(), h.ID)
			if _, err := d.Start(t.Context(), e, key, o); err != nil { // the same again
				t.Fatal(err)
			}
		}
		time.Sleep(2 * time.Minute) // a census later
		def := "backstay.saga.definition=place-order"
		m.want(4, "backstay.saga.starts", def)
		m.want(1, "backstay.saga.ends", def, "backstay.saga.state=completed")
		m.want(1, "backstay.saga.ends", def, "backstay.saga.state=compensated")
		m.want(2, "backstay.saga.duration", def)
		m.want(1, "backstay.saga.parks", def, "backstay.saga.state=parked-fwd")
		m.want(1, "backstay.saga.parked", def, "backstay.saga.state=parked-fwd")
		m.want(1, "backstay.saga.unclaimable", def, "backstay.saga.version=2")
		m.want(0, "backstay.saga.held")
		m.want(3, "backstay.saga.step.duration", def, "backstay.saga.step=reserve", "backstay.saga.op=action", "backstay.outcome=success")
		m.want(1, "backstay.saga.step.duration", def, "backstay.saga.step=reserve", "backstay.saga.op=compensate", "backstay.outcome=success")
		m.want(2, "backstay.saga.step.duration", def, "backstay.saga.step=charge", "backstay.outcome=failure")

		list, err := e.List(t.Context(), saga.Filter{States: []saga.State{saga.ParkedFwd}})
		if err != nil || len(list) != 1 {
			t.Fatalf("parked: got %v and %v", list, err)
		}
		if err := e.Operator().Resolve(t.Context(), list[0].ID, saga.By{Actor: "test", Reason: "test"}); err != nil {
			t.Fatal(err)
		}
		m.want(1, "backstay.saga.ends", def, "backstay.saga.state=resolved")
		time.Sleep(2 * time.Minute)
		m.want(0, "backstay.saga.parked") // none is a number too
		stop()
	})
}

// lossy is a store that takes a node for dead once.
type lossy struct {
	*sagamem.Store
	lose atomic.Bool
}

func (l *lossy) Beat(ctx context.Context, b saga.Beat) (saga.Pulse, error) {
	if b.TTL > 0 && l.lose.Swap(false) {
		return saga.Pulse{Lost: true}, nil
	}
	return l.Store.Beat(ctx, b)
}

func TestSagaLeaseLost(t *testing.T) {
	m := newMeter(t)
	synctest.Test(t, func(t *testing.T) {
		store := &lossy{Store: sagamem.New()}
		_, stop := running(t, store, saga.Register(placing(1)))
		synctest.Wait()
		store.lose.Store(true)
		time.Sleep(time.Minute)
		m.want(1, "backstay.saga.lease.lost")
		stop()
	})
}

// A saga that one process starts and another, later, runs: the steps' spans are linked to the start's.
func TestSagaSpans(t *testing.T) {
	exporter := globalTracing(t)
	synctest.Test(t, func(t *testing.T) {
		d, store := placing(1), sagamem.New()
		ctx, caller := otel.Tracer("test").Start(context.Background(), "caller")
		h, err := d.Start(ctx, store, "order-1", order{Fail: true})
		caller.End()
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(24 * time.Hour) // nobody runs it for a day
		e, stop := running(t, store, saga.Register(placing(1)))
		_ = e.Wait(context.Background(), h.ID)
		stop()

		spans := exporter.GetSpans()
		start := find(t, spans, "saga start place-order")
		if start.Parent.SpanID() != caller.SpanContext().SpanID() || start.SpanKind != trace.SpanKindProducer || attr(start, "backstay.saga.id") != h.ID {
			t.Errorf("the start: got parent %v and %v", start.Parent, start.Attributes)
		}
		var names []string
		for _, s := range spans {
			if !strings.HasPrefix(s.Name, "saga place-order/") {
				continue
			}
			names = append(names, s.Name+" "+attr(s, "backstay.saga.op"))
			if s.Parent.IsValid() || len(s.Links) != 1 || s.Links[0].SpanContext.SpanID() != start.SpanContext.SpanID() || s.Links[0].SpanContext.TraceID() != start.SpanContext.TraceID() {
				t.Errorf("%s: got parent %v and links %v, want a root linked to the start", s.Name, s.Parent, s.Links)
			}
		}
		want := []string{"saga place-order/reserve action", "saga place-order/charge action", "saga place-order/reserve compensate"}
		if !slices.Equal(names, want) {
			t.Errorf("got spans %q, want %q", names, want)
		}
		charge := find(t, spans, "saga place-order/charge")
		if charge.Status.Code != codes.Error || attr(charge, "error.type") == "" || attr(charge, "backstay.attempt") != "1" {
			t.Errorf("the step that failed: got %v and %v", charge.Status, charge.Attributes)
		}
	})
}

func find(t *testing.T, spans tracetest.SpanStubs, name string) tracetest.SpanStub {
	t.Helper()
	for _, s := range spans {
		if s.Name == name {
			return s
		}
	}
	t.Fatalf("there is no span %q", name)
	return tracetest.SpanStub{}
}

// reluctant is a store that does not take the first checkpoint.
type reluctant struct {
	*sagamem.Store
	refused atomic.Bool
}

func (r *reluctant) Commit(ctx context.Context, batch []saga.Checkpoint) ([]saga.Committed, error) {
	if len(batch) == 1 && !r.refused.Swap(true) {
		return []saga.Committed{{Err: errors.New("canary-store")}}, nil
	}
	return r.Store.Commit(ctx, batch)
}

func troubled() saga.Store { return &reluctant{Store: sagamem.New()} }

func registered(d *saga.Definition[order]) saga.Option { return saga.Register(d) }

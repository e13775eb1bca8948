package telemetry

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/trace"

	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/outboxmem"
)

// A relay tells of what it does and of what waits.
func TestOutboxMetrics(t *testing.T) {
	m := newMeter(t)
	synctest.Test(t, func(t *testing.T) {
		box := outboxmem.New()
		var down atomic.Bool
		down.Store(true)
		relay := outbox.NewRelay(box.Source(), outbox.PublisherFunc(func(_ context.Context, batch []*outbox.Message, result []error) {
			for i, msg := range batch {
				switch {
				case string(msg.Payload) == "poison":
					result[i] = outbox.Permanent(errors.New("canary-refused"))
				case down.Load():
					result[i] = outbox.ErrUnavailable
				default:
					result[i] = nil
				}
			}
		}), outbox.RelayConfig{Name: "main"})
		ended := make(chan error, 1)
		go func() { ended <- relay.Run(context.Background()) }()
		defer func() {
			if err := relay.Shutdown(context.Background()); err != nil {
				t.Error(err)
			}
			<-ended
			if v, ok := m.value("backstay.outbox.lease.owned"); ok {
				t.Errorf("a relay that has ended: it still owns %g", v)
			}
		}()
		who := "backstay.outbox.relay=main"
		send := func(key, payload string) {
			if err := box.Enqueue(t.Context(), outbox.Message{Topic: "orders", Key: key, Payload: []byte(payload)}); err != nil {
				t.Fatal(err)
			}
		}
		send("a", "one")
		send("b", "poison")
		time.Sleep(time.Minute)
		m.want(1, "backstay.outbox.parked", who)
		m.want(1, "backstay.outbox.dead", who)
		m.want(1, "backstay.outbox.keys.parked", who)
		m.want(1, "backstay.outbox.waiting", who)
		if age, _ := m.value("backstay.outbox.oldest.age", who); age < 59 || age > 61 {
			t.Errorf("backstay.outbox.oldest.age: got %g, want a minute", age)
		}
		if n, _ := m.value("backstay.outbox.failed", who); n < 2 {
			t.Errorf("backstay.outbox.failed: got %g, want it tried again", n)
		}
		if owned, _ := m.value("backstay.outbox.lease.owned", who); owned == 0 {
			t.Error("backstay.outbox.lease.owned: got none")
		}
		down.Store(false)
		time.Sleep(time.Minute)
		m.want(1, "backstay.outbox.published", who)
		m.want(1, "backstay.outbox.enqueue_to_publish.duration", who)
		m.want(0, "backstay.outbox.oldest.age", who)
		m.want(0, "backstay.outbox.waiting", who)
		for _, name := range []string{"duplicates", "expired", "rescued", "lease.lost", "scheduled"} {
			m.want(0, "backstay.outbox."+name, who)
		}
		if n, _ := m.value("backstay.outbox.publish.duration", who); n < 3 {
			t.Errorf("backstay.outbox.publish.duration: got %g calls", n)
		}

		in := box.Inbox("billing")
		for range 3 {
			if err := in.Handle(t.Context(), "m-1", func(*outboxmem.Tx) error { return nil }); err != nil {
				t.Fatal(err)
			}
		}
		m.want(1, "backstay.inbox.handled", "backstay.inbox.consumer=billing")
		m.want(2, "backstay.inbox.duplicates", "backstay.inbox.consumer=billing")
	})
}

// A message enqueued in one trace is published in another, linked to it, and its headers carry the first to the consumer.
func TestOutboxSpans(t *testing.T) {
	exporter := globalTracing(t)
	synctest.Test(t, func(t *testing.T) {
		box := outboxmem.New()
		ctx, caller := otel.Tracer("test").Start(context.Background(), "caller")
		if err := box.Enqueue(ctx, outbox.Message{Topic: "orders", Key: "o-1", Payload: []byte("one")}); err != nil {
			t.Fatal(err)
		}
		caller.End()
		time.Sleep(time.Hour) // no relay runs
		got := make(chan map[string]string, 1)
		relay := outbox.NewRelay(box.Source(), outbox.PublisherFunc(func(_ context.Context, batch []*outbox.Message, result []error) {
			result[0] = nil
			got <- batch[0].Headers
		}), outbox.RelayConfig{})
		ended := make(chan error, 1)
		go func() { ended <- relay.Run(context.Background()) }()
		from := trace.SpanContextFromContext(outbox.Extract(context.Background(), <-got))
		_ = relay.Shutdown(context.Background())
		<-ended

		// In memory the enqueue has no span of its own: it is the caller's.
		enqueue, publish := find(t, exporter.GetSpans(), "caller"), find(t, exporter.GetSpans(), "publish")
		if publish.Parent.IsValid() || len(publish.Links) != 1 || publish.Links[0].SpanContext.SpanID() != enqueue.SpanContext.SpanID() {
			t.Errorf("the publication: got parent %v and links %v, want a root linked to the enqueue", publish.Parent, publish.Links)
		}
		if from.SpanID() != enqueue.SpanContext.SpanID() || from.TraceID() != caller.SpanContext().TraceID() {
			t.Errorf("the consumer's parent: got %v, want the enqueue", from)
		}
	})
}

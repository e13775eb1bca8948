package outbox

import (
	"context"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"
)

// instruments is how a relay speaks through the global OpenTelemetry providers. Without an SDK all of it does nothing.
type instruments struct {
	tracer   trace.Tracer
	duration metric.Float64Histogram
	delay    metric.Float64Histogram
	relay    metric.MeasurementOption
	board    *board
	watch    metric.Registration
}

func newInstruments(r *Relay) *instruments {
	m := otel.Meter(scope)
	t := &instruments{
		tracer: otel.Tracer(scope),
		relay:  metric.WithAttributeSet(attribute.NewSet(attribute.String("outbox.relay", r.cfg.Name))),
		board:  r.board,
	}
	var errs [12]error
	t.duration, errs[0] = m.Float64Histogram("outbox.publish.duration", metric.WithUnit("s"), metric.WithDescription("One call of the publisher"))
	t.delay, errs[1] = m.Float64Histogram("outbox.enqueue_to_publish.duration", metric.WithUnit("s"), metric.WithDescription("From the enqueue, by the database's clock, to the broker's confirmation"))
	counter := func(i int, name, description string) metric.Int64ObservableCounter {
		c, err := m.Int64ObservableCounter(name, metric.WithDescription(description))
		errs[i] = err
		return c
	}
	published := counter(2, "outbox.published", "Messages confirmed by the broker")
	failed := counter(3, "outbox.failed", "Publications of a message that were not confirmed")
	parked := counter(4, "outbox.parked", "Messages moved to the dead letters")
	expired := counter(5, "outbox.expired", "Messages dropped because their time had passed")
	rescued := counter(6, "outbox.sweep.rescued", "Messages of late commits, found by a sweep")
	duplicates := counter(7, "outbox.duplicates", "Messages published whose row another relay had deleted")
	lost := counter(8, "outbox.lease.lost", "Partitions lost without having been given back")
	owned, err := m.Int64ObservableGauge("outbox.lease.owned", metric.WithDescription("Partitions owned"))
	errs[9] = err
	age, err := m.Float64ObservableGauge("outbox.oldest.age", metric.WithUnit("s"), metric.WithDescription("Age of the oldest message in the relay's hands"))
	errs[10] = err
	t.watch, errs[11] = m.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		s := r.Stats()
		o.ObserveInt64(published, s.Published, t.relay)
		o.ObserveInt64(failed, s.Failed, t.relay)
		o.ObserveInt64(parked, s.Parked, t.relay)
		o.ObserveInt64(expired, s.Expired, t.relay)
		o.ObserveInt64(rescued, s.Rescued, t.relay)
		o.ObserveInt64(duplicates, s.Duplicates, t.relay)
		o.ObserveInt64(lost, s.Lost, t.relay)
		o.ObserveInt64(owned, int64(s.Owned), t.relay)
		o.ObserveFloat64(age, s.Oldest.Seconds(), t.relay)
		return nil
	}, published, failed, parked, expired, rescued, duplicates, lost, owned, age)
	for _, err := range errs {
		if err != nil {
			r.log.Warn("outbox: metrics", "err", err)
		}
	}
	return t
}

func (t *instruments) close() {
	if t.watch != nil {
		_ = t.watch.Unregister()
	}
}

// published records one call of the publisher.
func (t *instruments) published(ctx context.Context, batch []*record, errs []error, took time.Duration) {
	if t.duration.Enabled(ctx) {
		t.duration.Record(ctx, took.Seconds(), t.relay)
	}
	if !t.delay.Enabled(ctx) {
		return
	}
	t.board.mu.Lock()
	now := time.Now().Add(t.board.clock)
	t.board.mu.Unlock()
	for i, rec := range batch {
		if errs[i] == nil {
			t.delay.Record(ctx, max(now.Sub(rec.msg.Created), 0).Seconds(), t.relay)
		}
	}
}

package outbox

import (
	"context"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"
)

const (
	keyRelay    = attribute.Key("backstay.outbox.relay")
	keyConsumer = attribute.Key("backstay.inbox.consumer")
)

// instruments is how a relay speaks through the global OpenTelemetry providers, from the beginning of Run to its end. Without an SDK all of it does nothing.
type instruments struct {
	tracer   trace.Tracer
	duration metric.Float64Histogram
	delay    metric.Float64Histogram
	relay    metric.MeasurementOption
	record   []metric.RecordOption // relay, as it is handed on
	board    *board
	watch    metric.Registration
}

// newInstruments has the relay's numbers collected until close.
func newInstruments(r *Relay) *instruments {
	m := otel.Meter(scope)
	t := &instruments{tracer: otel.Tracer(scope), relay: metric.WithAttributeSet(*attribute.EmptySet()), board: r.board}
	if r.cfg.Name != "" {
		t.relay = metric.WithAttributeSet(attribute.NewSet(keyRelay.String(r.cfg.Name)))
	}
	t.record = []metric.RecordOption{t.relay}
	seconds := func(name, text string, buckets ...float64) metric.Float64Histogram {
		h, err := m.Float64Histogram(name, metric.WithUnit("s"), metric.WithDescription(text), metric.WithExplicitBucketBoundaries(buckets...))
		handle(err)
		return h
	}
	t.duration = seconds("backstay.outbox.publish.duration", "One call of the publisher", 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
	t.delay = seconds("backstay.outbox.enqueue_to_publish.duration", "From the enqueue, by the database's clock, to the broker's confirmation; the writer's own commit included",
		0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30, 60, 300, 3600)

	var watched []metric.Observable
	var tell []func(metric.Observer, *Stats)
	count := func(name, unit, text string, of func(*Stats) int64) {
		c, err := m.Int64ObservableCounter(name, metric.WithUnit(unit), metric.WithDescription(text))
		handle(err)
		watched = append(watched, c)
		tell = append(tell, func(o metric.Observer, s *Stats) { o.ObserveInt64(c, of(s), t.relay) })
	}
	gauge := func(name, unit, text string, of func(*Stats) float64) {
		g, err := m.Float64ObservableGauge(name, metric.WithUnit(unit), metric.WithDescription(text))
		handle(err)
		watched = append(watched, g)
		tell = append(tell, func(o metric.Observer, s *Stats) {
			if v := of(s); v >= 0 { // below zero is what the store cannot tell
				o.ObserveFloat64(g, v, t.relay)
			}
		})
	}
	count("backstay.outbox.published", "{message}", "Messages confirmed by the broker", func(s *Stats) int64 { return s.Published })
	count("backstay.outbox.failed", "{message}", "Publications of a message that were not confirmed", func(s *Stats) int64 { return s.Failed })
	count("backstay.outbox.parked", "{message}", "Messages moved to the dead letters", func(s *Stats) int64 { return s.Parked })
	count("backstay.outbox.expired", "{message}", "Messages dropped because their time had passed", func(s *Stats) int64 { return s.Expired })
	count("backstay.outbox.rescued", "{message}", "Messages of late commits, found by a sweep", func(s *Stats) int64 { return s.Rescued })
	count("backstay.outbox.duplicates", "{message}", "Messages published whose row another relay had deleted", func(s *Stats) int64 { return s.Duplicates })
	count("backstay.outbox.lease.lost", "{partition}", "Partitions lost without having been given back", func(s *Stats) int64 { return s.Lost })
	gauge("backstay.outbox.lease.owned", "{partition}", "Partitions owned by this relay", func(s *Stats) float64 { return float64(s.Owned) })
	gauge("backstay.outbox.keys.parked", "{key}", "Keys held back by dead letters, in the partitions owned", func(s *Stats) float64 { return float64(s.ParkedKeys) })
	gauge("backstay.outbox.oldest.age", "s", "Age of the oldest message that waits, in the relay's hands or in the table", oldest)
	table := func(of func(*Gauges) int64) func(*Stats) float64 {
		return func(s *Stats) float64 {
			if s.Gauges.At.IsZero() {
				return -1
			}
			return float64(of(&s.Gauges))
		}
	}
	gauge("backstay.outbox.waiting", "{message}", "Messages of the table that are due and not yet published", table(func(g *Gauges) int64 { return g.Waiting }))
	gauge("backstay.outbox.scheduled", "{message}", "Messages of the table that have still to come due", table(func(g *Gauges) int64 { return g.Scheduled }))
	gauge("backstay.outbox.dead", "{message}", "Dead letters in the table", table(func(g *Gauges) int64 { return g.Dead }))
	gauge("backstay.outbox.dead_tuples", "{row}", "Rows of messages deleted and not yet vacuumed, on PostgreSQL", table(func(g *Gauges) int64 { return g.DeadTuples }))
	var err error
	t.watch, err = m.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		s := r.Stats()
		for _, f := range tell {
			f(o, &s)
		}
		return nil
	}, watched...)
	handle(err)
	return t
}

// oldest is the age of the oldest message that waits: of those in memory as it is, of the table, whoever owns its partition, as the source last said.
func oldest(s *Stats) float64 { return max(s.Oldest, s.Gauges.Oldest).Seconds() }

// handle reports an error of the API, of which a name of ours would be the cause.
func handle(err error) {
	if err != nil {
		otel.Handle(err)
	}
}

func (t *instruments) close() {
	if t.watch != nil {
		_ = t.watch.Unregister()
	}
}

// published records one call of the publisher.
func (t *instruments) published(ctx context.Context, batch []*record, errs []error, took time.Duration) {
	if t.duration.Enabled(ctx) {
		t.duration.Record(ctx, took.Seconds(), t.record...)
	}
	if !t.delay.Enabled(ctx) {
		return
	}
	t.board.mu.Lock()
	now := t.board.clock.time(time.Now())
	t.board.mu.Unlock()
	for i, rec := range batch {
		if errs[i] == nil {
			t.delay.Record(ctx, max(now.Sub(rec.msg.Created), 0).Seconds(), t.record...)
		}
	}
}

// InboxMeter counts a consumer's messages, for authors of inboxes. Without an OpenTelemetry SDK it does nothing. Safe for concurrent use.
type InboxMeter struct {
	handled, duplicates metric.Int64Counter
	attrs               []metric.AddOption
}

// NewInboxMeter returns the meter of a consumer: one of few names, since it is a label.
func NewInboxMeter(consumer string) *InboxMeter {
	m := otel.Meter(scope)
	i := &InboxMeter{attrs: []metric.AddOption{metric.WithAttributeSet(attribute.NewSet(keyConsumer.String(consumer)))}}
	var err error
	i.handled, err = m.Int64Counter("backstay.inbox.handled", metric.WithUnit("{message}"), metric.WithDescription("Messages handled and committed"))
	handle(err)
	i.duplicates, err = m.Int64Counter("backstay.inbox.duplicates", metric.WithUnit("{message}"), metric.WithDescription("Messages that had been handled before"))
	handle(err)
	return i
}

// Handled counts a message whose effects are committed.
func (m *InboxMeter) Handled(ctx context.Context) { m.handled.Add(ctx, 1, m.attrs...) }

// Duplicate counts a message that had been handled before.
func (m *InboxMeter) Duplicate(ctx context.Context) { m.duplicates.Add(ctx, 1, m.attrs...) }

package saga

import (
	"context"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/backstay-go/backstay/telemetry"
)

const scope = "github.com/backstay-go/backstay/saga"

// Attributes. docs/telemetry.yaml says what each means. All but the id, which is on spans alone, have as many values as the definitions have names.
const (
	keyDefinition = attribute.Key("backstay.saga.definition")
	keyVersion    = attribute.Key("backstay.saga.version")
	keyID         = attribute.Key("backstay.saga.id")
	keyStep       = attribute.Key("backstay.saga.step")
	keyOp         = attribute.Key("backstay.saga.op")
	keyState      = attribute.Key("backstay.saga.state")
	keyOutcome    = attribute.Key("backstay.outcome")
	keyAttempt    = attribute.Key("backstay.attempt")
	keyErrorType  = attribute.Key("error.type")
)

// censusEvery is how often an engine counts what waits for a person, where a metrics SDK is installed: as often as most collect.
const censusEvery = time.Minute

// mostCounted is how far it counts: a page of List.
const mostCounted = 1000

// instruments is how an engine speaks through the global OpenTelemetry providers. Without an SDK all of it does nothing.
type instruments struct {
	tracer                      trace.Tracer
	ends, parks, lost, troubles metric.Int64Counter
	steps, duration             metric.Float64Histogram
	held                        metric.Int64ObservableUpDownCounter
	parked, unclaimable         metric.Int64ObservableGauge
	meter                       metric.Meter

	mu     sync.Mutex
	census []count // guarded by mu: as last counted
}

// count is how many instances are alike.
type count struct {
	in metric.Int64Observable
	of attribute.Set
	n  int64
}

func newInstruments() *instruments {
	m := otel.Meter(scope)
	i := &instruments{tracer: otel.Tracer(scope), meter: m}
	counter := func(name, unit, text string) metric.Int64Counter {
		c, err := m.Int64Counter(name, metric.WithUnit(unit), metric.WithDescription(text))
		handle(err)
		return c
	}
	i.ends = counter("backstay.saga.ends", "{saga}", "Sagas that have ended, by how")
	i.parks = counter("backstay.saga.parks", "{saga}", "Sagas that came to wait for an operator")
	i.lost = counter("backstay.saga.lease.lost", "{lease}", "Leases of this process that ran out or were taken away")
	i.troubles = counter("backstay.saga.store.retries", "{checkpoint}", "Checkpoints that the store would not take at once")
	var err error
	i.steps, err = m.Float64Histogram("backstay.saga.step.duration", metric.WithUnit("s"), metric.WithDescription("One attempt of a step's action or undo"),
		metric.WithExplicitBucketBoundaries(0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 30))
	handle(err)
	i.duration, err = m.Float64Histogram("backstay.saga.duration", metric.WithUnit("s"), metric.WithDescription("From start to end of a saga, by the store's clock"),
		metric.WithExplicitBucketBoundaries(0.01, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 900, 3600, 21600, 86400, 604800))
	handle(err)
	i.held, err = m.Int64ObservableUpDownCounter("backstay.saga.held", metric.WithUnit("{saga}"), metric.WithDescription("Sagas in this process's hands"))
	handle(err)
	i.parked, err = m.Int64ObservableGauge("backstay.saga.parked", metric.WithUnit("{saga}"), metric.WithDescription("Sagas of the store that wait for an operator, counted to 1,000"))
	handle(err)
	i.unclaimable, err = m.Int64ObservableGauge("backstay.saga.unclaimable", metric.WithUnit("{saga}"),
		metric.WithDescription("Live sagas of the store whose definition nobody here has registered, counted to 1,000"))
	handle(err)
	return i
}

// handle reports an error of the API, of which a name of ours would be the cause.
func handle(err error) {
	if err != nil {
		otel.Handle(err)
	}
}

// watch has the engine's gauges collected until stop is called.
func (e *Engine) watch() (stop func()) {
	i := e.tel
	reg, err := i.meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		e.mu.Lock()
		held := len(e.live)
		e.mu.Unlock()
		o.ObserveInt64(i.held, int64(held))
		i.mu.Lock()
		defer i.mu.Unlock()
		for _, c := range i.census {
			o.ObserveInt64(c.in, c.n, metric.WithAttributeSet(c.of))
		}
		return nil
	}, i.held, i.parked, i.unclaimable)
	handle(err)
	return func() {
		if err == nil {
			_ = reg.Unregister()
		}
	}
}

// censusLoop counts what waits for a person, every now and then, if anybody collects it.
func (e *Engine) censusLoop(ctx context.Context) {
	for first := true; ; first = false {
		if !first && !sleep(ctx, censusEvery) || ctx.Err() != nil {
			return
		}
		if e.tel.steps.Enabled(ctx) {
			call, cancel := context.WithTimeout(ctx, e.cfg.Lease)
			e.takeCensus(call)
			cancel()
		}
	}
}

func (e *Engine) takeCensus(ctx context.Context) {
	i := e.tel
	parked, err := e.List(ctx, Filter{States: []State{ParkedFwd, ParkedUndo}, Limit: mostCounted})
	if err != nil {
		return // the last one stands
	}
	f := e.Unclaimable()
	f.Limit = mostCounted
	strange, err := e.List(ctx, f)
	if err != nil {
		return
	}
	var all []count
	add := func(in metric.Int64Observable, attrs ...attribute.KeyValue) {
		of := attribute.NewSet(attrs...)
		for k := range all {
			if all[k].in == in && all[k].of.Equals(&of) {
				all[k].n++
				return
			}
		}
		all = append(all, count{in, of, 1})
	}
	for _, in := range parked {
		add(i.parked, keyDefinition.String(in.Ref.Def), keyState.String(string(in.State)))
	}
	for _, in := range strange {
		add(i.unclaimable, keyDefinition.String(in.Ref.Def), keyVersion.Int(in.Ref.Ver))
	}
	if len(parked) == 0 {
		all = append(all, count{i.parked, *attribute.EmptySet(), 0}) // none is a number too
	}
	if len(strange) == 0 {
		all = append(all, count{i.unclaimable, *attribute.EmptySet(), 0})
	}
	i.mu.Lock()
	i.census = all
	i.mu.Unlock()
}

// moved tells of a state that is committed.
func (i *instruments) moved(ctx context.Context, in *Instance, to State, now time.Time) {
	if !to.Terminal() && !to.Parked() || !i.ends.Enabled(ctx) {
		return
	}
	attrs := metric.WithAttributeSet(attribute.NewSet(keyDefinition.String(in.Ref.Def), keyState.String(string(to))))
	if to.Parked() {
		i.parks.Add(ctx, 1, attrs)
		return
	}
	i.ends.Add(ctx, 1, attrs)
	if !in.Created.IsZero() {
		i.duration.Record(ctx, max(now.Sub(in.Created), 0).Seconds(), attrs)
	}
}

// wanted reports whether attempts of c's step are of interest: somebody collects metrics, or the saga was started within a trace. Where neither is so,
// an attempt costs no more than this question.
func (i *instruments) wanted(ctx context.Context, c *Ctx) bool {
	return len(c.started) > 0 || i.steps.Enabled(ctx)
}

// step begins a span of one attempt and measures it. The span is the root of a trace of its own, linked to the start of the saga: that may be days ago, in
// another process.
func (i *instruments) step(ctx context.Context, c *Ctx) (context.Context, func(error)) {
	begin := time.Now()
	ctx, span := i.tracer.Start(ctx, "saga "+c.ref.Def+"/"+c.n.static, trace.WithNewRoot())
	if span.IsRecording() {
		span.SetAttributes(keyDefinition.String(c.ref.Def), keyVersion.Int(c.ref.Ver), keyID.String(c.id), keyStep.String(c.path),
			keyOp.String(string(c.op)), keyAttempt.Int(c.attempt))
		if from := c.origin(); from.IsValid() {
			span.AddLink(trace.Link{SpanContext: from})
		}
	}
	return ctx, func(err error) {
		outcome := "success"
		if err != nil {
			outcome = "failure"
		}
		if span.IsRecording() && err != nil {
			span.SetStatus(codes.Error, "")
			span.SetAttributes(keyErrorType.String(telemetry.ErrorType(err)))
		}
		span.End()
		if i.steps.Enabled(ctx) {
			i.steps.Record(ctx, time.Since(begin).Seconds(), metric.WithAttributeSet(attribute.NewSet(
				keyDefinition.String(c.ref.Def), keyStep.String(c.n.static), keyOp.String(string(c.op)), keyOutcome.String(outcome))))
		}
	}
}

// origin is where the saga was started.
func (c *Ctx) origin() trace.SpanContext {
	if len(c.started) == 0 {
		return trace.SpanContext{}
	}
	var text string
	if c.def.decode("trace context", c.started, &text) != nil {
		return trace.SpanContext{}
	}
	carrier := propagation.MapCarrier{}
	carrier["traceparent"], carrier["tracestate"], _ = strings.Cut(text, "\n")
	return trace.SpanContextFromContext(propagation.TraceContext{}.Extract(context.Background(), carrier))
}

// beginning is what a definition tells of its starts.
type beginning struct {
	starts metric.Int64Counter
	attrs  []metric.AddOption
}

func newBeginning(def string) beginning {
	c, err := otel.Meter(scope).Int64Counter("backstay.saga.starts", metric.WithUnit("{saga}"),
		metric.WithDescription("Sagas started; one whose transaction is rolled back has been counted all the same"))
	handle(err)
	return beginning{c, []metric.AddOption{metric.WithAttributeSet(attribute.NewSet(keyDefinition.String(def)))}}
}

// starting begins the span of a start, if the caller's records, and puts the trace context into the first entry, where every later owner finds it.
func (d *definition) starting(ctx context.Context, n *NewInstance) (context.Context, trace.Span) {
	span := trace.SpanFromContext(ctx)
	if !span.SpanContext().IsValid() {
		return ctx, nil
	}
	var own trace.Span
	if span.IsRecording() {
		ctx, own = span.TracerProvider().Tracer(scope).Start(ctx, "saga start "+n.Ref.Def, trace.WithSpanKind(trace.SpanKindProducer),
			trace.WithAttributes(keyDefinition.String(n.Ref.Def), keyVersion.Int(n.Ref.Ver)))
	}
	carrier := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, carrier)
	text := carrier["traceparent"]
	if state := carrier["tracestate"]; state != "" {
		text += "\n" + state
	}
	if data, err := d.encode("trace context", text); err == nil {
		n.Log[0].Data = data
	}
	return ctx, own
}

// begun tells how a start ended.
func (d *definition) begun(ctx context.Context, span trace.Span, got []Started, err error) {
	if span != nil {
		if len(got) == 1 {
			span.SetAttributes(keyID.String(got[0].ID))
		}
		if err != nil {
			span.SetStatus(codes.Error, "")
			span.SetAttributes(keyErrorType.String(telemetry.ErrorType(err)))
		}
		span.End()
	}
	if err == nil && len(got) == 1 && !got[0].Existing && d.begin.starts.Enabled(ctx) {
		d.begin.starts.Add(ctx, 1, d.begin.attrs...)
	}
}

package telemetry

import (
	"context"
	"errors"
	"net/http"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"weak"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/internal/tap"
)

// Calls says what the calls of a pipeline are, and by that what their names and keys are called.
type Calls uint8

const (
	Functions Calls = iota // of [backstay.Do]: names are backstay.call
	HTTP                   // of package httpclient: names that are methods are http.request.method
	RPC                    // of package grpcclient: names are rpc.method
)

// Config sets an [Observer] up. The zero Config works.
type Config struct {
	// Name tells clients of one process apart: it is the attribute backstay.client of all their measurements. Default: none.
	Name string `json:"name,omitempty"`
	// Keys is how many distinct keys (hosts, tenants) have labels of their own: the first to come. Those beyond are "_other". Default 256; range 1 to 4,096.
	Keys int `json:"keys,omitempty"`
	// Calls says what the names of calls are. Default: Functions.
	Calls Calls `json:"calls,omitempty"`
	// ErrorType names the error of a call or an attempt: few distinct values, no texts. "" leaves it to [ErrorType]. Nil: that.
	ErrorType func(error) string `json:"-"`
}

// Validate reports every field that is out of range.
func (c Config) Validate() error {
	var faults []error
	if c.Keys < 0 || c.Keys > maxSeries {
		faults = append(faults, errors.New("telemetry: Config.Keys must be between 1 and 4096, or 0 for the default"))
	}
	if c.Calls > RPC {
		faults = append(faults, errors.New("telemetry: Config.Calls must be Functions, HTTP or RPC"))
	}
	return errors.Join(faults...)
}

// Observer turns events into metrics, by the global meter provider. It is a [backstay.Observer] that wants no events where no SDK collects
// its metrics: then a call costs it one look at an instrument. Which instruments and attributes there are is in docs/telemetry.yaml. Who
// drops both backstay.call.duration and backstay.attempt.count by views of the SDK switches all of it off.
//
// All methods are safe for concurrent use.
type Observer struct {
	on    metric.Float64Histogram // asked first
	orOn  metric.Int64Counter     // asked when that one is not collected
	to    *instruments
	named func(error) string
	kind  Calls
	timeless
	collected atomic.Bool // metrics have been collected, so that what is pending will be

	// Sets of attributes, by what they are made of besides the call and the key.
	calls, attempts, reasons, transitions, winners, states, keyed, plain *book

	mu      sync.Mutex
	watched []backstay.Gauged // guarded by mu
}

// timeless is [tap.Timeless] by a name of this package's own, so that it is no part of what users see.
type timeless = tap.Timeless

// New returns an Observer. It panics with the error of Validate when the config is not valid. Its gauges are collected as long as somebody
// holds it.
func New(c Config) *Observer {
	if err := c.Validate(); err != nil {
		panic(err)
	}
	if c.Keys == 0 {
		c.Keys = defaultKeys
	}
	o := &Observer{to: newInstruments(), named: c.ErrorType, kind: c.Calls}
	o.on, o.orOn = o.to.duration, o.to.attempts
	set := &values{keys: c.Keys}
	book := func(first, second attribute.Key, calls bool) *book {
		return &book{client: c.Name, calls: c.Calls, shape: shape{first, second, calls}, set: set}
	}
	o.calls = book(keyOutcome, keyErrorType, true)
	o.attempts = book(keyAttemptKind, keyErrorType, true)
	o.reasons = book(keyReason, "", true)
	o.transitions = book(keyFrom, keyTo, false)
	o.winners = book(keyWinner, "", true)
	o.states = book(keyState, "", false)
	o.keyed = book("", "", false)
	o.plain = book("", "", true)
	o.register()
	return o
}

// Attach returns a pipeline with the same policies, sharing their state, whose calls and state are measured by an Observer of their own. A nil
// p is the empty pipeline. httpclient and grpcclient do so with theirs.
func Attach(p *backstay.Pipeline, c Config) *backstay.Pipeline {
	o := New(c)
	p = p.Observe(o)
	o.Watch(p)
	return p
}

// Watch has the gauges of g collected: a pipeline, a breaker, a keyed policy; and counts what g does outside of calls, if it can tell
// ([backstay.Watchable]): changes of a breaker by hand.
func (o *Observer) Watch(g backstay.Gauged) {
	o.mu.Lock()
	o.watched = append(o.watched, g)
	o.mu.Unlock()
	if w, ok := g.(backstay.Watchable); ok {
		runtime.AddCleanup(o, func(stop func()) { stop() }, w.Watch(&offCall{weak.Make(o)}))
	}
}

// offCall is an Observer to policies, which may outlive it.
type offCall struct{ to weak.Pointer[Observer] }

// Observe implements backstay.Observer.
func (w *offCall) Observe(ctx context.Context, e backstay.Event) {
	if o := w.to.Value(); o != nil {
		o.Observe(ctx, e)
	}
}

// register has the gauges collected until o is garbage: a client that is thrown away leaves nothing behind. What it has pending is counted
// even then.
func (o *Observer) register() {
	i, self, pending := o.to, weak.Make(o), o.attempts
	reg, err := i.meter.RegisterCallback(func(_ context.Context, to metric.Observer) error {
		if o := self.Value(); o != nil {
			o.collect(to)
		}
		pending.settle(i.attempts)
		return nil
	}, i.breakers, i.inUse, i.waiting, i.limit, i.tokens, i.quota)
	if err == nil {
		runtime.AddCleanup(o, func(reg metric.Registration) {
			pending.settle(i.attempts)
			_ = reg.Unregister()
		}, reg)
	}
}

// collect tells the gauges of all that is watched. Numbers with the same attributes add up.
func (o *Observer) collect(to metric.Observer) {
	o.collected.Store(true)
	o.mu.Lock()
	watched := o.watched
	o.mu.Unlock()
	type place struct {
		in metric.Float64Observable
		at *series
	}
	sums := map[place]float64{}
	for _, g := range watched {
		g.Gauges(func(n backstay.Gauge) {
			l := labels{key: n.Key, policy: n.Policy, name: n.Name}
			in := o.to.gauge(n)
			switch n.Kind {
			case backstay.GaugeState:
				l.policy, l.first = "", n.State
				sums[place{in, o.states.of(&l)}] += n.Value
				return
			case backstay.GaugeTokens:
				l.policy = ""
			}
			if in != nil {
				sums[place{in, o.keyed.of(&l)}] += n.Value
			}
		})
	}
	for p, v := range sums {
		to.ObserveFloat64(p.in, v, p.at.attrs)
	}
}

// gauge returns the instrument of a number; nil: none.
func (i *instruments) gauge(n backstay.Gauge) metric.Float64Observable {
	switch n.Kind {
	case backstay.GaugeState:
		return i.breakers
	case backstay.GaugeInUse:
		return i.inUse
	case backstay.GaugeWaiting:
		return i.waiting
	case backstay.GaugeLimit:
		return i.limit
	case backstay.GaugeTokens:
		if n.Policy == "budget" {
			return i.tokens
		}
		return i.quota
	}
	return nil
}

// Enabled implements [backstay.Enabler].
func (o *Observer) Enabled(ctx context.Context) bool { return o.on.Enabled(ctx) || o.orOn.Enabled(ctx) }

// Observe implements [backstay.Observer].
func (o *Observer) Observe(ctx context.Context, e backstay.Event) { o.observe(ctx, &e) }

func (o *Observer) observe(ctx context.Context, e *backstay.Event) {
	if !o.Enabled(ctx) {
		return
	}
	switch e.Kind {
	case backstay.EventCall:
		o.call(ctx, e)
	case backstay.EventAttempt:
		o.attempt(ctx, e)
	default:
		o.other(ctx, e)
	}
}

// call measures a call. The context of a measurement is where the SDK has the example of a trace from, which costs as much as the measurement: one is enough for a call that
// took one attempt.
func (o *Observer) call(ctx context.Context, e *backstay.Event) {
	l := labels{call: e.Call, key: e.Key, first: outcome(e), second: o.errorType(e)}
	s := o.calls.of(&l)
	o.to.duration.Record(ctx, e.Elapsed.Seconds(), s.record...)
	if e.Attempt <= 1 {
		ctx = context.Background()
	}
	o.to.perCall.Record(ctx, int64(e.Attempt), s.record...)
}

// attempt counts an attempt. The trace of a first one that went well is that of its call: it can wait to be added with others when metrics are collected, which costs
// a tenth. It does not wait before the first collection, and so never where views drop all gauges: nobody would come for it.
func (o *Observer) attempt(ctx context.Context, e *backstay.Event) {
	l := labels{call: e.Call, key: e.Key, first: e.Reason, second: o.errorType(e)}
	s := o.attempts.of(&l)
	if e.Attempt <= 1 && e.Err == nil {
		if s.kept && o.collected.Load() {
			s.pending.Add(1)
			return
		}
		ctx = context.Background()
	}
	o.to.attempts.Add(ctx, 1, s.add...)
}

// other measures what does not happen in each call.
func (o *Observer) other(ctx context.Context, e *backstay.Event) {
	i := o.to
	l := labels{call: e.Call, key: e.Key}
	of := labels{call: e.Call, key: e.Key, policy: e.Policy, name: e.Name, first: e.Reason}
	switch e.Kind {
	case backstay.EventRetry:
		l.first = e.Reason
		i.delay.Record(ctx, e.Wait.Seconds(), o.reasons.of(&l).record...)
	case backstay.EventStop:
		i.stops.Add(ctx, 1, o.reasons.of(&of).add...)
	case backstay.EventReject:
		i.rejections.Add(ctx, 1, o.reasons.of(&of).add...)
	case backstay.EventShadow:
		i.shadow.Add(ctx, 1, o.reasons.of(&of).add...)
	case backstay.EventState:
		i.states.Add(ctx, 1, o.transitions.of(&labels{key: e.Key, name: e.Name, first: e.From, second: e.To}).add...)
	case backstay.EventStale:
		i.stale.Add(ctx, 1, o.keyed.of(&labels{key: e.Key, name: e.Name}).add...)
	case backstay.EventWait:
		i.wait.Record(ctx, e.Elapsed.Seconds(), o.keyed.of(&labels{key: e.Key, policy: e.Policy, name: e.Name}).record...)
	case backstay.EventTimeout:
		of.policy, of.first = "", ""
		i.timeouts.Add(ctx, 1, o.plain.of(&of).add...)
	case backstay.EventAbandon:
		n := int64(1)
		if e.Reason == "ended" {
			n = -1
		}
		l.name = e.Name
		i.abandoned.Add(ctx, n, o.plain.of(&l).add...)
	case backstay.EventHedge:
		i.hedges.Add(ctx, 1, o.plain.of(&l).add...)
	case backstay.EventWin:
		l.first = e.Reason
		i.wins.Add(ctx, 1, o.winners.of(&l).add...)
	case backstay.EventFallback:
		l.name = e.Name
		i.fallbacks.Add(ctx, 1, o.plain.of(&l).add...)
	case backstay.EventEvict:
		i.evicted.Add(ctx, 1, o.keyed.of(&labels{}).add...)
	case backstay.EventUnkeyed:
		i.unkeyed.Add(ctx, 1, o.plain.of(&labels{call: e.Call}).add...)
	case backstay.EventChaos:
		i.faults.Add(ctx, 1, o.reasons.of(&of).add...)
	}
}

// outcome says how a call ended.
func outcome(e *backstay.Event) string {
	switch {
	case e.Class == backstay.Success:
		return "success"
	case e.Class == backstay.Failure:
		return "failure"
	case errors.Is(e.Err, backstay.ErrRejected):
		return "rejected"
	case errors.Is(e.Err, context.Canceled), errors.Is(e.Err, context.DeadlineExceeded):
		return "cancelled"
	}
	return "neutral"
}

// errorType names what went wrong for the caller. By the semantic conventions that is also an answer of HTTP's 400 and above of which policies say that
// the dependency works: the span and the metrics of a call agree.
func (o *Observer) errorType(e *backstay.Event) string {
	if e.Err == nil {
		if e.Status >= http.StatusBadRequest && o.kind == HTTP {
			return strconv.Itoa(int(e.Status))
		}
		return ""
	}
	if o.named != nil {
		if name := o.named(e.Err); name != "" {
			return name
		}
	}
	return ErrorType(e.Err)
}

package breaker

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/internal/window"
)

// ErrOpen matches, by errors.Is, every refusal by a breaker. The call was not made and had no effect; it is safe to make it again,
// best after the RetryAfter of the [backstay.Rejected] that ErrOpen comes in.
var ErrOpen = errors.New("circuit breaker is open")

// Breaker is a circuit breaker, and a [backstay.Policy]. One value may stand in many pipelines and is then one state. It starts no
// goroutine and no timer: an open breaker whose period is over says [Due], and moves when the next call comes.
//
// All methods are safe for concurrent use. A nil Breaker lets every call through.
type Breaker struct {
	broke func(error)            // b.onBreak, made once
	base  time.Time              // times are durations since here: cheaper to read than a time.Time, and half its size
	rules atomic.Pointer[Config] // with defaults filled in; never changed in place
	gate  atomic.Uint64          // a gate; written with mu held
	until atomic.Int64           // when the open period, or the ramp, is over; written with mu held

	watchers backstay.Watchers // told of changes that no observed call makes

	held     atomic.Int32  // permits of Acquire that have not reported
	rejected atomic.Uint64 // calls refused; in Shadow, that would have been
	stale    atomic.Uint64 // results dropped since they came from an earlier state

	mu      sync.Mutex
	epoch   uint64        // goes up with every change of state; so does what a permit is for. Guarded by mu, as all below
	state   State         // never Due
	mode    Mode          //
	ramping bool          // closed a short while ago
	ask     bool          // an OpenFunc is to be asked for the length of this period
	since   time.Duration // when the state was entered
	machine *machine      // nil: closed, and not yet needed
	window  counter       //
	streak  streak        //
	opens   int           // how often it has opened since it was last closed
	round   round         // what the probes of this half-open period have shown
	ramp    ramp          //
	outbox  outbox        // changes of state that observers are yet to be told of
}

// counter is a window of endings.
type counter interface {
	Add(now time.Duration, failed, slow bool) window.Counts
	Counts(now time.Duration) window.Counts
	Reset()
}

// streak is the failures since the last success.
type streak struct {
	n     int
	start time.Duration // when the first of them came
}

// New returns a breaker. It panics with the error of [Config.Validate] when the config is not valid.
func New(c Config) *Breaker {
	if err := c.Validate(); err != nil {
		panic(err)
	}
	c = c.filled()
	b := &Breaker{base: time.Now(), mode: c.Mode, window: newWindow(&c)}
	b.broke = b.onBreak
	b.rules.Store(&c)
	b.publish()
	return b
}

func newWindow(c *Config) counter {
	if c.Count > 0 {
		return window.NewLast(c.Count)
	}
	return window.NewTime(c.Window)
}

func (b *Breaker) now() time.Duration { return time.Since(b.base) }

// Wrap implements [backstay.Policy].
func (b *Breaker) Wrap(next backstay.Handler) backstay.Handler {
	if b == nil {
		return next
	}
	return func(ctx context.Context, call *backstay.Call) backstay.Outcome { return b.Around(ctx, call, next) }
}

// Around implements [backstay.Around]. A panic of next, and runtime.Goexit, count as a failure and pass on unchanged. The ending
// is counted when next returns, also when its value outlives it; a value that turns out broken later (backstay.Breakable) is one more failure.
func (b *Breaker) Around(ctx context.Context, call *backstay.Call, next backstay.Handler) backstay.Outcome {
	if b == nil {
		return next(ctx, call)
	}
	t, refused := b.admit(ctx, call)
	if refused != nil {
		return backstay.Reject(refused)
	}
	returned := false
	defer func() {
		if !returned {
			b.settle(ctx, call, t, b.now(), backstay.Failure, errGone)
		}
	}()
	out := next(ctx, call)
	returned = true
	if p, ok := out.Held.(backstay.Pending); ok {
		p.Then(backstay.EnderFunc(func(out backstay.Outcome) backstay.Outcome { return b.returned(ctx, call, t, out) }))
		return out
	}
	return b.returned(ctx, call, t, out)
}

// returned counts how a call has ended.
func (b *Breaker) returned(ctx context.Context, call *backstay.Call, t ticket, out backstay.Outcome) backstay.Outcome {
	now, class := b.now(), out.Class
	if class != backstay.Success { // which no judge overrules
		class = out.Judge(ctx, now-t.start, b.rules.Load().SlowCall)
	}
	b.settle(ctx, call, t, now, class, out.Err)
	if later, ok := out.Held.(backstay.Breakable); ok && class == backstay.Success && t.kind != free {
		later.OnBreak(b.broke)
	}
	return out
}

// onBreak counts a value that broke after its call had ended well: a body that stalled. That is one more ending, since which state the call
// belonged to no longer matters.
func (b *Breaker) onBreak(error) { b.Record(backstay.Failure) }

// errGone is why the breaker opened when a call did not return.
var errGone = errors.New("breaker: the call panicked or ended its goroutine")

// ticket is the right to make one call, and the duty to say how it ended.
type ticket struct {
	kind  kind
	epoch uint64
	start time.Duration
	probe *probe // for probing
}

type kind uint8

const (
	free    kind = iota // how it ends does not matter
	counted             // into the window
	ramped              // into the window; was in flight during a ramp
	probing             // a probe
)

// gate is what the next call meets, in one word, so that a call through a closed breaker takes no lock to get in: two bits of State, three of
// Mode, one of ramp, and from the ninth on the epoch. All of the first eight are zero when a call may just pass and be counted.
type gate uint64

func (b *Breaker) publish() {
	g := b.epoch<<8 | uint64(b.mode)<<2 | uint64(b.state)
	if b.ramping {
		g |= 1 << 5
	}
	b.gate.Store(g)
}

func (g gate) plain() bool   { return g&0xff == 0 }
func (g gate) state() State  { return State(g & 3) }
func (g gate) mode() Mode    { return Mode(g >> 2 & 7) }
func (g gate) epoch() uint64 { return uint64(g >> 8) }

// admit decides about a call that wants to be made now.
func (b *Breaker) admit(ctx context.Context, call *backstay.Call) (ticket, *backstay.Rejected) {
	g, now := gate(b.gate.Load()), b.now()
	if g.plain() {
		return ticket{kind: counted, epoch: g.epoch(), start: now}, nil
	}
	var t ticket
	var no refusal
	switch g.mode() {
	case Disabled:
		return t, nil
	case ForcedClosed:
		return ticket{kind: counted, epoch: g.epoch(), start: now}, nil
	case ForcedOpen:
		no = refusal{"forced open", 0}
	default:
		if left := time.Duration(b.until.Load()) - now; g.state() == Open && left > 0 {
			no = refusal{"open", left} // the flood that an open breaker is for takes no lock
			break
		}
		b.mu.Lock()
		t, no = b.judge(now, call)
		b.unlock(ctx)
	}
	if no.reason == "" {
		return t, nil
	}
	return b.refuse(ctx, call, g.mode(), no)
}

// refusal says why a call is not let through; without a reason, it is.
type refusal struct {
	reason string
	after  time.Duration
}

// refuse makes a rejection of no, or in shadow mode an event.
func (b *Breaker) refuse(ctx context.Context, call *backstay.Call, mode Mode, no refusal) (ticket, *backstay.Rejected) {
	b.rejected.Add(1)
	if mode == Shadow {
		b.emit(ctx, call, backstay.Event{Kind: backstay.EventShadow, Reason: no.reason, Wait: no.after})
		return ticket{}, nil
	}
	r := &backstay.Rejected{Policy: kindName, Name: b.rules.Load().Name, Reason: no.reason, RetryAfter: no.after, Err: ErrOpen}
	b.emit(ctx, call, backstay.Event{Kind: backstay.EventReject, Reason: no.reason, Wait: no.after, Class: backstay.Neutral, Err: r})
	return ticket{}, r
}

// judge decides by the state, and moves it on when its time is over. Called with mu held.
func (b *Breaker) judge(now time.Duration, call *backstay.Call) (ticket, refusal) {
	if b.state == HalfOpen {
		b.endRound(now, call)
	}
	switch b.state {
	case Open:
		if left := time.Duration(b.until.Load()) - now; left > 0 {
			return ticket{}, refusal{"open", left}
		}
		return b.firstProbe(now, call)
	case HalfOpen:
		return b.nextProbe(now)
	default:
		return b.rampUp(now)
	}
}

// settle files how the call of t ended. err is told to observers.
func (b *Breaker) settle(ctx context.Context, call *backstay.Call, t ticket, now time.Duration, class backstay.Class, err error) {
	if t.kind == free || t.kind == counted && class != backstay.Success && class != backstay.Failure {
		return
	}
	r := b.rules.Load()
	slow := r.SlowCall > 0 && now-t.start >= r.SlowCall
	current := true
	b.mu.Lock()
	switch {
	case t.epoch != b.epoch:
		current = false
	case t.kind == probing:
		current = b.probed(now, t.probe, class, slow, cause{call: call, err: err})
	default:
		if t.kind == ramped {
			b.ramp.flight--
		}
		b.count(now, class, slow, cause{call: call, err: err})
	}
	b.unlock(ctx)
	if !current {
		b.stale.Add(1)
		b.emit(ctx, call, backstay.Event{Kind: backstay.EventStale, Class: class})
	}
}

// count files an ending of a closed breaker, and opens it when a rule says so. Called with mu held.
//
// The rates are looked at when a call fails or is slow, and when one fills the minimum. Not at other successes: a rate that rises only because old
// successes leave the window says nothing new.
func (b *Breaker) count(now time.Duration, class backstay.Class, slow bool, why cause) {
	failed := class == backstay.Failure
	if !failed && class != backstay.Success {
		return
	}
	sum := b.window.Add(now, failed, slow)
	if !failed {
		b.streak.n = 0
	} else if b.streak.n++; b.streak.n == 1 {
		b.streak.start = now
	}
	r := b.rules.Load()
	if !failed && !slow && sum.Total != r.MinCalls || b.mode == ForcedClosed {
		return
	}
	switch full := sum.Total >= r.MinCalls; {
	case failed && r.Consecutive > 0 && b.streak.n >= r.Consecutive && now-b.streak.start >= r.Spread:
		why.reason = "failures in a row"
	case full && r.FailureRate > 0 && sum.FailureRate() >= r.FailureRate:
		why.reason = "failure rate"
	case full && r.SlowRate > 0 && sum.SlowRate() >= r.SlowRate:
		why.reason = "slow calls"
	default:
		return
	}
	b.trip(now, why)
}

// Record counts an ending for which there is no permit: a response body that stalled after its call had been counted, a message that
// turned out bad. Success and Failure go into the window of a closed breaker and may open it; in any other state they are dropped and
// counted as stale. Other classes do nothing.
func (b *Breaker) Record(class backstay.Class) {
	if b == nil {
		return
	}
	g := gate(b.gate.Load())
	if g.mode() == Disabled || class != backstay.Success && class != backstay.Failure {
		return
	}
	now := b.now()
	t := ticket{kind: counted, epoch: g.epoch(), start: now}
	if g.state() != Closed || g.mode() == ForcedOpen {
		t.epoch-- // of no state that can still be current
	}
	b.settle(context.Background(), nil, t, now, class, nil)
}

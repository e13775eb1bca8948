// Package hedge starts a further attempt beside one that takes long, and uses the answer that comes first.
//
// It is for the slow few of many calls: a call that waits for the unlucky replica, a pause of a garbage collector, a lost packet. It
// is no help when the whole dependency is slow: then it adds load where there is too much, and so it works within a budget.
//
//   - Only calls that may be repeated are hedged: [backstay.Idempotent], or what the adapter knows (HTTP GET). Attempts run at the
//     same time, each with a context and an outcome of its own; the function must not write to what they share.
//     [backstay.CallFrom](ctx).Attempt() tells it which attempt it makes, for instance to pick another replica.
//   - The first good answer wins: a success, or an error that says that the call must not be repeated. A failure does not end the
//     call while another attempt runs. When all fail, the outcome is the first attempt's, with the errors of all, its own first.
//   - Losers are cancelled and their values let go. The caller never waits for one: a loser that ignores its context runs on in its
//     goroutine, which ends when it does.
//   - A failure before the delay is over ends the call as it would without a hedge: repeating is the retry's work.
//   - When the caller's context ends, the attempts are told and the call returns when they do, as without a hedge.
//   - A panic of an attempt reaches the caller as it is, and so does runtime.Goexit. A loser's panic is reported as an event and goes nowhere.
//
// Defaults: one further attempt after the 95th percentile of the last minute or two, once 100 calls were seen; a budget of 10 % of the calls.
//
//	Events: EventHedge when a further attempt starts, EventWin when a hedged call ends well, EventStop when the budget
//	        refuses one, EventAbandon when a loser panicked.
//	Order:  inside the retry, so that a round of the retry is one hedged call; outside limits and the breaker, so that each attempt counts.
//
// When not to use it: against a single server whose slowness is its load; for calls whose cost is the work, not the wait.
package hedge

import (
	"context"
	"fmt"
	"math"
	"sync/atomic"
	"time"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/budget"
	"github.com/backstay-go/backstay/internal/histogram"
)

// Hedge is a policy that starts further attempts beside slow ones. All methods are safe for concurrent use.
type Hedge struct {
	config Config // with defaults; immutable
	origin time.Time
	own    *budget.Budget      // nil: a budget was given
	times  *histogram.Rotating // how long first attempts took; nil: the delay does not depend on it

	known  atomic.Int64 // the delay by times as of the last look; never: too few samples
	lookAt atomic.Int64 // when to look again, since origin

	calls, hedges, wins, denied atomic.Int64
}

// never is a delay that does not pass.
const never = math.MaxInt64

// look is how long a quantile is used before it is computed again.
const look = 100 * time.Millisecond

// New returns a hedge. It panics when the config is not valid.
func New(c Config) *Hedge {
	if err := c.Validate(); err != nil {
		panic(err)
	}
	h := &Hedge{config: c.withDefaults(), origin: time.Now()}
	if c.Budget == nil && c.BudgetFor == nil {
		h.own = budget.New(budget.Config{})
		h.config.Budget = h.own
	}
	if h.config.Quantile > 0 {
		h.times = histogram.New(h.config.Window)
	}
	h.known.Store(never)
	return h
}

// Wrap implements backstay.Policy. A nil Hedge wraps to next itself.
func (h *Hedge) Wrap(next backstay.Handler) backstay.Handler {
	if h == nil {
		return next
	}
	return func(ctx context.Context, call *backstay.Call) backstay.Outcome { return h.Around(ctx, call, next) }
}

// Around implements backstay.Around.
func (h *Hedge) Around(ctx context.Context, call *backstay.Call, next backstay.Handler) backstay.Outcome {
	if h == nil || !(call.Repeat() == backstay.Yes || h.config.Unsafe && call.Repeat() == backstay.Unsaid) {
		return next(ctx, call)
	}
	h.calls.Add(1)
	h.own.Deposit()
	start := time.Since(h.origin)
	delay := h.delay(ctx, call, start)
	hopeless := delay == never
	if at, ok := ctx.Deadline(); ok && !hopeless {
		hopeless = time.Until(at) <= delay
	}
	if hopeless { // no further attempt can come, so none needs a goroutine
		out := next(ctx, call)
		if out.Class == backstay.Success {
			h.record(start, time.Since(h.origin))
		}
		return out
	}
	r := &race{hedge: h, ctx: ctx, call: call, next: next, start: start, endings: make(chan ending, 1+h.config.Extra)}
	return r.run(delay)
}

// delay returns how long to wait before a further attempt.
func (h *Hedge) delay(ctx context.Context, call *backstay.Call, now time.Duration) time.Duration {
	switch {
	case h.config.DelayFor != nil:
		return max(0, h.config.DelayFor(ctx, call))
	case h.times == nil:
		return max(0, h.config.Delay)
	}
	if at := h.lookAt.Load(); int64(now) >= at && h.lookAt.CompareAndSwap(at, int64(now+look)) {
		d, n := h.times.Quantile(now, h.config.Quantile)
		switch {
		case n >= h.config.MinSamples:
			h.known.Store(int64(max(d, h.config.MinDelay)))
		default:
			h.known.Store(never)
		}
	}
	if d := h.known.Load(); d != never {
		return time.Duration(d)
	}
	if h.config.Delay != 0 {
		return max(0, h.config.Delay)
	}
	return never
}

// record counts a first attempt that ran from start to now. One that lost counts with the time that it had when it was cancelled: it
// would have taken longer. Leaving it out would lower the quantile with each hedge, and so make for more of them.
func (h *Hedge) record(start, now time.Duration) {
	if h.times != nil {
		h.times.Record(now, now-start)
	}
}

// withdraw takes a token for a further attempt.
func (h *Hedge) withdraw(call *backstay.Call) bool {
	if h.config.BudgetFor != nil {
		return h.config.BudgetFor(call.Key()).Withdraw()
	}
	return h.config.Budget.Withdraw()
}

// Snapshot is what a hedge looks like at one moment.
type Snapshot struct {
	Delay  time.Duration // after which a further attempt would start now; negative: none would, too few calls were seen. With DelayFor 0
	Calls  int64         // calls so far that might have been hedged
	Hedges int64         // further attempts started so far
	Wins   int64         // of them, how many gave the answer
	Denied int64         // further attempts that the budget refused so far
}

// Snapshot returns the numbers of now.
func (h *Hedge) Snapshot() Snapshot {
	s := Snapshot{Calls: h.calls.Load(), Hedges: h.hedges.Load(), Wins: h.wins.Load(), Denied: h.denied.Load()}
	if h.config.DelayFor == nil {
		if s.Delay = h.delay(context.Background(), nil, time.Since(h.origin)); s.Delay == never {
			s.Delay = -1
		}
	}
	return s
}

// Describe implements backstay.Describer.
func (h *Hedge) Describe() backstay.Description {
	d := backstay.Description{Kind: "hedge", Name: h.config.Name, Attempts: 1 + h.config.Extra, Unsafe: h.config.Unsafe}
	switch {
	case h.config.DelayFor != nil:
		d.Detail = fmt.Sprintf("%d more, delay per call", h.config.Extra)
	case h.config.Quantile > 0:
		d.Detail = fmt.Sprintf("%d more after quantile %v", h.config.Extra, h.config.Quantile)
	default:
		d.Detail = fmt.Sprintf("%d more after %v", h.config.Extra, max(0, h.config.Delay))
	}
	return d
}

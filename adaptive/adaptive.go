// Package adaptive bounds how many calls run at the same time by a limit that finds itself, and throttles callers of a dependency that turns them away.
//
// A [Limit] watches how long calls take. While the response time stays near its baseline the limit grows with demand; when calls begin to queue in the
// dependency, or time out, it shrinks. So a stalled dependency is not handed more work than it can do, and recovers as soon
// as its fault is over, where a fixed bulkhead is either too wide to help or too narrow to use. See docs/decisions/006 for the algorithm and
// its sources.
//
// What a call counts as:
//
//	success                                    a sample of the response time
//	timeout (Failure that is a timeout), Shed  a drop: never raises the limit; enough of them cut it by half
//	cancelled, refused by a policy, Neutral    nothing
//	any other failure                          nothing: failing fast says little about how much fits
//
// A permit is held until the function returns, or until the value is let go when the value outlives the call (an HTTP body, rows).
//
//	Defaults: 2 to 1,000 at once, from 20.
//	Events:   EventReject, EventShadow, EventLimit when the limit changes.
//	Order:    inside the retry, so that a sleeping call holds no permit; outside the breaker; one per host ([backstay.Keyed]).
//
// When not to use it: around work whose duration is chosen by the caller (long polls, streams of any length, bulk jobs beside lookups): there a response
// time says nothing about load, and a bulkhead serves better.
package adaptive

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/backstay-go/backstay"
)

// ErrLimited matches the refusals of a Limit: as many calls as it allows are in flight. The call was not made.
var ErrLimited = errors.New("adaptive limit reached")

// Limit is a policy that bounds concurrency by what the dependency can take. All methods are safe for concurrent use.
type Limit struct {
	config  Config // with defaults; immutable
	origin  time.Time
	release func() // gives a permit back; made once

	limit    atomic.Int64 // of g, for acquire
	inFlight atomic.Int64
	peak     atomic.Int64 // most in flight since the last look

	// Samples since the last look, in one word so that count and sum agree: count<<40 | sum of log2. A window with 2²⁴ samples or
	// a sum of 2⁴⁰ is out of reach: look is due at a fraction of that.
	samples atomic.Uint64
	next    atomic.Int64 // when the next look is due, since origin

	rejected atomic.Int64
	drops    atomic.Int64

	mu sync.Mutex
	g  gradient // guarded by mu
}

// many is how many samples make a look due before its time.
const many = 1 << 20

// New returns an adaptive limit. It panics when the config is not valid.
func New(c Config) *Limit {
	if err := c.Validate(); err != nil {
		panic(err)
	}
	c = c.withDefaults()
	l := &Limit{config: c, origin: time.Now()}
	l.release = func() { l.inFlight.Add(-1) }
	l.g = gradient{
		min: float64(c.Min), max: float64(c.Max), tolerance: float64(log2(time.Duration(c.Tolerance*1024)))/1024 - 10,
		least: float64(c.Headroom), window: c.Window, refresh: c.Baseline, dropRate: c.DropRate, limit: float64(c.Initial), start: true,
		phase: time.Duration(l.origin.UnixNano()),
	}
	l.limit.Store(int64(l.g.current()))
	l.next.Store(int64(c.Window))
	return l
}

// Wrap implements backstay.Policy. A nil Limit wraps to next itself.
func (l *Limit) Wrap(next backstay.Handler) backstay.Handler {
	if l == nil {
		return next
	}
	return func(ctx context.Context, call *backstay.Call) backstay.Outcome { return l.Around(ctx, call, next) }
}

// Around implements backstay.Around.
func (l *Limit) Around(ctx context.Context, call *backstay.Call, next backstay.Handler) backstay.Outcome {
	if over(ctx) {
		return backstay.Ended(ctx) // dead on arrival takes no permit
	}
	share := 1.0
	if l.config.Share != nil {
		share = l.config.Share(ctx, call)
	}
	over, ok := l.acquire(share)
	if !ok {
		return backstay.Reject(l.refused(ctx, call))
	}
	if over {
		call.Emit(ctx, l.config.Observer, backstay.Event{Kind: backstay.EventShadow, Policy: "adaptive", Name: l.config.Name, Reason: "limit reached"})
	}
	kept := false
	defer func() { // also on panic and Goexit, which say nothing about load
		if !kept {
			l.inFlight.Add(-1)
		}
	}()
	start := time.Since(l.origin)
	out := next(ctx, call)
	kept = true
	if p, ok := out.Held.(backstay.Pending); ok {
		p.Then(backstay.EnderFunc(func(out backstay.Outcome) backstay.Outcome { return l.returned(ctx, call, start, out) }))
		return out
	}
	return l.returned(ctx, call, start, out)
}

// returned takes in how a call has ended, and gives its permit back or leaves it to what its outcome holds.
func (l *Limit) returned(ctx context.Context, call *backstay.Call, start time.Duration, out backstay.Outcome) backstay.Outcome {
	kept := false
	defer func() {
		if !kept {
			l.inFlight.Add(-1)
		}
	}()
	l.settle(ctx, call, out, start, time.Since(l.origin))
	if out.Held != nil && !l.config.UntilReturn {
		kept = true
		out.Held.OnRelease(l.release)
	}
	return out
}

// over is ctx.Err() != nil, without a look at the clock for a limit of ours that was set a moment ago.
func over(ctx context.Context) bool {
	if c, ok := ctx.(interface{ Over() bool }); ok {
		return c.Over()
	}
	return ctx.Err() != nil
}

// acquire takes a permit if one is free for a call of this share. over: there was none, but the limit only watches.
func (l *Limit) acquire(share float64) (over, ok bool) {
	limit := l.limit.Load()
	if share < 1 {
		limit = max(1, int64(float64(limit)*max(share, 0)))
	}
	for {
		n := l.inFlight.Load()
		over = n >= limit
		if over && !l.config.Shadow {
			l.rejected.Add(1)
			return true, false
		}
		if l.inFlight.CompareAndSwap(n, n+1) {
			for peak := l.peak.Load(); n+1 > peak && !l.peak.CompareAndSwap(peak, n+1); peak = l.peak.Load() {
			}
			return over, true
		}
	}
}

func (l *Limit) refused(ctx context.Context, call *backstay.Call) *backstay.Rejected {
	r := &backstay.Rejected{Policy: "adaptive", Name: l.config.Name, Reason: "limit reached", Err: ErrLimited}
	if call != nil {
		call.Emit(ctx, l.config.Observer, backstay.Event{Kind: backstay.EventReject, Policy: "adaptive", Name: l.config.Name, Reason: r.Reason, Err: r})
	}
	return r
}

// settle takes in how a call ended that ran from start to now.
func (l *Limit) settle(ctx context.Context, call *backstay.Call, out backstay.Outcome, start, now time.Duration) {
	if out.Class != backstay.Success || out.Shed || out.Err != nil {
		if l.dropped(ctx, out, now-start) {
			l.drop(ctx, call, start, now)
			return
		}
		if out.Judge(ctx, now-start, 0) != backstay.Success {
			return
		}
	}
	acc := l.samples.Add(1<<40 | log2(now-start))
	if int64(now) >= l.next.Load() || acc>>40 >= many {
		l.look(ctx, call, now)
	}
}

// dropped reports whether an ending shows an overload.
func (l *Limit) dropped(ctx context.Context, out backstay.Outcome, ran time.Duration) bool {
	if out.Shed {
		return true
	}
	if out.Err == nil || out.Judge(ctx, ran, l.config.SlowCall) != backstay.Failure {
		return false
	}
	timeout, ok := errors.AsType[interface {
		error
		Timeout() bool
	}](out.Err)
	return errors.Is(out.Err, context.DeadlineExceeded) || ok && timeout.Timeout()
}

func (l *Limit) drop(ctx context.Context, call *backstay.Call, start, now time.Duration) {
	l.drops.Add(1)
	l.mu.Lock()
	before := l.g.current()
	l.g.drop(now, start, int(l.peak.Load()), int(l.samples.Load()>>40))
	after := l.publish()
	l.mu.Unlock()
	if before != after {
		l.changed(ctx, call, before, after, "drop")
	}
}

// look lets the algorithm see the samples since the last time. One goroutine does; others that come meanwhile go on.
func (l *Limit) look(ctx context.Context, call *backstay.Call, now time.Duration) {
	if !l.mu.TryLock() {
		return
	}
	if int64(now) < l.next.Load() && l.samples.Load()>>40 < many {
		l.mu.Unlock() // another one was quicker
		return
	}
	acc := l.samples.Swap(0)
	n, sum := acc>>40, acc&(1<<40-1)
	peak := l.peak.Swap(l.inFlight.Load())
	before := l.g.current()
	if n > 0 {
		l.next.Store(int64(l.g.look(now, int(n), float64(sum)/float64(n)/1024, int(peak))))
	}
	after := l.publish()
	l.mu.Unlock()
	if before != after {
		l.changed(ctx, call, before, after, "response time")
	}
}

// publish lets acquire see the limit. Called with mu held.
func (l *Limit) publish() int {
	n := l.g.current()
	l.limit.Store(int64(n))
	return n
}

func (l *Limit) changed(ctx context.Context, call *backstay.Call, from, to int, why string) {
	if call == nil || call.Observer() == nil && l.config.Observer == nil {
		return
	}
	call.Emit(ctx, l.config.Observer, backstay.Event{
		Kind: backstay.EventLimit, Policy: "adaptive", Name: l.config.Name,
		From: strconv.Itoa(from), To: strconv.Itoa(to), Reason: why,
	})
}

// Describe implements backstay.Describer.
func (l *Limit) Describe() backstay.Description {
	d := backstay.Description{Kind: "adaptive", Name: l.config.Name, Pends: true, Detail: fmt.Sprintf("%d to %d at once", l.config.Min, l.config.Max)}
	if l.config.Shadow {
		d.Detail += ", shadow"
	}
	return d
}

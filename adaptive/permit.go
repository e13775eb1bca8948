package adaptive

import (
	"context"
	"time"

	"github.com/backstay-go/backstay"
)

// Permit is leave for one call, taken by [Limit.Acquire]. It must not be copied: Done works once for each value.
type Permit struct {
	limit *Limit
	start time.Duration
}

// Acquire takes a permit for a call that is not one function: a stream, a message in a consumer. Every Permit with a nil error ends with Done. The error is a
// *backstay.Rejected that is [ErrLimited], or why ctx is over; the call is then not to be made. There is
// no call to tell of, so no events.
func (l *Limit) Acquire(ctx context.Context) (Permit, error) {
	if l == nil {
		return Permit{}, nil
	}
	if ctx.Err() != nil {
		return Permit{}, backstay.ContextErr(ctx)
	}
	if _, ok := l.acquire(1); !ok {
		return Permit{}, l.refused(ctx, nil)
	}
	return Permit{limit: l, start: time.Since(l.origin)}, nil
}

// Done gives the permit back and counts out as the ending of the call, judged with ctx as a [backstay.Policy] does. A second Done does
// nothing. Done(ctx, backstay.Outcome{Class: backstay.Neutral}) gives it back without a sample.
func (p *Permit) Done(ctx context.Context, out backstay.Outcome) {
	l := p.limit
	if l == nil {
		return
	}
	p.limit = nil
	l.settle(ctx, nil, out, p.start, time.Since(l.origin))
	l.inFlight.Add(-1)
}

// Snapshot is what a limit looks like at one moment.
type Snapshot struct {
	Limit    int           // how many calls may be in flight
	InFlight int           // how many are
	RTT      time.Duration // typical response time of late; 0: none seen
	Baseline time.Duration // the one taken for an idle dependency's; 0: none seen
	Rejected int64         // calls refused so far
	Drops    int64         // calls so far that showed an overload
}

// Snapshot returns the numbers of now.
func (l *Limit) Snapshot() Snapshot {
	s := Snapshot{InFlight: int(l.inFlight.Load()), Rejected: l.rejected.Load(), Drops: l.drops.Load()}
	l.mu.Lock()
	defer l.mu.Unlock()
	s.Limit = l.g.current()
	if l.g.known {
		s.RTT = exp2(l.g.fast)
		s.Baseline = exp2(l.g.base)
	}
	return s
}

// memory is for how long a cut protects: a new instance would start at Initial again.
const memory = 10 * time.Second

// Keep implements backstay.Keeper: a limit with permits out is in use, and one that was cut a short while ago remembers an overload.
func (l *Limit) Keep() (busy bool, left time.Duration) {
	l.mu.Lock()
	cutAt := l.g.cutAt
	l.mu.Unlock()
	if cutAt > 0 {
		left = max(0, cutAt+memory-time.Since(l.origin))
	}
	return l.inFlight.Load() > 0, left
}

// Gauges implements backstay.Gauged: calls in flight, and the limit as it stands.
func (l *Limit) Gauges(tell func(backstay.Gauge)) {
	if l == nil {
		return
	}
	s := l.Snapshot()
	g := backstay.Gauge{Kind: backstay.GaugeInUse, Policy: "adaptive", Name: l.config.Name, Value: float64(s.InFlight)}
	tell(g)
	g.Kind, g.Value = backstay.GaugeLimit, float64(s.Limit)
	tell(g)
}

// Package ratelimit bounds how often calls start: a token bucket (golang.org/x/time/rate) as a policy.
//
// A call that finds no token is refused with the time after which there will be one, or waits for it, bounded by
// [Config.MaxWait] and its own deadline: a call whose turn would come too late is refused at once, and takes no token.
// Waiting calls are served in the order in which they came.
//
//	Defaults: 100 calls a second, bursts of a second's worth, no waiting.
//	Events:   EventReject when a call is refused, EventWait when one got its turn after waiting.
//	Order:    inside the retry, so that each attempt takes a token; outside the breaker.
//
// When not to use it: to protect a dependency whose capacity is not known. A rate that was right for a fast
// dependency is too much for the same one when it is slow; the adaptive limit follows it. A rate limit is for a quota that somebody has set.
package ratelimit

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/backstay-go/backstay"
)

// ErrLimited matches the refusals of this package. The call was not made.
var ErrLimited = errors.New("rate limited")

// Limit is a policy that bounds how often calls start. All methods are safe for concurrent use.
type Limit struct {
	config  Config // as given; of it only what Apply does not change is read
	limiter *rate.Limiter
	maxWait atomic.Int64 // time.Duration

	waiting  atomic.Int64
	rejected atomic.Int64
}

// New returns a rate limit. It panics when the config is not valid.
func New(c Config) *Limit {
	if err := c.Validate(); err != nil {
		panic(err)
	}
	l := &Limit{config: c, limiter: c.Limiter}
	if l.limiter == nil {
		l.limiter = rate.NewLimiter(c.limit())
	}
	l.maxWait.Store(int64(c.MaxWait))
	return l
}

// Apply changes Rate, Per, Burst and MaxWait of a live limit; the other fields stay. Tokens that there are stay, up to the new
// burst; calls that wait keep their turn. With a Limiter that was handed over only MaxWait may be changed here.
func (l *Limit) Apply(c Config) error {
	if err := c.Validate(); err != nil {
		return err
	}
	if l.config.Limiter != nil {
		if c.Rate != 0 || c.Per != 0 || c.Burst != 0 {
			return errors.New("ratelimit: Config.Rate, Config.Per and Config.Burst of a Limiter that was handed over are changed by its own methods")
		}
	} else {
		perSecond, burst := c.limit()
		l.limiter.SetLimit(perSecond)
		l.limiter.SetBurst(burst)
	}
	l.maxWait.Store(int64(c.MaxWait))
	return nil
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
	if ctx.Err() != nil {
		return backstay.Ended(ctx) // dead on arrival takes no token
	}
	cost := 1
	if l.config.Cost != nil {
		if cost = l.config.Cost(ctx, call); cost <= 0 {
			return next(ctx, call)
		}
	}
	if l.limiter.AllowN(time.Now(), cost) {
		return next(ctx, call)
	}
	if waited, err := l.wait(ctx, cost); err != nil {
		l.rejected.Add(1)
		call.Emit(ctx, l.config.Observer, backstay.Event{Kind: backstay.EventReject, Policy: "ratelimit", Name: l.config.Name, Reason: "limited", Wait: retryAfter(err), Elapsed: waited, Err: err})
		return backstay.Outcome{Err: err, Class: backstay.Neutral, Again: backstay.No, Sent: backstay.SentNever}
	} else if waited > 0 {
		call.Emit(ctx, l.config.Observer, backstay.Event{Kind: backstay.EventWait, Policy: "ratelimit", Name: l.config.Name, Elapsed: waited})
	}
	return next(ctx, call)
}

// wait waits for the turn of a call for which there are no tokens.
func (l *Limit) wait(ctx context.Context, cost int) (waited time.Duration, err error) {
	now := time.Now()
	longest := time.Duration(l.maxWait.Load())
	if longest < 0 {
		longest = rate.InfDuration
	}
	reason := "no token"
	if at, ok := ctx.Deadline(); ok {
		if left := at.Sub(now); left < longest {
			longest, reason = left, "no token before the deadline"
		}
	}
	// Those who are to be refused must not take tokens from others, not even for a moment.
	if d := l.due(now, cost); d > longest {
		return 0, l.refused(reason, d)
	}
	r := l.limiter.ReserveN(now, cost)
	if !r.OK() {
		return 0, l.refused("more tokens than the burst", 0)
	}
	d := r.DelayFrom(now)
	if d > longest { // another call was quicker
		r.CancelAt(now)
		return 0, l.refused(reason, d)
	}
	if d == 0 {
		return 0, nil
	}
	l.waiting.Add(1)
	defer l.waiting.Add(-1)
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return d, nil
	case <-ctx.Done():
		r.Cancel()
		return time.Since(now), fmt.Errorf("%w: %w", l.refused("the context ended the wait", 0), backstay.ContextErr(ctx))
	}
}

// due returns about how long a call of this cost would wait.
func (l *Limit) due(now time.Time, cost int) time.Duration {
	limit := l.limiter.Limit()
	missing := float64(cost) - l.limiter.TokensAt(now)
	switch {
	case missing <= 0 || limit == rate.Inf:
		return 0
	case limit <= 0 || cost > l.limiter.Burst():
		return rate.InfDuration
	}
	return time.Duration(min(missing/float64(limit)*float64(time.Second), float64(rate.InfDuration/2)))
}

func (l *Limit) refused(reason string, after time.Duration) error {
	if after == rate.InfDuration {
		after = 0 // never, which is no time to come back at
	}
	return &backstay.Rejected{Policy: "ratelimit", Name: l.config.Name, Reason: reason, RetryAfter: after, Err: ErrLimited}
}

func retryAfter(err error) time.Duration {
	if r, ok := errors.AsType[*backstay.Rejected](err); ok {
		return r.RetryAfter
	}
	return 0
}

// Snapshot is what a rate limit looks like at one moment.
type Snapshot struct {
	Rate     float64 // calls a second; +Inf: no limit
	Burst    int     // calls at once
	Tokens   float64 // calls that could start now; below zero when some wait
	Waiting  int     // calls that wait for their turn
	Rejected int64   // calls refused so far
}

// Snapshot returns the numbers of now.
func (l *Limit) Snapshot() Snapshot {
	return Snapshot{
		Rate: float64(l.limiter.Limit()), Burst: l.limiter.Burst(), Tokens: l.limiter.Tokens(),
		Waiting: int(l.waiting.Load()), Rejected: l.rejected.Load(),
	}
}

// Keep implements backstay.Keeper: a limit with fewer tokens than a new one has something to remember until they are back.
func (l *Limit) Keep() (busy bool, left time.Duration) {
	return l.waiting.Load() > 0, l.due(time.Now(), l.limiter.Burst())
}

// Describe implements backstay.Describer.
func (l *Limit) Describe() backstay.Description {
	d := backstay.Description{Kind: "ratelimit", Name: l.config.Name, Detail: "no limit", Pends: true}
	if limit := l.limiter.Limit(); limit != rate.Inf {
		d.Detail = fmt.Sprintf("%.4g/s, burst %d", float64(limit), l.limiter.Burst())
		if wait := time.Duration(l.maxWait.Load()); wait > 0 {
			d.Detail += fmt.Sprintf(", waits ≤ %v", wait)
		} else if wait < 0 {
			d.Detail += ", waits"
		}
	}
	return d
}

// Gauges implements backstay.Gauged: tokens left, below zero when calls wait, and the calls that do.
func (l *Limit) Gauges(tell func(backstay.Gauge)) {
	if l == nil {
		return
	}
	s := l.Snapshot()
	g := backstay.Gauge{Kind: backstay.GaugeWaiting, Policy: "ratelimit", Name: l.config.Name, Value: float64(s.Waiting)}
	tell(g)
	if !math.IsInf(s.Rate, 1) {
		g.Kind, g.Value = backstay.GaugeTokens, s.Tokens
		tell(g)
	}
}

package adaptive

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/internal/configjson"
)

// ErrThrottled matches the refusals of a Throttle: so many calls failed of late that only some are let through. The call was not made.
var ErrThrottled = errors.New("throttled")

// ThrottleConfig sets a Throttle. The zero value works.
type ThrottleConfig struct {
	// Name tells this throttle from others in errors and events.
	Name string `json:"name,omitempty"`
	// K is how many calls are let through for each that is accepted. Default 2 (Site Reliability Engineering, "Handling Overload"); range 1.5 to 100. Below
	// that a throttle starves itself: after the fault its own refusals keep the accepted share down.
	K float64 `json:"k,omitempty"`
	// Window is for how long an ending counts. Default 2m (the same chapter); range 1s to 1h. A short one throttles soon after a fault begins, and a
	// while after it has ended; see docs/decisions/006 for what that costs.
	Window time.Duration `json:"window,omitempty"`
	// MaxDrop is the largest share of calls refused. Default 0.9; range above 0 to 0.99. It is a clamp: with nothing let through nobody would notice that
	// the dependency is well again.
	MaxDrop float64 `json:"maxDrop,omitempty"`
	// Probe is how long after the last one let through a call is let through in any case, so that a client of few calls does not wait for its
	// luck. Default 1s; negative: never.
	Probe time.Duration `json:"probe,omitempty"`
	// SlowCall is from when on an attempt that a deadline from outside cut short counts as not accepted. Default 5s; negative: never.
	SlowCall time.Duration `json:"slowCall,omitempty"`
	// Rand returns numbers in [0,1). Default: math/rand/v2. It must be safe for concurrent use.
	Rand func() float64 `json:"-"`
	// Observer is told of events.
	Observer backstay.Observer `json:"-"`
}

// MarshalJSON writes durations as strings and leaves functions out.
func (c ThrottleConfig) MarshalJSON() ([]byte, error) { return configjson.Marshal(c) }

// UnmarshalJSON reads what MarshalJSON writes and refuses unknown fields.
func (c *ThrottleConfig) UnmarshalJSON(data []byte) error { return configjson.Unmarshal(data, c) }

// Validate reports every field that is out of range.
func (c ThrottleConfig) Validate() error {
	var errs []error
	d := c.withDefaults()
	if !(d.K >= 1.5 && d.K <= 100) {
		errs = append(errs, fmt.Errorf("adaptive: ThrottleConfig.K is %v; it must be between 1.5 and 100", c.K))
	}
	if d.Window < time.Second || d.Window > time.Hour {
		errs = append(errs, fmt.Errorf("adaptive: ThrottleConfig.Window is %v; it must be between 1s and 1h", c.Window))
	}
	if !(d.MaxDrop > 0 && d.MaxDrop <= 0.99) {
		errs = append(errs, fmt.Errorf("adaptive: ThrottleConfig.MaxDrop is %v; it must be above 0 and at most 0.99", c.MaxDrop))
	}
	return errors.Join(errs...)
}

func (c ThrottleConfig) withDefaults() ThrottleConfig {
	if c.K == 0 {
		c.K = 2
	}
	if c.Window == 0 {
		c.Window = 2 * time.Minute
	}
	if c.MaxDrop == 0 {
		c.MaxDrop = 0.9
	}
	if c.Probe == 0 {
		c.Probe = time.Second
	}
	if c.SlowCall == 0 {
		c.SlowCall = 5 * time.Second
	}
	if c.Rand == nil {
		c.Rand = rand.Float64
	}
	return c
}

// Throttle is a policy that refuses a growing share of the calls while the dependency does not accept them: with the probability
//
//	max(0, (requests − K × accepts) / (requests + 1))
//
// over the last Window, clamped to MaxDrop, where a refused call is a request too. (Client-side throttling, Site Reliability Engineering, chapter "Handling
// Overload".) Success is an accept; Failure and Shed are not; endings that say nothing are not counted. It is a breaker without an open
// state, for dependencies that fail in part. Put it where the breaker stands.
//
//	Events: EventReject when a call is refused.
//
// All methods are safe for concurrent use.
type Throttle struct {
	config ThrottleConfig // with defaults; immutable
	origin time.Time
	drop   atomic.Uint64 // bits of the probability as of the last ending or refusal
	last   atomic.Int64  // when a call was last let through while the probability was not 0

	rejected atomic.Int64

	mu      sync.Mutex
	slices  [16]slice // guarded by mu, as is all below: a ring of times
	current int64     // number of the youngest slice
	sum     slice
}

// slice counts what ended in a sixteenth of the window.
type slice struct{ requests, accepts int64 }

// NewThrottle returns a throttle. It panics when the config is not valid.
func NewThrottle(c ThrottleConfig) *Throttle {
	if err := c.Validate(); err != nil {
		panic(err)
	}
	t := &Throttle{config: c.withDefaults(), origin: time.Now()}
	t.last.Store(math.MinInt64 / 2)
	return t
}

// Wrap implements backstay.Policy. A nil Throttle wraps to next itself.
func (t *Throttle) Wrap(next backstay.Handler) backstay.Handler {
	if t == nil {
		return next
	}
	return func(ctx context.Context, call *backstay.Call) backstay.Outcome { return t.Around(ctx, call, next) }
}

// Around implements backstay.Around.
func (t *Throttle) Around(ctx context.Context, call *backstay.Call, next backstay.Handler) backstay.Outcome {
	start := time.Since(t.origin)
	if t.refuses(start) {
		t.rejected.Add(1)
		r := &backstay.Rejected{Policy: "throttle", Name: t.config.Name, Reason: "most calls fail of late", Err: ErrThrottled}
		call.Emit(ctx, t.config.Observer, backstay.Event{Kind: backstay.EventReject, Policy: "throttle", Name: t.config.Name, Reason: r.Reason, Err: r})
		return backstay.Reject(r)
	}
	ended := false
	defer func() {
		if !ended { // a panic or Goexit is a failure, as for a breaker
			t.count(time.Since(t.origin), slice{requests: 1})
		}
	}()
	out := next(ctx, call)
	ended = true
	now := time.Since(t.origin)
	switch class := out.Judge(ctx, now-start, t.config.SlowCall); {
	case out.Shed || class == backstay.Failure:
		t.count(now, slice{requests: 1})
	case class == backstay.Success:
		t.count(now, slice{requests: 1, accepts: 1})
	}
	return out
}

// refuses decides about a call at now.
func (t *Throttle) refuses(now time.Duration) bool {
	if t.drop.Load() == 0 {
		return false
	}
	p := t.count(now, slice{}) // as the window has moved on meanwhile
	if p == 0 {
		return false
	}
	if last := t.last.Load(); t.config.Probe > 0 && now-time.Duration(last) >= t.config.Probe && t.last.CompareAndSwap(last, int64(now)) {
		return false
	}
	if t.config.Rand() >= p {
		t.last.Store(int64(now))
		return false
	}
	t.count(now, slice{requests: 1})
	return true
}

// count adds to the window as of now and returns the probability of a refusal after that.
func (t *Throttle) count(now time.Duration, add slice) float64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	number := int64(now / (t.config.Window / time.Duration(len(t.slices))))
	for range min(max(number-t.current, 0), int64(len(t.slices))) {
		t.current++
		oldest := &t.slices[t.current%int64(len(t.slices))]
		t.sum.requests -= oldest.requests
		t.sum.accepts -= oldest.accepts
		*oldest = slice{}
	}
	if number > t.current { // the whole ring was skipped, and is empty
		t.current = number
	}
	s := &t.slices[t.current%int64(len(t.slices))]
	s.requests += add.requests
	s.accepts += add.accepts
	t.sum.requests += add.requests
	t.sum.accepts += add.accepts
	p := (float64(t.sum.requests) - t.config.K*float64(t.sum.accepts)) / float64(t.sum.requests+1)
	p = min(max(p, 0), t.config.MaxDrop)
	t.drop.Store(math.Float64bits(p))
	return p
}

// ThrottleSnapshot is what a throttle looks like at one moment.
type ThrottleSnapshot struct {
	Requests int64   // endings and refusals in the window
	Accepts  int64   // successes among them
	Drop     float64 // the share of calls that is refused
	Rejected int64   // calls refused so far
}

// Snapshot returns the numbers of now.
func (t *Throttle) Snapshot() ThrottleSnapshot {
	p := t.count(time.Since(t.origin), slice{})
	t.mu.Lock()
	defer t.mu.Unlock()
	return ThrottleSnapshot{Requests: t.sum.requests, Accepts: t.sum.accepts, Drop: p, Rejected: t.rejected.Load()}
}

// Keep implements backstay.Keeper: a throttle that refuses remembers a fault for as long as its window.
func (t *Throttle) Keep() (busy bool, left time.Duration) {
	if t.drop.Load() != 0 && t.count(time.Since(t.origin), slice{}) > 0 {
		left = t.config.Window
	}
	return false, left
}

// Describe implements backstay.Describer.
func (t *Throttle) Describe() backstay.Description {
	return backstay.Description{
		Kind: "throttle", Name: t.config.Name,
		Detail: fmt.Sprintf("K %v over %v, drops ≤ %v%%", t.config.K, t.config.Window, 100*t.config.MaxDrop),
	}
}

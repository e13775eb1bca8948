// Package bulkhead bounds how many calls run at the same time, so that one slow dependency cannot take every goroutine, connection and
// byte of memory with it.
//
// A call beyond the limit is refused at once, or waits in a queue with two bounds of its own: how many may wait, and for how long. The
// queue is first in, first out, and a newcomer never overtakes. A permit is held until the function returns, or until the value is let
// go when the value outlives the call (an HTTP body, rows).
//
//	Defaults: 1,000 at once, no queue.
//	Events:   EventReject when a call is refused, EventWait when one got its permit after waiting.
//	Order:    inside the retry, so that a sleeping call holds no permit; outside the breaker, so that a full bulkhead does not spend a probe.
//
// When not to use it: where the right limit is not known or moves, use the adaptive limit instead.
package bulkhead

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/internal/configjson"
)

// ErrFull matches the refusals of this package: no permit was free, and none became so while the call waited. The call was not made.
var ErrFull = errors.New("bulkhead full")

// Config sets a bulkhead. The zero value works.
type Config struct {
	// Name tells this bulkhead from others in errors and events.
	Name string `json:"name,omitempty"`
	// Limit is how many calls may run at once. Default 1,000 (as Polly's and dotnet/extensions' standard handler; Envoy has 1,024); negative: no limit.
	Limit int `json:"limit,omitempty"`
	// Queue is how many calls may wait for a permit. Default 0: none, so a full bulkhead refuses at once.
	Queue int `json:"queue,omitempty"`
	// MaxWait is how long a call waits for a permit. Default 1s; negative: as long as its context allows.
	MaxWait time.Duration `json:"maxWait,omitempty"`
	// UntilReturn gives a permit back when the function returns, although its value is still in use.
	UntilReturn bool `json:"untilReturn,omitempty"`
	// Observer is told of events.
	Observer backstay.Observer `json:"-"`
}

// MarshalJSON writes durations as strings and leaves functions out.
func (c Config) MarshalJSON() ([]byte, error) { return configjson.Marshal(c) }

// UnmarshalJSON reads what MarshalJSON writes and refuses unknown fields.
func (c *Config) UnmarshalJSON(data []byte) error { return configjson.Unmarshal(data, c) }

// Validate reports every field that makes no sense.
func (c Config) Validate() error {
	var errs []error
	if c.Queue < 0 {
		errs = append(errs, fmt.Errorf("bulkhead: Config.Queue is %d; it must not be negative", c.Queue))
	}
	if c.Queue > 0 && c.Limit < 0 {
		errs = append(errs, errors.New("bulkhead: Config.Queue is set although Config.Limit is off"))
	}
	return errors.Join(errs...)
}

func (c Config) withDefaults() Config {
	if c.Limit == 0 {
		c.Limit = 1000
	}
	if c.MaxWait == 0 {
		c.MaxWait = time.Second
	}
	return c
}

// Bulkhead is a policy that bounds concurrency. All methods are safe for concurrent use.
type Bulkhead struct {
	name    string
	obs     backstay.Observer
	release func() // b.Release, made once
	early   bool   // Config.UntilReturn

	mu          sync.Mutex
	config      Config // guarded by mu, as is all below
	inUse       int
	first, last *waiter // those who wait, in order
	queued      int
}

// waiter is a call in the queue. Its fields are guarded by the bulkhead's mu, but for granted, which is closed
// under it and received from outside.
type waiter struct {
	granted    chan struct{}
	prev, next *waiter
}

// New returns a bulkhead. It panics when the config is not valid.
func New(c Config) *Bulkhead {
	if err := c.Validate(); err != nil {
		panic(err)
	}
	b := &Bulkhead{name: c.Name, obs: c.Observer, early: c.UntilReturn, config: c.withDefaults()}
	b.release = b.Release
	return b
}

// Apply changes limit, queue and wait of a live bulkhead; the other fields stay. A higher limit admits waiters at once. With a lower one,
// calls that run go on, and a shorter queue keeps who is in it.
func (b *Bulkhead) Apply(c Config) error {
	if err := c.Validate(); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.config = c.withDefaults()
	b.grant()
	return nil
}

// Snapshot is what a bulkhead looks like at one moment.
type Snapshot struct {
	InUse  int // permits taken
	Queued int // calls that wait
	Limit  int // permits in all; negative: no limit
}

// Snapshot returns the numbers of now.
func (b *Bulkhead) Snapshot() Snapshot {
	b.mu.Lock()
	defer b.mu.Unlock()
	return Snapshot{InUse: b.inUse, Queued: b.queued, Limit: b.config.Limit}
}

// Keep implements backstay.Keeper: a bulkhead with permits out is in use.
func (b *Bulkhead) Keep() (busy bool, left time.Duration) {
	s := b.Snapshot()
	return s.InUse > 0 || s.Queued > 0, 0
}

// Describe implements backstay.Describer.
func (b *Bulkhead) Describe() backstay.Description {
	b.mu.Lock()
	c := b.config
	b.mu.Unlock()
	d := backstay.Description{Kind: "bulkhead", Name: b.name, Detail: "no limit", Pends: true}
	if c.Limit > 0 {
		d.Detail = fmt.Sprintf("%d at once", c.Limit)
		if c.Queue > 0 {
			d.Detail += fmt.Sprintf(", %d waiting ≤ %v", c.Queue, c.MaxWait)
		}
	}
	return d
}

// Wrap implements backstay.Policy. A nil Bulkhead wraps to next itself.
func (b *Bulkhead) Wrap(next backstay.Handler) backstay.Handler {
	if b == nil {
		return next
	}
	return func(ctx context.Context, call *backstay.Call) backstay.Outcome { return b.Around(ctx, call, next) }
}

// Around implements backstay.Around.
func (b *Bulkhead) Around(ctx context.Context, call *backstay.Call, next backstay.Handler) backstay.Outcome {
	waited, err := b.acquire(ctx)
	if err != nil {
		call.Emit(ctx, b.obs, backstay.Event{Kind: backstay.EventReject, Policy: "bulkhead", Name: b.name, Reason: "full", Elapsed: waited, Err: err})
		return backstay.Outcome{Err: err, Class: backstay.Neutral, Again: backstay.No, Sent: backstay.SentNever}
	}
	kept := false
	defer func() { // also on panic and Goexit
		if !kept {
			b.Release()
		}
	}()
	if waited > 0 {
		call.Emit(ctx, b.obs, backstay.Event{Kind: backstay.EventWait, Policy: "bulkhead", Name: b.name, Elapsed: waited})
	}
	out := next(ctx, call)
	if p, ok := out.Held.(backstay.Pending); ok {
		kept = true
		p.Then((*permit)(b))
		return out
	}
	kept = true
	return (*permit)(b).End(out)
}

// permit is one of the bulkhead, of a call that has returned.
type permit Bulkhead

// End implements backstay.Ender: the permit comes back, or is left to what the outcome holds.
func (p *permit) End(out backstay.Outcome) backstay.Outcome {
	b := (*Bulkhead)(p)
	if out.Held != nil && !b.early {
		out.Held.OnRelease(b.release)
	} else {
		b.Release()
	}
	return out
}

// Acquire takes a permit as a call would, waiting as the config says, for streams and consumers that are not one function. Every
// nil error is paid back with one Release. An error is a *backstay.Rejected that is ErrFull, or matches the context's error too when that ended the wait.
func (b *Bulkhead) Acquire(ctx context.Context) error {
	_, err := b.acquire(ctx)
	return err
}

// Release gives back a permit taken by Acquire.
func (b *Bulkhead) Release() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.inUse--; b.inUse < 0 {
		panic("bulkhead: Release without Acquire")
	}
	b.grant()
}

func (b *Bulkhead) acquire(ctx context.Context) (waited time.Duration, err error) {
	if ctx.Err() != nil {
		return 0, backstay.ContextErr(ctx) // dead on arrival takes no permit
	}
	b.mu.Lock()
	if b.queued == 0 && b.free() {
		b.inUse++
		b.mu.Unlock()
		return 0, nil
	}
	if b.queued >= b.config.Queue {
		b.mu.Unlock()
		return 0, b.full("full")
	}
	w := b.enqueue()
	wait := b.config.MaxWait
	b.mu.Unlock()
	return b.wait(ctx, w, wait)
}

// wait blocks until w is granted, or gives up and leaves the queue. A waiter that gives up as it is granted passes the permit on.
func (b *Bulkhead) wait(ctx context.Context, w *waiter, limit time.Duration) (waited time.Duration, err error) {
	start := time.Now()
	var over <-chan time.Time
	if limit > 0 {
		timer := time.NewTimer(limit)
		defer timer.Stop()
		over = timer.C
	}
	select {
	case <-w.granted:
		if ctx.Err() == nil {
			return time.Since(start), nil
		}
		b.Release()
		return time.Since(start), b.ended(ctx)
	case <-over:
		err = b.full("full, waited " + limit.String())
	case <-ctx.Done():
		err = b.ended(ctx)
	}
	b.mu.Lock()
	select {
	case <-w.granted:
		b.mu.Unlock()
		b.Release()
	default:
		b.remove(w)
		b.mu.Unlock()
	}
	return time.Since(start), err
}

func (b *Bulkhead) full(reason string) error {
	return &backstay.Rejected{Policy: "bulkhead", Name: b.name, Reason: reason, Err: ErrFull}
}

func (b *Bulkhead) ended(ctx context.Context) error {
	return fmt.Errorf("%w: %w", b.full("full, and the context ended the wait"), backstay.ContextErr(ctx))
}

// free reports whether another call may run. Called with mu held.
func (b *Bulkhead) free() bool { return b.config.Limit < 0 || b.inUse < b.config.Limit }

// grant hands free permits to those who wait, in order. Called with mu held.
func (b *Bulkhead) grant() {
	for b.first != nil && b.free() {
		w := b.first
		b.remove(w)
		b.inUse++
		close(w.granted)
	}
}

// enqueue puts a new waiter last. Called with mu held.
func (b *Bulkhead) enqueue() *waiter {
	w := &waiter{granted: make(chan struct{}), prev: b.last}
	if b.last == nil {
		b.first = w
	} else {
		b.last.next = w
	}
	b.last = w
	b.queued++
	return w
}

// remove takes w out of the queue. Called with mu held, for a waiter that is in it.
func (b *Bulkhead) remove(w *waiter) {
	if w.prev == nil {
		b.first = w.next
	} else {
		w.prev.next = w.next
	}
	if w.next == nil {
		b.last = w.prev
	} else {
		w.next.prev = w.prev
	}
	w.prev, w.next = nil, nil
	b.queued--
}

// Gauges implements backstay.Gauged: permits in use, calls that wait, and the limit.
func (b *Bulkhead) Gauges(tell func(backstay.Gauge)) {
	if b == nil {
		return
	}
	s := b.Snapshot()
	g := backstay.Gauge{Kind: backstay.GaugeInUse, Policy: "bulkhead", Name: b.name, Value: float64(s.InUse)}
	tell(g)
	g.Kind, g.Value = backstay.GaugeWaiting, float64(s.Queued)
	tell(g)
	if s.Limit >= 0 {
		g.Kind, g.Value = backstay.GaugeLimit, float64(s.Limit)
		tell(g)
	}
}

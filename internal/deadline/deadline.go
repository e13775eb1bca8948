// Package deadline is a context with a deadline that costs one allocation until somebody waits on it.
//
// Most calls end long before anybody asks for Done: a cached answer, a rejection, a function that never blocks. context.WithTimeout
// pays for a timer and a registration with its parent all the same. A [Ctx] makes the standard context only when Done is first
// asked for, so it behaves as that one does, children included, and until then is a deadline and a pointer to its parent.
//
// One thing cannot be told without a timer: when the deadline passed first and the parent was cancelled after it, and nobody looked at the
// context between the two, it reports the parent's end.
package deadline

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// Ctx is a context with a deadline. Make one with [New], end it with [Ctx.Cancel].
type Ctx struct {
	parent   context.Context
	at       time.Time
	cause    error
	follows  bool // the parent ends no later: the deadline is the parent's
	disarms  bool // the deadline may be lifted by Disarm
	disarmed atomic.Bool

	real atomic.Bool // inner and its helpers are set

	mu       sync.Mutex // all below; a context takes that of one outside it while it holds its own, never the other way
	canceled bool
	expired  bool // disarms only: this context's own deadline ended it
	overdue  bool // disarms only: some deadline ended it, its own or that of one outside
	inner    context.Context
	end      context.CancelFunc
	endCause context.CancelCauseFunc
	timer    *time.Timer
	fires    time.Duration // when the timer does, since at; never: it does not run
	watch    error         // the cause when the watch runs out; nil: no watch
	watchEnd time.Duration // when it does, since at; never: there has been none
	children []*Ctx        // contexts that were made real without making this one real
	room     [1]*Ctx       // the first of them
}

// New returns a context that ends after d, or when Cancel is called, or with its parent. context.Cause reports cause once it has expired.
//
// With disarms, Disarm can lift the deadline while the context lives on. The price: contexts derived from it report Canceled instead of
// DeadlineExceeded when it expires, and the cause in both cases.
func New(parent context.Context, d time.Duration, cause error, disarms bool) *Ctx {
	c := &Ctx{parent: parent, at: time.Now().Add(d), cause: cause, disarms: disarms, fires: never, watchEnd: never}
	if at, ok := parent.Deadline(); ok && at.Before(c.at) {
		c.at, c.follows = at, true
	}
	return c
}

// Open returns a context without a deadline of its own, to be cancelled and watched.
func Open(parent context.Context) *Ctx {
	return &Ctx{parent: parent, at: time.Now(), follows: true, disarms: true, fires: never, watchEnd: never}
}

// never is no time: the limit of Duration, three hundred years before.
const never = time.Duration(-1 << 63)

// Deadline implements [context.Context].
func (c *Ctx) Deadline() (time.Time, bool) {
	if c.follows || c.disarmed.Load() {
		return c.parent.Deadline()
	}
	return c.at, true
}

// Done implements [context.Context].
func (c *Ctx) Done() <-chan struct{} {
	if !c.real.Load() {
		c.mu.Lock()
		c.realize()
		c.mu.Unlock()
	}
	return c.inner.Done()
}

// realize makes the standard context. Called with mu held.
func (c *Ctx) realize() {
	if c.real.Load() {
		return
	}
	switch {
	case c.disarms:
		c.realizeDisarming()
	case c.follows:
		c.inner, c.end = context.WithCancel(c.parent)
	default:
		// Contexts of the same kind directly outside this one end later, but for their cancellation, of which they tell it. So they need not be
		// made real, and an attempt's timeout inside a total one costs one context and one timer here too.
		parent, ended := c.parent, false
		for outer := directly(parent, false); outer != nil; outer = directly(parent, false) {
			_, _, attached, canceled := outer.attach(c)
			if !attached {
				break
			}
			ended = ended || canceled
			parent = outer.parent
		}
		c.inner, c.end = context.WithDeadlineCause(parent, c.at, c.cause)
		if ended {
			c.end()
		}
	}
	c.real.Store(true)
	if c.canceled {
		c.stop(nil)
	}
}

// stop ends the standard context. Called with mu held.
func (c *Ctx) stop(cause error) {
	if c.disarms {
		c.endCause(cause)
	} else {
		c.end()
	}
}

// realizeDisarming makes a standard context with a timer beside it, which can be stopped. Contexts of the same kind directly outside this one
// that are not real yet stay so: this one keeps the earliest of their deadlines and is told when they are cancelled. So an attempt's
// timeout inside a total timeout costs one context and one timer.
func (c *Ctx) realizeDisarming() {
	parent, at, timed, ended := c.parent, c.at, !c.follows && !c.disarmed.Load(), false
	for outer := directly(parent, true); outer != nil; outer = directly(parent, true) {
		limit, limited, attached, canceled := outer.attach(c)
		if !attached {
			break
		}
		if limited && (!timed || limit.Before(at)) {
			at, timed = limit, true
		}
		ended = ended || canceled
		parent = outer.parent
	}
	c.inner, c.endCause = context.WithCancelCause(parent)
	var left time.Duration
	switch {
	case ended:
		c.endCause(nil)
	case timed:
		if left = time.Until(at); left > 0 {
			c.timer, c.fires = time.AfterFunc(left, c.expire), at.Sub(c.at)
		} else if !c.canceled && c.inner.Err() == nil {
			c.overrun()
		}
	}
}

// directly returns ctx, or the one that it hands everything on to, as a Ctx that can or cannot be disarmed; else nil.
func directly(ctx context.Context, disarms bool) *Ctx {
	for {
		switch p := ctx.(type) {
		case *Ctx:
			if p.disarms == disarms {
				return p
			}
			return nil
		case interface{ Parent() context.Context }:
			ctx = p.Parent()
		default:
			return nil
		}
	}
}

// attach has child told when c is cancelled, unless c is real already and must be child's parent.
func (c *Ctx) attach(child *Ctx) (at time.Time, limited, attached, canceled bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.real.Load() {
		return at, false, false, false
	}
	if c.children == nil {
		c.children = c.room[:0]
	}
	c.children = append(c.children, child)
	return c.at, !c.follows && !c.disarmed.Load(), true, c.canceled
}

// overrun ends the context by a deadline: its own, or that of one outside. Called with mu held.
func (c *Ctx) overrun() {
	c.overdue = true
	now := time.Now()
	if !c.follows && !c.disarmed.Load() && !now.Before(c.at) {
		c.expired = true
		c.endCause(c.cause)
		return
	}
	for outer := directly(c.parent, true); outer != nil; outer = directly(outer.parent, true) {
		if !outer.follows && !outer.disarmed.Load() && !now.Before(outer.at) {
			c.endCause(outer.cause)
			return
		}
	}
	c.overdue = false // lifted meanwhile
}

// expire is the timer's function, for contexts that can be disarmed. The timer is not stopped when what it was started for is over, and not
// moved when a watch ends later than it fires: it looks at what is due, and goes on if need be. So a Read of a body costs no timer.
func (c *Ctx) expire() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fires = never
	switch {
	case c.canceled || c.inner.Err() != nil:
	case c.watch != nil:
		if left := c.watchEnd - time.Since(c.at); left > 0 {
			c.fires = c.watchEnd
			c.timer.Reset(left)
			return
		}
		c.overdue = true
		c.endCause(c.watch)
	case c.watchEnd != never: // a watch that ended in time
	default:
		c.overrun()
	}
}

// Watch ends the context with cause unless Unwatch is called within d. It is for contexts that can be disarmed, once that has
// been done: it uses the same timer.
func (c *Ctx) Watch(d time.Duration, cause error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.realize()
	c.watch, c.watchEnd = cause, time.Since(c.at)+d
	switch {
	case c.timer == nil:
		c.timer = time.AfterFunc(d, c.expire)
	case c.fires == never || c.watchEnd < c.fires:
		c.timer.Reset(d)
	default:
		return
	}
	c.fires = c.watchEnd
}

// Unwatch ends a watch.
func (c *Ctx) Unwatch() {
	c.mu.Lock()
	c.watch = nil
	c.mu.Unlock()
}

// Real reports whether anybody has waited on the context, so that it has to be cancelled.
func (c *Ctx) Real() bool { return c.real.Load() }

// Err implements [context.Context].
func (c *Ctx) Err() error {
	if c.real.Load() && !c.disarms {
		return c.inner.Err()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err()
}

// Over reports whether the context has ended as far as can be told without looking at the clock: it is what to ask just after a
// context was made. Contexts around it are asked the same, as far as they can answer.
func (c *Ctx) Over() bool {
	if c.real.Load() {
		return c.Err() != nil
	}
	c.mu.Lock()
	canceled := c.canceled
	c.mu.Unlock()
	if canceled {
		return true
	}
	if p, ok := c.parent.(interface{ Over() bool }); ok {
		return p.Over()
	}
	return c.parent.Err() != nil
}

// err is Err with mu held.
func (c *Ctx) err() error {
	if !c.real.Load() {
		switch {
		case c.canceled:
			return context.Canceled
		case c.follows || c.disarmed.Load() || time.Now().Before(c.at):
			return c.parent.Err()
		}
		if err := c.parent.Err(); err != nil {
			return err
		}
		c.realize() // past the deadline: the standard context says so at once, with the cause
	}
	if c.overdue {
		return context.DeadlineExceeded
	}
	err := c.inner.Err()
	if err != nil && c.disarms && !c.canceled {
		if outer := directly(c.parent, true); outer != nil && outer.Err() != nil {
			return outer.Err() // which knows whether it was a deadline
		}
	}
	return err
}

// Value implements [context.Context]. The standard context may stand on one further out, so only what package context looks for in it comes from there: a
// context of its own, by a key that is an *int.
func (c *Ctx) Value(key any) any {
	if _, ok := key.(*int); ok && c.real.Load() {
		if v := c.inner.Value(key); v != nil {
			return v
		}
	}
	return c.parent.Value(key)
}

// Expired reports whether this context's own deadline has passed, and not before it was cancelled, disarmed or ended by its parent.
func (c *Ctx) Expired() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.hasExpired()
}

func (c *Ctx) hasExpired() bool {
	switch {
	case c.follows || c.disarmed.Load():
		return false
	case c.disarms && c.real.Load():
		return c.expired
	case c.real.Load():
		return c.inner.Err() == context.DeadlineExceeded
	case c.canceled:
		return false
	}
	return !time.Now().Before(c.at) && c.parent.Err() == nil
}

// Disarm lifts the deadline of a context made with disarms, and reports false when it has passed already.
func (c *Ctx) Disarm() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.hasExpired() {
		return false
	}
	c.disarmed.Store(true)
	return true
}

// Lift disarms the context for good and returns the one outside it, so that whoever finds that what the limits around it were for has been reached (a
// stream stands) can walk outwards and lift them all. A deadline that has passed already stays passed.
func (c *Ctx) Lift() (outer context.Context) {
	c.Disarm()
	return c.parent
}

// Finish cancels the context and reports whether its own deadline had passed before.
func (c *Ctx) Finish() (expired bool) {
	c.mu.Lock()
	expired = c.hasExpired()
	if !c.canceled {
		if expired && !c.real.Load() && c.children == nil {
			c.realize() // so that it has ended by its deadline, not by us
		}
		c.canceled = true
		if c.timer != nil {
			c.timer.Stop()
		}
		if c.real.Load() {
			c.stop(nil)
		}
	}
	children := c.children
	c.children = nil
	c.mu.Unlock()
	for _, child := range children {
		child.Finish()
	}
	return expired
}

// Cancel ends the context and lets go of its timer. It may be called more than once.
func (c *Ctx) Cancel() { c.Finish() }

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

	mu       sync.Mutex
	canceled bool // guarded by mu
	expired  bool // guarded by mu; disarms only: the timer fired
	inner    context.Context
	end      context.CancelFunc
	endCause context.CancelCauseFunc
	timer    *time.Timer
}

// New returns a context that ends after d, or when Cancel is called, or with its parent. context.Cause reports cause once it has expired.
//
// With disarms, Disarm can lift the deadline while the context lives on. The price: contexts derived from it report Canceled instead of
// DeadlineExceeded when it expires, and the cause in both cases.
func New(parent context.Context, d time.Duration, cause error, disarms bool) *Ctx {
	c := &Ctx{parent: parent, at: time.Now().Add(d), cause: cause, disarms: disarms}
	if at, ok := parent.Deadline(); ok && at.Before(c.at) {
		c.at, c.follows = at, true
	}
	return c
}

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
	case c.follows || c.disarmed.Load():
		c.inner, c.end = context.WithCancel(c.parent)
	case c.disarms:
		c.inner, c.endCause = context.WithCancelCause(c.parent)
		c.end = func() { c.endCause(nil) }
		if left := time.Until(c.at); left > 0 {
			c.timer = time.AfterFunc(left, c.expire)
		} else if !c.canceled && c.inner.Err() == nil {
			c.expired = true
			c.endCause(c.cause)
		}
	default:
		c.inner, c.end = context.WithDeadlineCause(c.parent, c.at, c.cause)
	}
	if c.canceled {
		c.end()
	}
	c.real.Store(true)
}

// expire is the timer's function, for contexts that can be disarmed.
func (c *Ctx) expire() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.canceled || c.disarmed.Load() || c.inner.Err() != nil {
		return
	}
	c.expired = true
	c.endCause(c.cause)
}

// Err implements [context.Context].
func (c *Ctx) Err() error {
	if c.real.Load() && !c.disarms {
		return c.inner.Err()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err()
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
	if c.expired {
		return context.DeadlineExceeded
	}
	return c.inner.Err()
}

// Value implements [context.Context].
func (c *Ctx) Value(key any) any {
	if c.real.Load() {
		return c.inner.Value(key)
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
	if c.timer != nil {
		c.timer.Stop()
	}
	return true
}

// Finish cancels the context and reports whether its own deadline had passed before.
func (c *Ctx) Finish() (expired bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.finish()
}

// finish is Finish with mu held.
func (c *Ctx) finish() (expired bool) {
	expired = c.hasExpired()
	if c.canceled {
		return expired
	}
	if expired {
		c.realize() // so that it has ended by its deadline, not by us
	}
	c.canceled = true
	if c.timer != nil {
		c.timer.Stop()
	}
	if c.real.Load() {
		c.end()
	}
	return expired
}

// Cancel ends the context and lets go of its timer. It may be called more than once.
func (c *Ctx) Cancel() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.finish()
}

// Package deadline is a context with a deadline that costs one allocation until somebody waits on it.
//
// Most calls end long before anybody asks for Done: a cached answer, a rejection, a function that never blocks. context.WithTimeout
// pays for a timer and a registration with its parent all the same. A [Ctx] starts to listen to its parent and to its [Limit] when Done is first
// asked for; until then it is a deadline and a pointer to its parent. It behaves as a standard context does, children included, and a
// deadline can be lifted while the context lives on. All contexts of a Limit share a timer.
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

// Ctx is a context with a deadline. Make one with [New], end it with [Ctx.Cancel]. All methods are safe for concurrent use.
type Ctx struct {
	parent context.Context
	at     time.Time
	limit  *Limit // whose deadline it is; nil: it has none of its own

	follows  bool          // the parent ends no later: the deadline is the parent's
	expired  bool          // this context's own deadline ended it; set before state, as is why
	state    atomic.Uint32 // a state; leaves alive once, with mu held
	real     atomic.Bool   // somebody waits, so live is set and in use
	disarmed atomic.Bool   // the deadline has been lifted; set with mu held

	spare atomic.Pointer[Ctx] // memory for a context directly inside; nil: none, or in use

	mu   sync.Mutex // guards all below; only that of a Limit is taken with it, and no code of others runs
	why  error      // the cause, once it has ended
	live *live      // what it needs once somebody waits; before that nil, or the memory for it
	told *Link      // whom to tell of the end
}

// state says whether and how a context has ended.
type state uint32

const (
	alive state = iota
	canceled
	overdue // by a deadline: its own, or one outside
)

func (s state) err() error {
	switch s {
	case canceled:
		return context.Canceled
	case overdue:
		return context.DeadlineExceeded
	}
	return nil
}

// stateOf is the state of a context that ends because another one has ended with err.
func stateOf(err error) state {
	if err == context.DeadlineExceeded {
		return overdue
	}
	return canceled
}

// live is what a context needs once somebody waits on it, all of it guarded by the mutex of its Ctx.
type live struct {
	done     atomic.Value // a chan struct{}, made when first asked for; written with the mutex held
	timer    *time.Timer
	fires    time.Duration // when the timer does, since at; never: it does not run
	watch    error         // the cause when the watch runs out; nil: no watch
	watchEnd time.Duration // when it does, since at
	stop     func() bool   // ends the registration with a parent that is no Ctx
	queued   place         // in the queue of its limit
	ups      *link         // its places in the lists of contexts outside
	up       link          // room for the first of them
	first    Link          // room for the first function to be called
}

// never is no time: the limit of Duration, three hundred years before.
const never = time.Duration(-1 << 63)

// New returns a context that ends after d, or when Cancel is called, or with its parent. context.Cause reports the limit's cause once it has
// expired.
func New(parent context.Context, d time.Duration, limit *Limit) *Ctx {
	c := memory(parent, limit)
	c.parent, c.at, c.limit = parent, time.Now().Add(d), limit
	if at, ok := parent.Deadline(); ok && at.Before(c.at) {
		c.at, c.follows = at, true
	}
	return c
}

// Open returns a context without a deadline of its own, to be cancelled and watched. rounds, which may be nil, is a shared Limit of such contexts only: its
// timer looks at each once, after a round, so that a watch as long as that costs no timer where it is never due.
func Open(parent context.Context, rounds *Limit) *Ctx {
	c := memory(parent, rounds)
	c.parent, c.at, c.follows, c.limit = parent, time.Now().Add(round), true, rounds
	return c
}

// round is long for a call, and not longer than the usual watch.
const round = 10 * time.Second

// limited reports whether the context has a deadline of its own.
func (c *Ctx) limited() bool { return !c.follows && !c.disarmed.Load() }

// Deadline implements [context.Context].
func (c *Ctx) Deadline() (time.Time, bool) {
	if !c.limited() {
		return c.parent.Deadline()
	}
	return c.at, true
}

// Done implements [context.Context].
func (c *Ctx) Done() <-chan struct{} {
	if c.real.Load() {
		if done, ok := c.live.done.Load().(chan struct{}); ok {
			return done
		}
	}
	fresh := make(chan struct{})
	c.realize(fresh)
	if done, ok := c.live.done.Load().(chan struct{}); ok { // fresh, or that of somebody who was quicker
		return done
	}
	c.mu.Lock() // it has been waited on without a channel
	defer c.mu.Unlock()
	if done, ok := c.live.done.Load().(chan struct{}); ok {
		return done
	}
	c.live.publish(fresh, state(c.state.Load()) != alive)
	return fresh
}

// publish makes done the context's channel. Called with the mutex held.
func (l *live) publish(done chan struct{}, over bool) {
	if over {
		close(done)
	}
	l.done.Store(done)
}

// Err implements [context.Context].
func (c *Ctx) Err() error { return c.ask().err() }

// ask returns the state, after ending a context whose time has come and which has not heard of it.
func (c *Ctx) ask() state {
	if s := state(c.state.Load()); s != alive {
		return s
	}
	if err := c.outside(); err != nil {
		c.end(stateOf(err), context.Cause(c.parent))
	} else if !c.real.Load() && c.limited() && time.Until(c.at) <= 0 { // else there is a timer
		c.mu.Lock()
		n := c.expire()
		c.mu.Unlock()
		n.tell()
	}
	return state(c.state.Load())
}

// Value implements [context.Context]. Package context looks for a context of its own by a key that is an *int, to learn the cause; a context
// that has ended shows it one.
func (c *Ctx) Value(key any) any {
	if _, ok := key.(*int); ok && c.ask() != alive {
		ended, end := context.WithCancelCause(context.Background())
		end(c.why) // set before the state was
		if v := ended.Value(key); v != nil {
			return v
		}
	} else if ok { // those of ours in between would look at the clock, each
		return c.foreign().Value(key)
	}
	return c.parent.Value(key)
}

// end ends the context, if it has not ended.
func (c *Ctx) end(s state, why error) {
	c.mu.Lock()
	n := c.ended(s, why)
	c.mu.Unlock()
	n.tell()
}

// expire ends the context by its own deadline, if it has not ended. Called with mu held.
func (c *Ctx) expire() notice {
	if state(c.state.Load()) != alive || !c.limited() {
		return notice{}
	}
	c.expired = true
	return c.ended(overdue, c.limit.Cause)
}

// ended is end with mu held; the notice is told without it.
func (c *Ctx) ended(s state, why error) notice {
	if state(c.state.Load()) != alive {
		return notice{}
	}
	n := notice{told: c.told}
	for l := n.told; l != nil; l = l.next {
		l.in = false
	}
	c.told = nil
	c.why = why
	c.state.Store(uint32(s))
	if c.real.Load() {
		l := c.live
		n.stop, n.ups, l.stop, l.ups = l.stop, l.ups, nil, nil
		if l.timer != nil {
			l.timer.Stop()
		}
		if l.queued.ctx != nil {
			c.limit.remove(&l.queued)
		}
		if done, ok := l.done.Load().(chan struct{}); ok {
			close(done)
		}
	}
	return n
}

// realize makes the context one that can be waited on.
//
// Contexts of ours directly outside that nobody waits on stay so: this one listens to whom they would, keeps the earliest of their deadlines,
// and is told when they are cancelled. So an attempt's timeout inside a total timeout costs one timer and one registration.
//
// done, which may be nil, becomes its channel if it has none.
func (c *Ctx) realize(done chan struct{}) {
	if c.real.Load() {
		return
	}
	c.mu.Lock()
	if c.real.Load() { // somebody was quicker, and listens or will in a moment
		c.mu.Unlock()
		return
	}
	if c.live == nil {
		c.live = &live{}
		c.needed(true)
	}
	l := c.live
	l.fires = never
	over := state(c.state.Load()) != alive
	if done != nil {
		l.publish(done, over)
	}
	c.real.Store(true)
	c.mu.Unlock()
	if !over {
		c.listen(l)
	}
}

// listen registers with what may end the context, and starts the timer.
func (c *Ctx) listen(l *live) {
	parent, ups := c.parent, (*link)(nil)
	var stop func() bool
	for up := &l.up; parent != nil; {
		outer := directly(parent)
		if outer == nil {
			break
		}
		if ups != nil {
			up = &link{}
		}
		up.kid, up.more = c, ups
		s, why, listens := outer.attach(up)
		if s == alive {
			ups = up
		}
		if s != alive {
			c.end(s, why)
		}
		if parent = outer.parent; listens || s != alive {
			parent = nil
		}
	}
	if parent != nil && parent.Done() != nil {
		if err := parent.Err(); err != nil {
			c.end(stateOf(err), context.Cause(parent))
		} else {
			stop = context.AfterFunc(parent, c.parentEnded)
		}
	}
	var n notice
	c.mu.Lock()
	if state(c.state.Load()) == alive {
		l.stop, l.ups = stop, ups
		n = c.due()
	} else {
		n = notice{stop: stop, ups: ups} // it has ended without them
	}
	c.mu.Unlock()
	n.tell()
}

// attach has up's context told when c ends, unless it has already. listens: c hears of everything that ends it, so that nobody further out need
// be listened to.
func (c *Ctx) attach(up *link) (s state, why error, listens bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s = state(c.state.Load()); s == alive {
		c.add(&up.Link, up)
	}
	return s, c.why, c.real.Load()
}

// due ends the context if a deadline has passed, and otherwise sees to it that the timer fires in time for the next. Called with mu held and live set.
func (c *Ctx) due() notice {
	if state(c.state.Load()) != alive {
		return notice{}
	}
	l, next, now := c.live, never, time.Since(c.at)
	if c.limited() {
		if next = 0; now >= 0 {
			return c.expire()
		}
	}
	if l.watch != nil {
		if now >= l.watchEnd {
			return c.ended(overdue, l.watch)
		}
		if next == never || l.watchEnd < next {
			next = l.watchEnd
		}
	}
	for outer := directly(c.parent); outer != nil && !outer.real.Load(); outer = directly(outer.parent) {
		if !outer.limited() {
			continue
		}
		at := outer.at.Sub(c.at)
		if now >= at {
			return c.ended(overdue, outer.limit.Cause)
		}
		if next == never || at < next {
			next = at
		}
	}
	if next == never || l.fires != never && l.fires <= next {
		return notice{} // a timer that fires too early looks at what is due then
	}
	if next >= 0 && now < 0 && l.queued.ctx == nil && c.limit.add(&l.queued, c) {
		l.fires = 0
		return notice{}
	}
	l.fires = next
	if l.timer == nil {
		l.timer = time.AfterFunc(next-now, c.fire)
	} else {
		l.timer.Reset(next - now)
	}
	return notice{}
}

// fire is the timer's function. The timer is not stopped when what it was started for is over, and not moved when a watch ends later than it
// fires: it looks at what is due, and goes on if need be. So a Read of a body costs no timer.
func (c *Ctx) fire() {
	c.mu.Lock()
	c.live.fires = never
	n := c.due()
	c.mu.Unlock()
	n.tell()
}

// Watch ends the context with cause, as by a deadline, unless Unwatch is called within d.
func (c *Ctx) Watch(d time.Duration, cause error) {
	c.realize(nil)
	var n notice
	c.mu.Lock()
	l := c.live
	l.watch, l.watchEnd = cause, time.Since(c.at)+d
	if l.fires == never || l.watchEnd < l.fires {
		n = c.due()
	}
	c.mu.Unlock()
	n.tell()
}

// Unwatch ends a watch.
func (c *Ctx) Unwatch() {
	c.mu.Lock()
	if c.real.Load() {
		c.live.watch = nil
	}
	c.mu.Unlock()
}

// Real reports whether anybody has waited on the context, so that it has to be cancelled.
func (c *Ctx) Real() bool { return c.real.Load() }

// Over reports whether the context has ended as far as can be told without looking at the clock: it is what to ask just after a
// context was made. Contexts around it are asked the same, as far as they can answer.
func (c *Ctx) Over() bool {
	if state(c.state.Load()) != alive {
		return true
	}
	if p, ok := c.parent.(interface{ Over() bool }); ok {
		return p.Over()
	}
	return c.parent.Err() != nil
}

// Expired reports whether this context's own deadline has passed, and not before it was cancelled, disarmed or ended by its parent.
func (c *Ctx) Expired() bool {
	if !c.limited() {
		return false
	}
	if state(c.state.Load()) == alive && !c.real.Load() && time.Until(c.at) <= 0 {
		c.ask()
	}
	return state(c.state.Load()) != alive && c.expired
}

// Disarm lifts the deadline, and reports false when it has passed already.
func (c *Ctx) Disarm() bool {
	if c.Expired() {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.expired && c.limited() { // meanwhile
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

// Outer returns the one outside it, for those who want to know what stands around them.
func (c *Ctx) Outer() context.Context { return c.parent }

// Finish cancels the context and reports whether its own deadline had passed before.
func (c *Ctx) Finish() (expired bool) {
	if c.real.Load() {
		c.ask() // the parent may have ended it, and has the cause
	} else {
		c.Expired()
	}
	c.mu.Lock()
	n := c.ended(canceled, context.Canceled)
	expired = c.expired && c.limited()
	c.unneeded()
	c.mu.Unlock()
	n.tell()
	return expired
}

// Cancel ends the context and lets go of its timer. It may be called more than once.
func (c *Ctx) Cancel() { c.Finish() }

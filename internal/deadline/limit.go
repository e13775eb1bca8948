package deadline

import (
	"sync"
	"time"
)

// Limit is what contexts have in common that end after the same time for the same reason. Those of a shared Limit come due in the order in which
// they were made, so that one timer serves all, set to the first of them: starting and stopping a timer for each call costs 0.2 µs, and near to a
// microsecond beside a socket, where it wakes the thread that polls it.
type Limit struct {
	Cause  error // of the contexts that it ends
	Shared bool  // it lasts, and its contexts get the same time

	everywhere bool // for tests: also in a bubble

	habit

	mu          sync.Mutex // taken after that of a context; guards all below
	first, last *place
	timer       *time.Timer
	fires       time.Time // when the timer does; zero: it does not run
}

// place is a context's place in the queue of its limit.
type place struct {
	ctx           *Ctx // nil: it has never been in the queue
	before, after *place
	in            bool
}

// bubbles says which times may be those of a testing/synctest bubble. A timer belongs to the bubble in which it was made, so contexts of different bubbles
// cannot share one; time in a bubble begins with the year 2000. What is taken for a bubble and is none has timers of its own, and is
// right all the same.
var bubbles = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)

// add puts c in the queue, whose fire will be called at its time or later, and reports false if it needs a timer of its own. Called with c.mu held; l may be
// nil.
func (l *Limit) add(p *place, c *Ctx) bool {
	if l == nil || !l.Shared || c.at.Before(bubbles) && !l.everywhere {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	p.ctx, p.in = c, true
	p.before = l.last
	for p.before != nil && p.before.ctx.at.After(c.at) { // made earlier, and waited on later
		p.after, p.before = p.before, p.before.before
	}
	if p.before == nil {
		l.first = p
	} else {
		p.before.after = p
	}
	if p.after == nil {
		l.last = p
	} else {
		p.after.before = p
	}
	if l.fires.IsZero() || c.at.Before(l.fires) {
		l.arm(c.at)
	}
	return true
}

// remove takes p out of the queue. The timer goes on: it is more often right for the next context than not.
func (l *Limit) remove(p *place) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.unlink(p)
}

func (l *Limit) unlink(p *place) {
	if !p.in {
		return
	}
	if p.before == nil {
		l.first = p.after
	} else {
		p.before.after = p.after
	}
	if p.after == nil {
		l.last = p.before
	} else {
		p.after.before = p.before
	}
	p.in, p.before, p.after = false, nil, nil
}

// arm sets the timer. Called with mu held.
func (l *Limit) arm(at time.Time) {
	l.fires = at
	if d := time.Until(at); l.timer == nil {
		l.timer = time.AfterFunc(d, l.fire)
	} else {
		l.timer.Reset(d)
	}
}

// fire is the timer's function: it tells the contexts that are due, and goes on with the next.
func (l *Limit) fire() {
	for {
		l.mu.Lock()
		p := l.first
		if p == nil {
			l.fires = time.Time{}
			l.mu.Unlock()
			return
		}
		if time.Until(p.ctx.at) > 0 {
			l.arm(p.ctx.at)
			l.mu.Unlock()
			return
		}
		l.unlink(p)
		l.mu.Unlock()
		p.ctx.fire()
	}
}

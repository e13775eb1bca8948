package deadline

import (
	"context"
	"sync/atomic"
)

// A context has in one piece of memory with it what those of its limit needed of late: a context directly inside, as that of an attempt in that of its call, and what either
// needs when it is waited on. Allocations cost a call more than the code around them, near a socket twice over.
type (
	waited struct {
		Ctx
		room live
	}
	nesting struct {
		Ctx
		in Ctx
	}
	nestingWaited struct {
		Ctx
		in waited
	}
)

// habit is what the latest contexts of a limit needed. It may be wrong for the next, which then costs an allocation, or room that is not used.
type habit struct {
	waits    atomic.Bool // somebody waited
	nests    atomic.Bool // there was one inside
	insWaits atomic.Bool // and somebody waited on that
}

// set notes a habit. Most of the time it is known, and nothing is written to memory that others read.
func set(h *atomic.Bool, now bool) {
	if h.Load() != now {
		h.Store(now)
	}
}

// memory returns a zero context, for one inside parent.
func memory(parent context.Context, limit *Limit) *Ctx {
	if around, ok := parent.(*Ctx); ok {
		if c := around.spare.Load(); c != nil && around.spare.CompareAndSwap(c, nil) {
			return c
		}
		if around.limit != nil {
			set(&around.limit.nests, true)
		}
	}
	switch {
	case limit == nil:
		return &Ctx{}
	case !limit.nests.Load() && limit.waits.Load():
		w := &waited{}
		w.live = &w.room
		return &w.Ctx
	case !limit.nests.Load():
		return &Ctx{}
	case limit.insWaits.Load():
		n := &nestingWaited{}
		n.in.live = &n.in.room
		n.spare.Store(&n.in.Ctx)
		return &n.Ctx
	}
	n := &nesting{}
	n.spare.Store(&n.in)
	return &n.Ctx
}

// needed notes whether somebody has waited on c.
func (c *Ctx) needed(now bool) {
	if c.limit != nil {
		set(&c.limit.waits, now)
	}
	if around, ok := c.parent.(*Ctx); ok && around.limit != nil {
		set(&around.limit.insWaits, now)
	}
}

// unneeded notes what of its memory a context did not need that has ended.
func (c *Ctx) unneeded() {
	if c.spare.Load() != nil {
		set(&c.limit.nests, false)
	}
	if !c.real.Load() && c.live != nil {
		c.needed(false)
	}
}

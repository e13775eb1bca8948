package saga

import "time"

// The transition table for the end of a body. Nothing here looks at a clock or writes: it says what
// the log is to hold.

// actionFailed is the entry for a failed attempt of a forward body.
func (r *run) actionFailed(o *op, v verdict, note []byte, now time.Time) Entry {
	e := Entry{Event: EventFailed, Step: o.path, Op: Action, Attempt: o.attempt, Note: note}
	clean := v.clean || !o.n.doubtful()
	if clean {
		e.Verb = verbNoEffect
	}
	doubt := o.doubt || !clean
	limit := o.n.act.Attempts
	exhausted := limit >= 0 && o.attempt-o.base >= limit
	pivot := o.n.mode == modePivot
	switch {
	case r.undo: // others failed meanwhile: record it, so that the undo knows
		return e
	case v.park, v.panicked && exhausted:
		e.Event = EventParked
		return e
	case v.fail || exhausted:
		if r.pivot || pivot && !v.fail && doubt {
			e.Event = EventParked // no way back; or nobody knows whether there is one
		}
		return e
	}
	e.Event, e.Delay = EventRetry, o.n.act.backoff(o.attempt-o.base)
	if v.waits {
		e.Delay = v.wait
	}
	if ttl := o.n.act.KeyTTL; ttl > 0 && doubt && now.Add(e.Delay).Sub(o.first) > ttl {
		e.Event, e.Delay = EventParked, 0 // the other side would take it for a new request
	}
	return e
}

// undoFailure is the entry for a failed attempt of an undo.
func (r *run) undoFailure(o *op, v verdict, note []byte) Entry {
	e := Entry{Event: EventRetry, Step: o.path, Op: Undo, Attempt: o.attempt, Note: note}
	if v.fail || v.park || o.attempt-o.base >= o.n.back.Attempts {
		e.Event = EventUndoFailed
		return e
	}
	e.Delay = o.n.back.backoff(o.attempt - o.base)
	if v.waits {
		e.Delay = v.wait
	}
	return e
}

// requested is the entry for a cancel or a passed deadline, and false when it has to wait until a
// parked step is dealt with.
func (r *run) requested(what Event, actor string, note []byte) (Entry, bool) {
	e := Entry{Event: what, Verb: string(what), Actor: actor, Note: note}
	switch {
	case r.undo:
		e.Event = EventNoted
	case r.pivot:
		e.Event = EventRefused
	case r.parked > 0:
		return e, false
	default:
		for _, o := range r.all {
			if o.n.mode == modePivot && o.status != idle {
				e.Event = EventNoted // the pivot's answer decides
			}
		}
	}
	return e, true
}

// waiter finds the Wait that takes a signal: the one that has waited longest.
func (r *run) waiter(signal string) *op {
	var best *op
	for _, o := range r.all {
		if o.n.kind != kindWait || o.n.signal != signal || o.status != intended {
			continue
		}
		if best == nil || o.first.Before(best.first) || o.first.Equal(best.first) && o.path < best.path {
			best = o
		}
	}
	return best
}

// timed is the entry for a Wait or Delay whose time is over, and when the next one is: zero for never.
func (r *run) timed(now time.Time) (e Entry, due bool, next time.Time) {
	if r.undo || r.parked > 0 {
		return e, false, next
	}
	for _, o := range r.all {
		if o.status != intended || o.n.kind != kindWait && o.n.kind != kindDelay || o.n.act.Within == 0 {
			continue
		}
		at := o.first.Add(o.n.act.Within)
		if at.After(now) {
			if next.IsZero() || at.Before(next) {
				next = at
			}
			continue
		}
		e = Entry{Event: EventDone, Step: o.path, Op: Action, Attempt: o.attempt, Verb: verbNone}
		if o.n.kind == kindWait && !o.n.act.GoOn {
			e.Event, e.Verb, e.Note = EventFailed, verbNoEffect, r.def.note(ErrWaitTimeout.Error())
			if r.pivot {
				e.Event = EventParked
			}
		}
		return e, true, next
	}
	return e, false, next
}

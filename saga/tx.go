package saga

import (
	"context"
	"errors"
	"slices"
	"time"
)

// nextTx takes the next transactional body off the list of what may begin, or returns nil.
func (t *task) nextTx() *op {
	for i, o := range t.begin {
		if o.transactional() && !o.due.After(t.e.now()) {
			t.begin = append(t.begin[:i], t.begin[i+1:]...)
			return o
		}
	}
	return nil
}

// txRepeats is how often in a row a transaction that the database rolled back is begun anew at no attempt's cost: a deadlock is not the step's fault. A step
// that meets one every time is; with the waits between them these take a second.
const txRepeats = 10

// runTx runs a transactional body and its checkpoint in one transaction. The ends of siblings and mail wait
// meanwhile: the checkpoint continues from a position that nobody else of this instance may move.
func (t *task) runTx(o *op) (time.Duration, error) {
	undo := o.undoing()
	repeats := 0
	for wait := time.Millisecond; ; wait = min(2*wait, time.Second) {
		a := t.tryTx(o, undo)
		if a.ran {
			repeats++
		}
		switch {
		case a.err == nil:
			t.observeBody(o, ended{o: o, undo: undo})
			t.committed(a.res)
			return t.follow(a.plan), nil
		case errors.Is(a.err, ErrFenced), errors.Is(a.err, ErrUnknown):
			return 0, a.err
		case t.life.Err() != nil:
			return 0, context.Cause(t.life)
		case errors.Is(a.err, ErrRolledBack) && repeats <= txRepeats, !a.ran: // the database's trouble, not the step's
			if !sleep(t.life, wait) {
				return 0, context.Cause(t.life)
			}
			continue
		}
		t.observeBody(o, ended{o: o, undo: undo, err: a.err})
		v := judge(a.err, a.clean)
		v.clean = v.clean || a.clean // it was rolled back
		t.failed(o, undo, a.err, v)
		return t.round()
	}
}

// txAttempt is how one transaction ended.
type txAttempt struct {
	ran   bool // the body was called
	clean bool // it made no request whose effect a rollback leaves standing
	res   Committed
	plan  plan
	err   error
}

// tryTx makes one attempt. Unless it commits, the task is as it was before.
func (t *task) tryTx(o *op, undo bool) (a txAttempt) {
	ctx, cancel := context.WithCancelCause(t.life)
	defer cancel(nil)
	c := t.body(ctx, o, undo)
	back := t.snapshot()
	done := make(chan struct{})
	go func() { // so that runtime.Goexit ends the body, not the task
		defer close(done)
		a.err = errGoexit
		a.res, a.err = t.e.tx.InTx(c, c.fence, func(tx Tx) (Checkpoint, error) {
			a.ran = true
			data, err := t.e.attempt(c, o.n, undo, &tx)
			if err != nil {
				return Checkpoint{}, err
			}
			e := Entry{Event: EventDone, Step: o.path, Op: Action, Attempt: o.attempt, Data: data}
			if undo {
				e.Op, e.Data = Undo, nil
			}
			t.add(e)
			a.plan = t.plan()
			return t.point(a.plan), nil
		})
	}()
	<-done
	a.clean = c.clean()
	if a.err == nil && a.res.Err != nil {
		a.err = a.res.Err
	}
	if a.err != nil {
		back()
	}
	return a
}

// snapshot returns what brings the task back to its present state.
func (t *task) snapshot() (restore func()) {
	r, ops := *t.r, make(map[string]op, len(t.r.ops))
	for path, o := range t.r.ops {
		ops[path] = *o
	}
	log, consume, inbox, begin, cause := t.log, t.consume, slices.Clone(t.inbox), slices.Clone(t.begin), t.cause
	return func() {
		*t.r = r // its maps are shared; what was added to them goes below
		for path, o := range t.r.ops {
			if was, ok := ops[path]; ok {
				*o = was
			} else {
				delete(t.r.ops, path)
			}
		}
		t.log, t.consume, t.inbox, t.begin, t.cause = log, consume, inbox, begin, cause
	}
}

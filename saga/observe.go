package saga

import (
	"context"

	"github.com/backstay-go/backstay"
)

// Events: one for each change of state (EventState, From and To, Err: why), one for each attempt of a
// body (EventAttempt, Reason "action" or "compensate"), and EventReject with Reason "store" for a
// checkpoint that the store would not take and that is tried again.

func (t *task) observe(ev backstay.Event) {
	if t.e.cfg.Observer == nil {
		return
	}
	defer func() { _ = recover() }() // watching must not break a saga
	ev.Policy, ev.Name, ev.Key = "saga", t.inst.Ref.Def, t.inst.ID
	t.e.cfg.Observer.Observe(context.WithoutCancel(t.life), ev)
}

// tell reports the state once it is committed, if it is another than before.
func (t *task) tell(s State) {
	if s == t.state {
		return
	}
	from := t.state
	t.state = s
	t.e.tel.moved(t.life, &t.inst, s, t.e.now())
	if t.e.cfg.Observer == nil {
		return
	}
	ev := backstay.Event{Kind: backstay.EventState, From: string(from), To: string(s)}
	if t.r != nil {
		ev.Call = staticPath(t.r.step())
	}
	switch {
	case s.Parked():
		ev.Err = t.stopped
	case s == Compensating, s == Compensated:
		ev.Err = t.cause
	}
	t.observe(ev)
}

func (t *task) observeBody(o *op, ev ended) {
	if t.e.cfg.Observer == nil {
		return
	}
	e := backstay.Event{Kind: backstay.EventAttempt, Call: o.n.static, Attempt: o.attempt, Reason: string(Action), Class: backstay.Success, Err: ev.err}
	if ev.undo {
		e.Reason = string(Undo)
	}
	if ev.err != nil {
		e.Class = backstay.Failure
	}
	t.observe(e)
}

func (t *task) observeStore(err error) {
	t.e.tel.troubles.Add(t.life, 1)
	t.observe(backstay.Event{Kind: backstay.EventReject, Reason: "store", Err: err})
}

// result is the error of an instance at rest; nil when it completed.
func (t *task) result(s State) *Error {
	if s == Completed {
		return nil
	}
	return t.r.result(s, t.cause, t.stopped)
}

// result describes how the run came to rest. cause and stopped are the errors as they were, where this process
// saw them; otherwise their texts have to do.
func (r *run) result(s State, cause, stopped error) *Error {
	e := &Error{ID: r.id, Step: r.failedStep, State: s, Undone: r.undone, Cause: cause}
	if e.Cause == nil && len(r.cause) > 0 {
		e.Cause = textError(r.def.noteText(r.cause))
	}
	if s.Parked() {
		e.Parked = stopped
		if e.Parked == nil {
			e.Parked = textError(r.def.noteText(r.parkNote))
		}
		if s == ParkedFwd {
			e.Cause = e.Parked
			if ops := r.parkedOps(parked); len(ops) > 0 {
				e.Step = ops[0].path
			}
		}
	}
	return e
}

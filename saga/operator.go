package saga

import (
	"context"
	"errors"
	"fmt"
)

// Operator is what a person does about parked instances. Each verb is kept in the history with who
// and why, takes effect in one commit, and leaves the rest to the engines. ErrState when the verb
// does not apply, ErrBusy when the instance is running somewhere, ErrNotFound, ErrTerminal,
// ErrUnclaimable when the definition is not registered here. When several steps are parked (in parallel branches), a
// verb takes the first by path, Retry all.
type Operator struct{ e *Engine }

// Operator returns the verbs for parked instances.
func (e *Engine) Operator() Operator { return Operator{e} }

// Retry repeats what is parked, forward step or undo, with its attempts counted anew: after the fault is mended.
func (o Operator) Retry(ctx context.Context, id string, by By) error {
	return o.do(ctx, id, VerbRetry, nil, by)
}

// SkipWith goes on as if the parked step, which is not a pivot in doubt, had returned value. If the saga compensates later, the step is undone with that value.
func (o Operator) SkipWith(ctx context.Context, id string, value any, by By) error {
	return o.do(ctx, id, VerbSkip, value, by)
}

// MarkDone says that a parked pivot has taken effect, with value as its output: the saga goes on.
func (o Operator) MarkDone(ctx context.Context, id string, value any, by By) error {
	return o.do(ctx, id, VerbDone, value, by)
}

// MarkNotDone says that a parked pivot has not taken effect, and never will: the saga compensates.
func (o Operator) MarkNotDone(ctx context.Context, id string, by By) error {
	return o.do(ctx, id, VerbNotDone, nil, by)
}

// CompensateNow gives up a parked step before the pivot: the saga compensates, that step included.
func (o Operator) CompensateNow(ctx context.Context, id string, by By) error {
	return o.do(ctx, id, VerbCompensate, nil, by)
}

// MarkUndone says that a parked undo has been carried out by hand: the remaining undos follow.
func (o Operator) MarkUndone(ctx context.Context, id string, by By) error {
	return o.do(ctx, id, VerbUndone, nil, by)
}

// Resolve closes a parked instance as it is. Its locks are released; whatever is left of it in the world is the operator's.
func (o Operator) Resolve(ctx context.Context, id string, by By) error {
	return o.do(ctx, id, VerbResolve, nil, by)
}

func (o Operator) do(ctx context.Context, id, verb string, value any, by By) error {
	if err := by.check(); err != nil {
		return err
	}
	var err error
	for range 10 { // an engine may claim in between, to read its mail, and park it again
		if err = o.try(ctx, id, verb, value, by); !errors.Is(err, ErrFenced) {
			return err
		}
	}
	return fmt.Errorf("%w: %w", ErrBusy, err)
}

func (o Operator) try(ctx context.Context, id, verb string, value any, by By) error {
	inst, err := o.e.Get(ctx, id)
	if err != nil {
		return err
	}
	switch {
	case inst.State.Terminal():
		return ErrTerminal
	case !inst.State.Parked():
		return fmt.Errorf("%w: %s of an instance that is %s", ErrState, verb, inst.State)
	}
	got, err := o.e.store.Claim(ctx, Claim{ID: id, Max: 1})
	if err != nil {
		return err
	}
	if len(got) != 1 {
		return ErrBusy
	}
	cp, err := o.plan(&got[0], verb, value, by)
	if err != nil {
		return err
	}
	res, err := o.e.store.Commit(ctx, []Checkpoint{cp})
	if err != nil {
		return err
	}
	if res[0].Err != nil {
		return res[0].Err
	}
	if cp.State.Terminal() {
		o.e.tel.moved(ctx, &inst, cp.State, got[0].Now)
		o.e.recheck(id)
	}
	o.e.Wake()
	return nil
}

// plan makes the checkpoint of a verb.
func (o Operator) plan(c *Claimed, verb string, value any, by By) (Checkpoint, error) {
	d := o.e.defs[c.Ref]
	if d == nil {
		return Checkpoint{}, fmt.Errorf("%w: %s %d", ErrUnclaimable, c.Ref.Def, c.Ref.Ver)
	}
	cp := Checkpoint{ID: c.ID, Epoch: c.Epoch, Pivot: c.Pivot, Step: c.Step, Seen: c.Mail, Release: true}
	if n := len(c.Log); n > 0 {
		cp.Seq = c.Log[n-1].Seq
	}
	entry := Entry{Event: EventOperator, Verb: verb, Actor: by.Actor, Note: d.note(by.Reason), At: c.Now}
	r := newRun(d, c.ID, c.Input)
	for i := range c.Log {
		if err := r.apply(&c.Log[i]); err != nil { // an instance that nobody can read
			return o.planUnreadable(c, cp, entry, err)
		}
	}
	if last := c.Log[len(c.Log)-1]; last.Event == EventParked && last.Step == "" && verb != VerbResolve {
		return o.planUnreadable(c, cp, entry, nil)
	}
	steps, err := r.target(verb, c.State)
	if err != nil {
		return cp, err
	}
	if verb == VerbSkip || verb == VerbDone {
		if entry.Data, err = d.encode("value", value); err != nil {
			return cp, err
		}
		n := steps[0].n
		if n.typed != nil {
			err = n.typed(d, entry.Data)
		} else {
			err = n.verify(d, entry.Data)
		}
		if err != nil {
			return cp, err
		}
	}
	for _, s := range steps {
		e := entry
		if s != nil {
			e.Step, e.Op = s.path, Action
			if s.undoing() {
				e.Op = Undo
			}
		}
		e.Seq = r.seq + 1
		if err := r.apply(&e); err != nil {
			return cp, err
		}
		cp.Log = append(cp.Log, e)
	}
	_, end := r.next()
	cp.State, cp.Pivot, cp.Step = r.state(end), r.pivot, r.step()
	if cp.State.Parked() {
		cp.Wake = Forever
	}
	return cp, nil
}

// planUnreadable lets an instance whose log could not be followed be tried again, or closed.
func (o Operator) planUnreadable(c *Claimed, cp Checkpoint, e Entry, err error) (Checkpoint, error) {
	switch e.Verb {
	case VerbRetry:
		cp.State = Running
		if c.State == ParkedUndo {
			cp.State = Compensating
		}
	case VerbResolve:
		cp.State = Resolved
	default:
		return cp, fmt.Errorf("%w: only Retry and Resolve, since it cannot be read: %w", ErrState, err)
	}
	e.Seq = cp.Seq + 1
	cp.Log = []Entry{e}
	return cp, nil
}

// target finds the steps that a verb takes, or says why it does not apply. A nil step stands for the whole.
func (r *run) target(verb string, s State) ([]*op, error) {
	fwd, back := r.parkedOps(parked), r.parkedOps(undoFailed)
	refuse := func(why string) ([]*op, error) { return nil, fmt.Errorf("%w: %s: %s", ErrState, verb, why) }
	if verb == VerbResolve {
		return []*op{nil}, nil
	}
	if s == ParkedUndo {
		switch {
		case verb == VerbRetry:
			return back, nil
		case verb == VerbUndone && len(back) > 0:
			return back[:1], nil
		}
		return refuse("an undo is parked")
	}
	if len(fwd) == 0 {
		return refuse("no step is parked")
	}
	pivot := fwd[0].n.mode == modePivot
	switch verb {
	case VerbRetry:
		return fwd, nil
	case VerbSkip:
		if pivot {
			return refuse("the pivot is in doubt: MarkDone or MarkNotDone")
		}
	case VerbDone, VerbNotDone:
		if !pivot {
			return refuse("the parked step is no pivot")
		}
	case VerbCompensate:
		if r.pivot {
			return nil, fmt.Errorf("%w: %w", ErrState, ErrAfterPivot)
		}
		if pivot {
			return refuse("the pivot is in doubt: MarkNotDone")
		}
	default:
		return refuse("a forward step is parked")
	}
	return fwd[:1], nil
}

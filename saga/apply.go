package saga

import (
	"fmt"
	"slices"
	"strings"
)

const verbNoEffect = "no-effect"

// The verbs of an operator, as Entry.Verb has them.
const (
	VerbRetry      = "retry"
	VerbSkip       = "skip"
	VerbDone       = "mark-done"
	VerbNotDone    = "mark-not-done"
	VerbCompensate = "compensate"
	VerbUndone     = "mark-undone"
	VerbResolve    = "resolve"
)

// apply takes one entry of the log, in order.
func (r *run) apply(e *Entry) error {
	if e.Seq != r.seq+1 {
		return fmt.Errorf("saga: log of %s: entry %d follows %d", r.id, e.Seq, r.seq)
	}
	r.seq = e.Seq
	var o *op
	if e.Step != "" {
		var err error
		if o, err = r.locate(e.Step); err != nil {
			return err
		}
	}
	switch e.Event {
	case EventStart:
		r.started = e.Data
	case EventRecovered:
	case EventRefused:
		r.noted = ""
		r.late = r.late || e.Verb == string(EventDeadline)
	case EventDone:
		if e.Op == Undo {
			o.status = undone
			r.undone = append(r.undone, o.path)
			break
		}
		if err := r.finish(o, e.Data, e.Verb != verbNone); err != nil {
			return err
		}
	case EventRetry:
		o.attempt, o.due = e.Attempt, e.At.Add(e.Delay)
		if e.Op == Undo {
			o.status = undoBackoff
			break
		}
		o.status = backoff
		o.doubt = o.doubt || e.Verb != verbNoEffect
	case EventFailed:
		o.doubt = o.doubt || e.Verb != verbNoEffect
		o.status = failed
		r.fail(e.Step, e.Note)
	case EventParked:
		if o == nil { // the instance as a whole cannot be read: see task.unreadable
			break
		}
		o.doubt = o.doubt || e.Verb != verbNoEffect
		o.status = parked
		r.parked++
		r.parkNote = e.Note
	case EventCancel, EventDeadline:
		r.late = r.late || e.Event == EventDeadline
		r.fail("", e.Note)
	case EventNoted:
		r.late = r.late || e.Verb == string(EventDeadline)
		if !r.undo {
			r.noted = Event(e.Verb)
		}
	case EventUndoFailed:
		o.status = undoFailed
		r.stuck++
		r.halted = r.halted || !o.n.back.Others
		r.parkNote = e.Note
	case EventOperator:
		if err := r.operate(o, e); err != nil {
			return err
		}
	default:
		return fmt.Errorf("saga: log of %s: unknown event %q", r.id, e.Event)
	}
	return r.intend(e)
}

// verbNone marks the end of a Wait that went on without a value.
const verbNone = "none"

// fail turns the saga round. The first cause stands.
func (r *run) fail(step string, note []byte) {
	if r.undo {
		return
	}
	r.undo, r.failedStep, r.cause = true, step, note
}

// finish takes the output of an action.
func (r *run) finish(o *op, data []byte, known bool) error {
	o.status, o.data, o.known = done, data, known
	switch o.n.kind {
	case kindIf:
		if err := r.def.decode("choice of "+o.path, data, &o.choice); err != nil {
			return err
		}
	case kindEach:
		var items [][]byte
		if err := r.def.decode("list of "+o.path, data, &items); err != nil {
			return err
		}
		o.items = len(items)
		for i, in := range items {
			f := &frame{prefix: elementPrefix(o.path, i), input: in}
			r.addFrame(f.prefix, f)
		}
	case kindChild:
		r.addFrame(o.path+"/", &frame{prefix: o.f.prefix, input: data})
	case kindStep:
		if o.n.mode == modePivot {
			r.pivot = true
		}
	}
	return nil
}

// operate takes an operator's verb on a parked step.
func (r *run) operate(o *op, e *Entry) error {
	if o == nil && e.Verb == VerbRetry {
		return nil // of an instance that could not be read and now can
	}
	switch e.Verb {
	case VerbRetry:
		if o.status == undoFailed {
			o.status = undoBackoff
			r.unstick(o)
		} else {
			o.status = backoff
			o.first = e.At
			r.parked--
		}
		o.base, o.due = o.attempt, e.At
	case VerbSkip, VerbDone:
		r.parked--
		return r.finish(o, e.Data, true)
	case VerbNotDone:
		r.parked--
		o.status, o.doubt = failed, false
		r.fail(o.path, r.parkNote)
	case VerbCompensate:
		r.parked--
		o.status = failed
		r.fail(o.path, r.parkNote)
	case VerbUndone:
		o.status = undone
		r.undone = append(r.undone, o.path)
		r.unstick(o)
	case VerbResolve:
		r.closed = true
	default:
		return fmt.Errorf("saga: log of %s: unknown verb %q", r.id, e.Verb)
	}
	return nil
}

func (r *run) unstick(*op) {
	r.stuck--
	r.halted = false
	for _, o := range r.all {
		if o.status == undoFailed && !o.n.back.Others {
			r.halted = true
		}
	}
}

// intend takes the intents of an entry.
func (r *run) intend(e *Entry) error {
	for _, s := range e.Next {
		i, ok := parseIntent(s)
		if !ok {
			return fmt.Errorf("saga: log of %s: malformed intent %q", r.id, s)
		}
		o, err := r.locate(i.path)
		if err != nil {
			return err
		}
		switch {
		case i.undo:
			if o.status != undoIntended && o.status != undoBackoff {
				o.base, o.due = 0, e.At
			}
			o.status = undoIntended
		default:
			switch o.status {
			case idle:
				o.first = e.At
			case intended: // again, by another owner: nobody knows what the one before it did, and the log is to say so for ever
				o.doubt = o.doubt || o.n.doubtful()
			}
			if o.status != backoff {
				o.due = e.At
			}
			o.status = intended
		}
		o.attempt = i.attempt
	}
	return nil
}

// parkedOps lists the steps that wait for an operator, in order of their paths.
func (r *run) parkedOps(s status) []*op {
	var all []*op
	for _, o := range r.all {
		if o.status == s {
			all = append(all, o)
		}
	}
	slices.SortFunc(all, func(a, b *op) int { return strings.Compare(a.path, b.path) })
	return all
}

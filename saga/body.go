package saga

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/backstay-go/backstay"
)

// start begins the bodies whose intents are durable and whose time has come, and reports how long
// until the next event in time: due, or a held repetition; 0 for none.
func (t *task) start(due time.Time) time.Duration {
	now := t.e.now()
	later := t.begin[:0]
	for _, o := range t.begin {
		switch {
		case o.due.After(now):
			due = earlier(due, o.due)
			later = append(later, o)
		case o.transactional():
			later = append(later, o)
		default:
			t.spawn(o)
		}
	}
	t.begin = later
	if due.IsZero() {
		return 0
	}
	return max(due.Sub(now), 1)
}

// transactional reports whether the op's present direction runs in the store's transaction.
func (o *op) transactional() bool {
	return o.n.txKind != "" && (!o.undoing() || o.n.txUndo)
}

// spawn runs one attempt on a goroutine of its own.
func (t *task) spawn(o *op) {
	ctx, cancel := context.WithCancelCause(t.life)
	undo := o.undoing()
	c := t.body(ctx, o, undo)
	o.running = true
	t.bodies[o] = cancel
	go func() {
		ev := ended{o: o, undo: undo}
		defer func() { // also when the body calls runtime.Goexit
			ev.taken = c.taken.Load()
			cancel(nil)
			t.events <- ev
		}()
		ev.err = errGoexit
		ev.data, ev.err = t.e.attempt(c, o.n, undo, nil)
	}()
}

var errGoexit = errors.New("saga: the body called runtime.Goexit")

// attempt passes the step's gate, then runs the body under its policy and timeout.
func (e *Engine) attempt(c *Ctx, n *node, undo bool, tx *Tx) ([]byte, error) {
	o := &n.act
	if undo {
		o = &n.back
	}
	for _, g := range []*gate{e.gates[n.name], e.gates[c.ref.Def+"/"+n.name]} {
		if g == nil || undo {
			continue
		}
		leave, err := g.enter(c)
		if err != nil {
			return nil, NoEffect(err) // it ended while waiting
		}
		defer leave()
	}
	ctx, cancel := context.WithTimeoutCause(c, o.Timeout, errTimeout)
	defer cancel()
	c.tx = tx
	through := o.through
	switch {
	case e.around == nil:
	case through == nil:
		through = e.around
	default:
		through = backstay.Chain(e.around, through)
	}
	if through == nil {
		return n.call(c.with(ctx), undo)
	}
	return backstay.Do(ctx, through, func(ctx context.Context) ([]byte, error) {
		return n.call(c.with(ctx), undo)
	}, backstay.Named(c.ref.Def+"/"+n.static))
}

var errTimeout = fmt.Errorf("saga: the step's timeout passed: %w", context.DeadlineExceeded)

// call runs the body and turns a panic into an error.
func (n *node) call(c *Ctx, undo bool) (data []byte, err error) {
	defer func() {
		switch p := recover().(type) {
		case nil:
		case *misuse:
			err = p.err
		default:
			err = &panicError{p, debug.Stack()}
		}
	}()
	if undo {
		return nil, n.undo(c)
	}
	data, err = n.action(c)
	if err != nil {
		return nil, err
	}
	return data, n.verify(c.def, data)
}

// verify decodes what the run itself is going to decode, so that a broken codec parks a step and not the engine.
func (n *node) verify(d *definition, data []byte) error {
	switch n.kind {
	case kindIf:
		return d.decode("choice of "+n.static, data, new(bool))
	case kindEach:
		return d.decode("list of "+n.static, data, new([][]byte))
	}
	return nil
}

func (g *gate) enter(ctx context.Context) (leave func(), err error) {
	leave = func() {}
	if g.slots != nil {
		select {
		case g.slots <- struct{}{}:
			leave = func() { <-g.slots }
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	if g.rate != nil {
		if err := g.rate.Wait(ctx); err != nil {
			leave()
			return nil, err
		}
	}
	return leave, nil
}

// end takes the end of a body into the log.
func (t *task) end(ev ended) {
	o := ev.o
	o.running = false
	delete(t.bodies, o)
	if cause := context.Cause(t.life); cause != nil {
		return // the next owner repeats it
	}
	t.observeBody(o, ev)
	if ev.err == nil {
		e := Entry{Event: EventDone, Step: o.path, Op: Action, Attempt: o.attempt, Data: ev.data}
		if ev.undo {
			e.Op, e.Data = Undo, nil
		}
		t.add(e)
		return
	}
	t.failed(o, ev.undo, ev.err, judge(ev.err, ev.taken <= 1))
}

// failed takes a failed attempt into the log.
func (t *task) failed(o *op, undo bool, err error, v verdict) {
	note := t.r.def.note(err.Error())
	if undo {
		e := t.r.undoFailure(o, v, note)
		if e.Event == EventUndoFailed {
			t.stopped = err
		}
		t.add(e)
		return
	}
	e := t.r.actionFailed(o, v, note, t.e.now())
	switch e.Event {
	case EventFailed:
		t.turn(err)
	case EventParked:
		t.stopped = err
	}
	t.add(e)
}

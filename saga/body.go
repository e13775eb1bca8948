package saga

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"time"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/internal/deadline"
)

// start begins the bodies whose intents are durable and whose time has come, and reports how long
// until the next event in time: due, or a held repetition; 0 for none. A body that is to run alone is left to
// runHere.
func (t *task) start(due time.Time) time.Duration {
	now := t.e.now()
	later, ready := t.begin[:0], t.ready[:0]
	tx := false
	for _, o := range t.begin {
		switch {
		case o.due.After(now):
			due = earlier(due, o.due)
			later = append(later, o)
		case o.transactional():
			tx = true
			later = append(later, o)
		default:
			ready = append(ready, o)
		}
	}
	t.begin, t.ready = later, ready
	if len(ready) == 1 && len(t.bodies) == 0 && !tx {
		t.here = ready[0]
	} else {
		for _, o := range ready {
			t.spawn(o)
		}
	}
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
	a := t.attempt(o)
	go a.run(func(ev ended) { t.events <- ev })
}

// attempt is one attempt of a body.
type attempt struct {
	t      *task
	o      *op
	undo   bool
	c      *Ctx
	cancel context.CancelCauseFunc
}

// attempt prepares one.
func (t *task) attempt(o *op) attempt {
	ctx, cancel := context.WithCancelCause(t.life)
	undo := o.undoing()
	c := t.body(ctx, o, undo)
	o.running = true
	o.cancel = cancel
	t.bodies = append(t.bodies, o)
	return attempt{t, o, undo, c, cancel}
}

// run calls the body and reports its end, also when the body calls runtime.Goexit.
func (a *attempt) run(report func(ended)) {
	ev := ended{o: a.o, undo: a.undo}
	defer func() {
		ev.clean = a.c.clean()
		a.cancel(nil)
		report(ev)
	}()
	ev.err = errGoexit
	ev.data, ev.err = a.t.e.attempt(a.c, a.o.n, a.undo, nil)
}

// runHere runs the only body on the driver's own goroutine, which saves two hand-overs a step. Should there be
// something else to do meanwhile (mail, a deadline), a new goroutine takes the driving over and this one is left
// with the body: then ours is false, and the body's end goes to the new driver as an event.
func (t *task) runHere(o *op, wait time.Duration) (ev ended, ours bool) {
	t.here = nil
	a := t.attempt(o)
	t.away.Store(true)
	select {
	case <-t.wakes: // it came before away was set
		t.nudge()
	default:
	}
	if wait > 0 {
		timer := time.AfterFunc(wait, t.takeOver)
		defer timer.Stop()
	}
	a.run(func(end ended) {
		ev, ours = end, t.away.CompareAndSwap(true, false)
		switch {
		case !ours:
			t.events <- end
		case end.err == errGoexit: // this goroutine is about to end
			go func() { t.end(end); t.goOn(t.nextRound()) }()
		}
	})
	return ev, ours
}

// takeOver goes on driving on a new goroutine if the driver is in a body. Any goroutine.
func (t *task) takeOver() {
	if t.away.CompareAndSwap(true, false) {
		go func() { t.goOn(t.nextRound()) }()
	}
}

var errGoexit = errors.New("saga: the body called runtime.Goexit")

// attempt passes the step's gate, then runs the body under its policy and timeout.
func (e *Engine) attempt(c *Ctx, n *node, undo bool, tx *Tx) (data []byte, err error) {
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
	limit := deadline.New(c, o.Timeout, o.limit)
	defer limit.Cancel()
	c.tx = tx
	ctx := context.Context(limit)
	if e.tel.wanted(ctx, c) {
		var end func(error)
		ctx, end = e.tel.step(ctx, c)
		err = errGoexit
		defer func() { end(err) }()
	}
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

// ended takes a body off the list of those at work.
func (t *task) ended(ev ended) {
	ev.o.running, ev.o.cancel = false, nil
	i := slices.Index(t.bodies, ev.o)
	t.bodies = slices.Delete(t.bodies, i, i+1)
}

// end takes the end of a body into the log.
func (t *task) end(ev ended) {
	o := ev.o
	t.ended(ev)
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
	t.failed(o, ev.undo, ev.err, judge(ev.err, ev.clean))
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

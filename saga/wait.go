package saga

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// waiter is a caller of Wait. Capacity 1: whoever finds it full need not wait, since a waiter that is told to look finds
// in the store what it was to hear.
type waiter chan rest

// rest is how an instance came to rest here, or that it left and the store is to be asked.
type rest struct {
	look bool
	err  *Error
}

func (w waiter) tell(r rest) {
	select {
	case w <- r:
	default:
	}
}

// Wait blocks until the instance is at rest: ended, or parked. It returns nil for a completed
// instance and a *Error for the others; ErrNotFound; or ctx's error. What runs on this engine is
// heard of at once; for the rest the store is asked, at first often, then once per Config.Poll.
func (e *Engine) Wait(ctx context.Context, id string) error {
	w := make(waiter, 1)
	e.mu.Lock()
	e.waiters[id] = append(e.waiters[id], w)
	here := e.live[id] != nil
	e.mu.Unlock()
	defer e.unwait(id, w)
	var timer *time.Timer
	defer func() {
		if timer != nil {
			timer.Stop()
		}
	}()
	for pause := min(20*time.Millisecond, e.cfg.Poll); ; pause = min(2*pause, e.cfg.Poll) {
		var tick <-chan time.Time // nil while it is here: then it will be heard of
		if !here {
			if inst, err := e.Get(ctx, id); err != nil {
				return err
			} else if inst.State.Terminal() || inst.State.Parked() {
				return e.outcome(ctx, inst)
			}
			if timer == nil {
				timer = time.NewTimer(pause)
			} else {
				timer.Reset(pause)
			}
			tick = timer.C
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case r := <-w:
			switch {
			case r.look:
				here = false
			case r.err == nil:
				return nil
			default:
				return r.err
			}
		case <-tick:
			e.mu.Lock()
			here = e.live[id] != nil
			e.mu.Unlock()
		}
	}
}

func (e *Engine) unwait(id string, w waiter) {
	e.mu.Lock()
	defer e.mu.Unlock()
	left := slices.DeleteFunc(e.waiters[id], func(x waiter) bool { return x == w })
	if len(left) == 0 {
		delete(e.waiters, id)
		return
	}
	e.waiters[id] = left
}

// atRest tells those who wait here. The instance leaves the list under the same lock, so that a new waiter
// either is told or asks the store.
func (t *task) atRest(err *Error) {
	e, id := t.e, t.inst.ID
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.live[id] == t {
		delete(e.live, id)
	}
	if err != nil {
		e.remember(err)
	}
	for _, w := range e.waiters[id] {
		w.tell(rest{err: err})
	}
}

// remember keeps the last failures as they were, for a Wait that comes after the end: the log has only
// their texts. Under mu.
func (e *Engine) remember(err *Error) {
	if _, again := e.failures[err.ID]; !again {
		if len(e.oldest) == maxFailures {
			delete(e.failures, e.oldest[0])
			e.oldest = e.oldest[1:]
		}
		e.oldest = append(e.oldest, err.ID)
	}
	e.failures[err.ID] = err
}

const maxFailures = 1000

// recheck makes those who wait here ask the store.
func (e *Engine) recheck(id string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.askAgain(id)
}

// askAgain is recheck with mu held.
func (e *Engine) askAgain(id string) {
	for _, w := range e.waiters[id] {
		w.tell(rest{look: true})
	}
}

// outcome makes the error of an instance that came to rest elsewhere, from its log.
func (e *Engine) outcome(ctx context.Context, inst Instance) error {
	if inst.State == Completed {
		return nil
	}
	e.mu.Lock()
	known := e.failures[inst.ID]
	e.mu.Unlock()
	if known != nil && known.State == inst.State {
		return known
	}
	bare := &Error{ID: inst.ID, Step: inst.Step, State: inst.State}
	d := e.defs[inst.Ref]
	if d == nil {
		return bare
	}
	r := newRun(d, inst.ID, nil)
	for {
		page, err := e.History(ctx, inst.ID, r.seq, 1000)
		if err != nil {
			return err
		}
		for i := range page {
			if err := r.apply(&page[i]); err != nil {
				return bare
			}
		}
		if len(page) < 1000 {
			return r.result(inst.State, nil, nil)
		}
	}
}

func (e *Engine) reader() (Reader, error) {
	r, ok := e.store.(Reader)
	if !ok {
		return nil, fmt.Errorf("%w: reading", ErrUnsupported)
	}
	return r, nil
}

// Get reports one instance, or ErrNotFound.
func (e *Engine) Get(ctx context.Context, id string) (Instance, error) {
	r, err := e.reader()
	if err != nil {
		return Instance{}, err
	}
	return r.Get(ctx, id)
}

// Find reports the instance of a business key, or ErrNotFound.
func (e *Engine) Find(ctx context.Context, tenant, def, key string) (Instance, error) {
	r, err := e.reader()
	if err != nil {
		return Instance{}, err
	}
	return r.Find(ctx, tenant, def, key)
}

// List reports a page of instances in order of creation; the next page begins after the last ID of this one.
func (e *Engine) List(ctx context.Context, f Filter) ([]Instance, error) {
	r, err := e.reader()
	if err != nil {
		return nil, err
	}
	if f.Limit <= 0 {
		f.Limit = 100
	}
	f.Limit = min(f.Limit, 1000)
	return r.List(ctx, f)
}

// Unclaimable is the Filter of live instances that no definition registered here can run: all live ones if none is registered.
func (e *Engine) Unclaimable() Filter { return Filter{Except: append([]Ref{}, e.refs...)} }

// History reports a page of an instance's log, after number after, at most limit entries (0: 100, at most 1,000). Payloads are as
// the codec made them; Text reads a Note.
func (e *Engine) History(ctx context.Context, id string, after int64, limit int) ([]Entry, error) {
	r, err := e.reader()
	if err != nil {
		return nil, err
	}
	if limit <= 0 {
		limit = 100
	}
	return r.History(ctx, id, after, min(limit, 1000))
}

// Text decodes the note of an entry: an error's text or an operator's reason.
func (d *Definition[I]) Text(e Entry) string { return d.d.noteText(e.Note) }

// Health reports what needs a person's attention: ErrUnclaimable with an instance that nobody here
// can run, or the store's error. It costs one query.
func (e *Engine) Health(ctx context.Context) error {
	f := e.Unclaimable()
	f.Limit = 1
	found, err := e.List(ctx, f)
	if err != nil {
		return err
	}
	if len(found) > 0 {
		return fmt.Errorf("%w: for example %s of %s %d", ErrUnclaimable, found[0].ID, found[0].Ref.Def, found[0].Ref.Ver)
	}
	return nil
}

// Retain deletes what ended longer than age ago, with logs, mail and guard rows, in small
// transactions, and reports how many instances it deleted. age must outlast the latest possible repetition of a request, since
// a guard whose row is gone takes a late one for new. It returns early with ctx's error.
func (e *Engine) Retain(ctx context.Context, age time.Duration) (int, error) {
	k, ok := e.store.(Keeper)
	if !ok {
		return 0, fmt.Errorf("%w: deleting", ErrUnsupported)
	}
	for total := 0; ; {
		n, err := k.Retain(ctx, age, 100)
		total += n
		if err != nil || n < 100 {
			return total, err
		}
	}
}

// Erase deletes the finished instance of a business key with everything kept of it: ErrNotFound, or
// ErrBusy while it is live.
func (e *Engine) Erase(ctx context.Context, tenant, def, key string) error {
	k, ok := e.store.(Keeper)
	if !ok {
		return fmt.Errorf("%w: deleting", ErrUnsupported)
	}
	return k.Erase(ctx, tenant, def, key)
}

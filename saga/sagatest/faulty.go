package sagatest

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/backstay-go/backstay/saga"
)

// errCrashed is what a store answers to a process that has crashed.
var errCrashed = errors.New("sagatest: crashed")

// fault is what happens to one write.
type fault uint8

const (
	sound      fault = iota
	dieBefore        // the process dies and the write does not reach the store
	dieAfter         // the write is made and the process dies before it hears
	loseAnswer       // the write is made and the process is told that the connection was lost
	freeze           // the process stops before the write, until resume, and then goes on with it
)

// faulty is one process's connection to a store: it can die, lose answers or go silent. Every process of a test
// has its own.
type faulty struct {
	saga.Store
	// plan decides about a write; nil: all are sound. Called under mu.
	plan func(cps []saga.Checkpoint) fault
	died chan struct{} // closed when the process dies
	cold chan struct{} // closed when the process freezes

	mu     sync.Mutex
	dead   bool
	silent chan struct{} // while not nil, calls wait for it to be closed
	fenced int           // checkpoints refused
	wrote  int           // checkpoints written since it went silent
}

func newFaulty(s saga.Store, plan func([]saga.Checkpoint) fault) *faulty {
	return &faulty{Store: s, plan: plan, died: make(chan struct{}), cold: make(chan struct{})}
}

func (f *faulty) die() {
	if !f.dead {
		f.dead = true
		close(f.died)
	}
}

// kill makes the process die now.
func (f *faulty) kill() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.die()
}

// pause makes every call wait until resume: the process is stopped.
func (f *faulty) pause() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.silent = make(chan struct{})
	f.wrote = 0
}

func (f *faulty) resume() {
	f.mu.Lock()
	defer f.mu.Unlock()
	close(f.silent)
	f.silent = nil
}

// enter waits while silent and fails when dead.
func (f *faulty) enter(ctx context.Context) error {
	f.mu.Lock()
	c, dead := f.silent, f.dead
	f.mu.Unlock()
	if dead {
		return errCrashed
	}
	if c == nil {
		return nil
	}
	select {
	case <-c:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (f *faulty) fate(cps []saga.Checkpoint) fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.dead {
		return dieBefore
	}
	if f.plan == nil {
		return sound
	}
	what := f.plan(cps)
	if what == dieBefore {
		f.die()
	}
	return what
}

// after turns an answer into what the process hears of it.
func (f *faulty) after(what fault) error {
	if what == sound {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if what == dieAfter {
		f.die()
	}
	return errCrashed
}

func (f *faulty) Start(ctx context.Context, batch []saga.NewInstance) ([]saga.Started, error) {
	if err := f.enter(ctx); err != nil {
		return nil, err
	}
	return f.Store.Start(ctx, batch)
}

func (f *faulty) Claim(ctx context.Context, want saga.Claim) ([]saga.Claimed, error) {
	if err := f.enter(ctx); err != nil {
		return nil, err
	}
	return f.Store.Claim(ctx, want)
}

func (f *faulty) Beat(ctx context.Context, b saga.Beat) (saga.Pulse, error) {
	if err := f.enter(ctx); err != nil {
		return saga.Pulse{}, err
	}
	return f.Store.Beat(ctx, b)
}

func (f *faulty) Commit(ctx context.Context, cps []saga.Checkpoint) ([]saga.Committed, error) {
	if err := f.enter(ctx); err != nil {
		return nil, err
	}
	what := f.fate(cps)
	switch what {
	case dieBefore:
		return nil, errCrashed
	case freeze:
		f.pause()
		close(f.cold)
		if err := f.enter(ctx); err != nil {
			return nil, err
		}
		what = sound
	}
	res, err := f.Store.Commit(ctx, cps)
	f.mu.Lock()
	for _, r := range res {
		if r.Err != nil {
			f.fenced++
		} else {
			f.wrote++
		}
	}
	f.mu.Unlock()
	if lost := f.after(what); lost != nil {
		return nil, lost
	}
	return res, err
}

// TxKind and what follows are the store's own abilities, as far as it has them.

func (f *faulty) TxKind() string {
	if tx, ok := f.Store.(saga.Transactor); ok {
		return tx.TxKind()
	}
	return ""
}

func (f *faulty) InTx(ctx context.Context, at saga.Fence, body func(saga.Tx) (saga.Checkpoint, error)) (saga.Committed, error) {
	if err := f.enter(ctx); err != nil {
		return saga.Committed{}, err
	}
	what := sound
	res, err := f.Store.(saga.Transactor).InTx(ctx, at, func(tx saga.Tx) (saga.Checkpoint, error) {
		cp, err := body(tx)
		if err != nil {
			return cp, err
		}
		if what = f.fate([]saga.Checkpoint{cp}); what == dieBefore {
			return cp, errCrashed
		}
		return cp, nil
	})
	if err != nil {
		return res, err
	}
	switch f.after(what) {
	case nil:
		return res, nil
	default:
		if what == loseAnswer { // the store finds it out for itself: see Transactor.InTx
			return res, nil
		}
		return saga.Committed{}, saga.ErrUnknown
	}
}

func (f *faulty) Lock(ctx context.Context, at saga.Fence, resource string) error {
	if err := f.enter(ctx); err != nil {
		return err
	}
	if l, ok := f.Store.(saga.Locker); ok {
		return l.Lock(ctx, at, resource)
	}
	return saga.ErrUnsupported
}

func (f *faulty) Get(ctx context.Context, id string) (saga.Instance, error) {
	return f.Store.(saga.Reader).Get(ctx, id)
}

func (f *faulty) Find(ctx context.Context, tenant, def, key string) (saga.Instance, error) {
	return f.Store.(saga.Reader).Find(ctx, tenant, def, key)
}

func (f *faulty) List(ctx context.Context, q saga.Filter) ([]saga.Instance, error) {
	return f.Store.(saga.Reader).List(ctx, q)
}

func (f *faulty) History(ctx context.Context, id string, after int64, limit int) ([]saga.Entry, error) {
	return f.Store.(saga.Reader).History(ctx, id, after, limit)
}

func (f *faulty) Deliver(ctx context.Context, m saga.Mail) (saga.Delivered, error) {
	if err := f.enter(ctx); err != nil {
		return saga.Delivered{}, err
	}
	return f.Store.(saga.Mailbox).Deliver(ctx, m)
}

func (f *faulty) Mail(ctx context.Context, id string) ([]saga.Mail, int64, error) {
	if err := f.enter(ctx); err != nil {
		return nil, 0, err
	}
	return f.Store.(saga.Mailbox).Mail(ctx, id)
}

func (f *faulty) Register(ctx context.Context, def saga.Ref, hash string, shape []byte) error {
	return f.Store.(saga.Keeper).Register(ctx, def, hash, shape)
}

func (f *faulty) Retain(ctx context.Context, age time.Duration, limit int) (int, error) {
	return f.Store.(saga.Keeper).Retain(ctx, age, limit)
}

func (f *faulty) Erase(ctx context.Context, tenant, def, key string) error {
	return f.Store.(saga.Keeper).Erase(ctx, tenant, def, key)
}

// process is an engine on a connection of its own.
type process struct {
	*saga.Engine
	conn *faulty
	stop context.CancelFunc
	done chan error
}

// spawn runs an engine until it is killed or stopped.
func spawn(ctx context.Context, s saga.Store, plan func([]saga.Checkpoint) fault, opts ...saga.Option) *process {
	p := &process{conn: newFaulty(s, plan), done: make(chan error, 1)}
	p.Engine = saga.New(p.conn, opts...)
	run, stop := context.WithCancel(ctx)
	p.stop = stop
	go func() {
		select {
		case <-p.conn.died:
			stop() // nothing reaches the store any more, so this is no graceful end
		case <-run.Done():
		}
	}()
	go func() { p.done <- p.Run(run) }()
	return p
}

// end stops the process and waits for it.
func (p *process) end() error {
	p.stop()
	return <-p.done
}

// crash kills the process and waits for what is left of its goroutines.
func (p *process) crash() {
	p.conn.kill()
	p.stop()
	<-p.done
}

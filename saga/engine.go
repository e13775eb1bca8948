package saga

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/internal/deadline"
)

// Engine runs sagas from a store. Several engines, in one process or in many, share a store. All
// methods are safe for concurrent use; Signal, Cancel, the operator's verbs and the queries work
// whether or not this engine runs.
type Engine struct {
	store             Store
	locker            Locker
	patience          *deadline.Limit // of calls of the store: a lease
	tx                Transactor
	cfg               Config
	defs              map[Ref]*definition
	refs              []Ref
	gates             map[string]*gate
	around            *backstay.Pipeline // nil: none
	tel               *instruments
	faults            []error // while options are applied
	wake              chan struct{}
	soon              atomic.Bool // look again in a moment, a few times
	writes            chan *write
	starts            chan *start
	writers, starters turns

	mu      sync.Mutex
	running atomic.Bool     // written under mu
	started bool            // guarded by mu: Run was called
	node    string          // guarded by mu: id of this life of the lease
	life    context.Context // guarded by mu: ends when that life does
	end     context.CancelCauseFunc
	live    map[string]*task    // guarded by mu: by instance
	pending int                 // guarded by mu: starts that will become tasks
	short   bool                // guarded by mu: somebody found no room
	waiters map[string][]waiter // guarded by mu: by instance

	failures map[string]*Error // guarded by mu: how instances came to rest here
	oldest   []string          // guarded by mu: their ids, oldest first
	clock    atomic.Pointer[clock]
	calls    atomic.Pointer[deadline.Ctx] // inside life: calls of the store register with it at less cost
	tasks    sync.WaitGroup
	crew     crew
}

// New returns an engine for what Register names. It panics when an option is wrong. Nothing runs,
// and the store is not touched, before Run.
func New(store Store, opts ...Option) *Engine {
	e := &Engine{
		store: store, defs: map[Ref]*definition{}, gates: map[string]*gate{}, live: map[string]*task{},
		waiters: map[string][]waiter{}, failures: map[string]*Error{}, wake: make(chan struct{}, 1), tel: newInstruments(),
	}
	for _, o := range opts {
		o.apply(e)
	}
	if err := errors.Join(append(e.faults, e.cfg.Validate())...); err != nil {
		panic(err)
	}
	e.cfg = e.cfg.withDefaults()
	e.writes = make(chan *write, e.cfg.Batch)
	e.starts = make(chan *start, e.cfg.Batch)
	e.writers, e.starters = newTurns(e.cfg.Writers), newTurns(1)
	e.patience = &deadline.Limit{Cause: context.DeadlineExceeded, Shared: true}
	e.clock.Store(&clock{time.Now(), time.Now()})
	e.locker, _ = store.(Locker)
	e.tx, _ = store.(Transactor)
	return e
}

// Run works until ctx ends, then lets running bodies finish (Config.Grace), hands its instances back and
// returns nil once nothing of it runs any more. Before that it registers the definitions: it returns
// ErrShape when a version is registered with another graph, ErrDefinition when a transactional step
// is of another kind than the store, or the store's error. An engine runs once.
func (e *Engine) Run(ctx context.Context) error {
	if err := e.register(ctx); err != nil {
		if ctx.Err() != nil {
			return nil // stopped before it began
		}
		return err
	}
	hard, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stop(nil)
	e.mu.Lock()
	if e.started {
		e.mu.Unlock()
		return errors.New("saga: the engine has run already")
	}
	e.started = true
	e.mu.Unlock()
	valid, err := e.join(ctx, hard)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	e.running.Store(true)
	var loops, writers sync.WaitGroup
	for range e.cfg.Writers {
		writers.Go(func() { e.write(hard) })
	}
	writers.Go(func() { e.startAll(hard) })
	loops.Go(func() { e.poll(ctx) })
	loops.Go(func() { e.censusLoop(ctx) })
	defer e.watch()()
	if listen := e.listener(); listen != nil {
		loops.Go(func() { e.listen(ctx, listen) })
	}
	beats, silence := context.WithCancel(hard)
	var beating sync.WaitGroup
	beating.Go(func() { e.beat(beats, hard, valid) })

	<-ctx.Done()
	e.mu.Lock()
	e.running.Store(false)
	for _, t := range e.live {
		t.nudge()
	}
	e.mu.Unlock()
	loops.Wait()
	grace := time.AfterFunc(e.cfg.Grace, func() { stop(ErrStopped) })
	e.tasks.Wait() // a body that ignores its context holds Run up: it is not abandoned
	e.crew.end()
	grace.Stop()
	silence()
	beating.Wait()
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), e.cfg.Lease)
	defer cancel()
	_, _ = e.store.Beat(last, Beat{Node: e.nodeID()}) // otherwise the lease runs out by itself
	stop(nil)
	writers.Wait()
	return nil
}

// register checks the definitions against the store and keeps their shapes there.
func (e *Engine) register(ctx context.Context) error {
	for _, ref := range e.refs {
		d := e.defs[ref]
		for _, n := range d.nodes {
			if n.txKind != "" && (e.tx == nil || e.tx.TxKind() != n.txKind) {
				return fmt.Errorf("%w %q: step %q runs in a transaction of kind %q, which this store does not offer",
					ErrDefinition, ref.Def, n.static, n.txKind)
			}
		}
		if k, ok := e.store.(Keeper); ok {
			hash, shape := d.hash()
			if err := k.Register(ctx, ref, hash, shape); err != nil {
				return fmt.Errorf("saga: register %s %d: %w", ref.Def, ref.Ver, err)
			}
		}
	}
	return nil
}

// Wake makes the engine look for due instances now, as after the commit of a transaction with a Start.
func (e *Engine) Wake() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// claim takes what there is room for and reports whether there may be more.
func (e *Engine) claim(ctx context.Context) bool {
	e.mu.Lock()
	room := min(e.cfg.InFlight-len(e.live)-e.pending, e.cfg.Batch)
	node, life, running := e.node, e.life, e.running.Load()
	e.short = e.short || room <= 0
	e.mu.Unlock()
	if room <= 0 || !running || node == "" || len(e.refs) == 0 {
		return false
	}
	call := e.patient(ctx)
	defer call.Cancel()
	got, err := e.store.Claim(call, Claim{Node: node, Refs: e.refs, Max: room})
	if err != nil {
		return false // the next poll asks again
	}
	for i := range got {
		e.adopt(life, &got[i])
	}
	return len(got) == room
}

// patient bounds a call of the store: a hung connection must not hold up whoever waits for it.
func (e *Engine) patient(ctx context.Context) *deadline.Ctx {
	if c := e.calls.Load(); c != nil && c.Outer() == ctx {
		ctx = c
	}
	return deadline.New(ctx, e.cfg.Lease, e.patience)
}

// adopt begins to drive an instance that is ours by now.
func (e *Engine) adopt(life context.Context, c *Claimed) {
	e.setClock(c.Now)
	t := e.newTask(life, c.Instance, c.Epoch)
	if t == nil {
		return
	}
	e.crew.do(func() { t.resume(c) })
}

// clock is what the store's clock said last, and when that was here.
type clock struct{ store, local time.Time }

// now estimates the store's clock by this process's monotonic one.
func (e *Engine) now() time.Time {
	c := e.clock.Load()
	return c.store.Add(time.Since(c.local))
}

func (e *Engine) setClock(now time.Time) {
	if !now.IsZero() {
		e.clock.Store(&clock{now, time.Now()})
	}
}

func (e *Engine) nodeID() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.node
}

package outbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/backstay-go/backstay"
)

// ErrRunning is what Run returns when the relay is running already.
var ErrRunning = errors.New("outbox: the relay is running already")

// ErrDrain is what Run and Shutdown return when the relay ended before everything was confirmed, deleted and given back: the time to drain was over, or the
// store did not take the leases back. What was not deleted will be published again by another relay, when the leases have run out.
var ErrDrain = errors.New("outbox: relay stopped before it had drained")

// Relay publishes what a [Source] holds: at least once, the messages of one key in order. Any number of relays, in any number of processes, share the
// partitions between them. A Relay is safe for concurrent use; it does nothing until Run.
type Relay struct {
	src      Source
	pub      Publisher
	cfg      RelayConfig
	log      *slog.Logger
	pipeline *backstay.Pipeline
	board    *board
	marks    marks // used by the reading loop, under the board's mutex
	writers  writers
	tele     *instruments
	gauges   gauging

	running  atomic.Bool
	stop     chan struct{} // closed by Shutdown
	stopOnce sync.Once
	done     chan struct{} // closed when a Run has ended
	undone   error         // the ErrDrain of that Run; written before done is closed
	id       string        // of this run

	wake   signal       // the reading loop: something may be there, or there is room again
	kick   signal       // the publishing loop: something may be ready
	flush  signal       // the settling loop: something is finished
	renew  signal       // the leasing loop: look now
	urgent atomic.Bool  // look at once
	full   atomic.Bool  // a batch waits to be deleted
	hot    atomic.Int64 // poll each millisecond until then, in ns since starts
	starts time.Time
	state  leaseState

	unrenewed int // renewals that failed in a row; belongs to the leasing loop
}

// signal wakes one loop; many signals before it looks are one.
type signal chan struct{}

func (s signal) raise() {
	select {
	case s <- struct{}{}:
	default:
	}
}

// NewRelay returns a relay. It panics with the config's Validate error.
func NewRelay(src Source, pub Publisher, cfg RelayConfig) *Relay {
	if err := cfg.Validate(); err != nil {
		panic(err)
	}
	cfg = cfg.withDefaults()
	runs := false
	if o, ok := pub.(KeyOrderer); ok {
		runs = o.KeepsKeyOrder()
	}
	r := &Relay{
		src: src, pub: pub, cfg: cfg,
		log:   cfg.Log,
		board: newBoard(rules{runs: runs, maxAttempts: cfg.MaxAttempts, poison: cfg.Poison, backoff: cfg.backoff}),
		marks: marks{lag: cfg.Lag}, starts: time.Now(),
		stop: make(chan struct{}), done: make(chan struct{}),
		wake: make(signal, 1), kick: make(signal, 1), flush: make(signal, 1), renew: make(signal, 1),
	}
	if cfg.Policy != nil {
		r.pipeline = backstay.Chain(cfg.Policy)
	}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	if cfg.Name != "" {
		r.log = r.log.With("relay", cfg.Name)
	}
	return r
}

// Run publishes until ctx is over or [Relay.Shutdown] is called, then drains: it starts nothing new, waits for what is with the publisher, deletes what was
// confirmed and gives its partitions back. It returns nil then, [ErrDrain] when DrainTimeout was too short, or at
// once the error of a store or publisher that cannot work. Trouble that may pass is logged and tried again, a database that is away at the start, or does not
// answer, included. A relay runs once.
func (r *Relay) Run(ctx context.Context) error {
	if !r.running.CompareAndSwap(false, true) {
		return ErrRunning
	}
	defer close(r.done)
	r.state.set(func(s *leaseState) { s.began = time.Now() })
	stopping, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { // ends with stopping
		select {
		case <-r.stop:
			cancel()
		case <-stopping.Done():
		}
	}()
	if err := r.check(stopping); err != nil || stopping.Err() != nil {
		if stopping.Err() != nil {
			return nil // nothing was begun, and a check that was cut short has nothing to say
		}
		return err
	}
	r.id = NewID()
	r.tele = newInstruments(r)
	defer r.tele.close()

	// work outlives ctx, so that what was begun can be finished; stopping does not.
	work, kill := context.WithCancel(context.WithoutCancel(ctx))
	defer kill()
	r.state.set(func(s *leaseState) { s.began, s.kill = time.Now(), kill })
	unhook := context.AfterFunc(work, cancel)
	defer unhook()
	r.undone = r.loops(stopping, work, kill)
	return r.undone
}

// check asks store and publisher whether they can work. One that does not answer is away just now.
func (r *Relay) check(ctx context.Context) error {
	if c, ok := r.src.(SourceChecker); ok {
		if err := r.checkSource(ctx, c); err != nil {
			return fmt.Errorf("outbox: store: %w", err)
		}
	}
	if c, ok := r.pub.(Checker); ok && ctx.Err() == nil {
		call, cancel := r.storeCall(ctx)
		defer cancel()
		if err := c.Check(call, r.cfg.Lease+r.cfg.MaxBackoff); errors.Is(err, ErrUnavailable) || err != nil && call.Err() != nil {
			r.log.WarnContext(ctx, "outbox: publisher check", "err", err)
		} else if err != nil {
			return fmt.Errorf("outbox: publisher: %w", err)
		}
	}
	return nil
}

// checkSource calls Check until it finds the store there, or the relay is to stop: a service that starts while its database is away goes on when it comes back.
func (r *Relay) checkSource(ctx context.Context, c SourceChecker) error {
	for failures := 1; ctx.Err() == nil; failures++ {
		call, cancel := r.storeCall(ctx)
		err := c.Check(call)
		late := call.Err() != nil
		cancel()
		if err == nil || !late && !errors.Is(err, ErrSourceUnavailable) {
			return err
		}
		r.state.set(func(s *leaseState) { s.err = err })
		if ctx.Err() == nil {
			r.log.WarnContext(ctx, "outbox: store check", "err", err)
		}
		timer := time.NewTimer(r.cfg.backoff(failures, err))
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
	}
	return nil
}

// loops runs the relay's goroutines and ends them in order: first what brings work in, then what finishes it, the leases last.
func (r *Relay) loops(stopping, work context.Context, kill context.CancelFunc) error {
	var inward, outward, leasing sync.WaitGroup
	leases, endLeases := context.WithCancel(work)
	defer endLeases()
	settling, endSettling := context.WithCancel(work)
	defer endSettling()
	leasing.Go(func() { r.leaseLoop(leases) })
	outward.Go(func() { r.settleLoop(settling, work) })
	inward.Go(func() { r.readLoop(stopping, work) })
	inward.Go(func() { r.publishLoop(stopping, work) })
	inward.Go(func() { r.tendLoop(stopping) })
	inward.Go(func() { r.listenLoop(stopping) })

	<-stopping.Done()
	limit := time.AfterFunc(r.cfg.DrainTimeout, kill)
	defer limit.Stop()
	inward.Wait() // nothing is with the publisher any more
	endSettling()
	outward.Wait() // everything confirmed is deleted
	endLeases()
	leasing.Wait()
	err := r.leave(work)
	switch {
	case work.Err() != nil:
		return ErrDrain
	case err != nil:
		return fmt.Errorf("%w: leases not given back: %w", ErrDrain, err)
	}
	return nil
}

// Shutdown ends Run as the end of its context would, and waits until it has returned; if with [ErrDrain], that is returned here, too. When ctx is over first, Run's
// database calls are cut short and Shutdown returns [ErrDrain]. Without a Run it returns nil at once, and a later Run ends at once.
func (r *Relay) Shutdown(ctx context.Context) error {
	r.stopOnce.Do(func() { close(r.stop) })
	if !r.running.Load() {
		return nil
	}
	select {
	case <-r.done:
		return r.undone
	case <-ctx.Done():
		r.state.get(func(s *leaseState) {
			if s.kill != nil {
				s.kill()
			}
		})
		return fmt.Errorf("%w: %w", ErrDrain, backstay.ContextErr(ctx))
	}
}

// look makes the relay read at once.
func (r *Relay) look() {
	r.urgent.Store(true)
	r.wake.raise()
}

// Hint tells the relay that a message has been committed, or (committed false) is about to be. Stores with hints of their own need no call.
func (r *Relay) Hint(committed bool) {
	r.hot.Store(int64(time.Since(r.starts) + hotFor))
	if committed {
		r.urgent.Store(true)
	}
	r.wake.raise()
}

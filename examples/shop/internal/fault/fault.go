// Package fault breaks a service on purpose, at its front door: the listener that connections come in by, and a wrapper around each call.
package fault

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"
)

// Set is what is wrong with a service. The zero Set is nothing. Its fields are those of page.Chaos.
type Set struct {
	Down      bool          `json:"down"`      // refuses connections
	Hang      bool          `json:"hang"`      // accepts, and never answers
	Errors    float64       `json:"errors"`    // share of calls that fail before they have had an effect
	Latency   time.Duration `json:"latency"`   // added to every call
	LoseReply float64       `json:"loseReply"` // share of calls whose effect happens and whose answer is lost
	Flap      bool          `json:"flap"`      // down and up, two seconds each
}

// Any reports whether anything is wrong.
func (s Set) Any() bool { return s != Set{} }

// flapEvery is how long a flapping service is down, and then up.
const flapEvery = 2 * time.Second

// Injector holds the faults of one service. Make one with [New]; Run makes it flap.
type Injector struct {
	mu      sync.Mutex
	set     Set
	downNow bool          // Down, or Flap in its bad half
	changed chan struct{} // closed and replaced at each change
	rng     *rand.Rand
}

// New returns an injector without faults.
func New(seed uint64) *Injector {
	return &Injector{changed: make(chan struct{}), rng: rand.New(rand.NewPCG(seed, 0xfa17))}
}

// Get returns what is wrong.
func (in *Injector) Get() Set {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.set
}

// Set replaces what is wrong.
func (in *Injector) Set(s Set) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.set, in.downNow = s, s.Down || s.Flap
	in.announce()
}

// announce wakes whoever waits for a change; with mu held.
func (in *Injector) announce() {
	close(in.changed)
	in.changed = make(chan struct{})
}

// state returns the set, whether connections are refused now, and a channel that closes at the next change.
func (in *Injector) state() (Set, bool, <-chan struct{}) {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.set, in.downNow, in.changed
}

// Run flips the flapping state until ctx is over.
func (in *Injector) Run(ctx context.Context) {
	tick := time.NewTicker(flapEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		in.mu.Lock()
		if in.set.Flap && !in.set.Down {
			in.downNow = !in.downNow
			in.announce()
		}
		in.mu.Unlock()
	}
}

// Up waits until the service is neither down nor hanging.
func (in *Injector) Up(ctx context.Context) error {
	for {
		set, down, changed := in.state()
		if !down && !set.Hang {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

// ErrInjected is how a call fails by [Set.Errors].
var ErrInjected = errors.New("injected: the service is out of order")

// Before is what happens to a call, or a message, before its effect: it waits while the service hangs, then for the latency, then may fail.
func (in *Injector) Before(ctx context.Context) error {
	for {
		set, _, changed := in.state()
		if !set.Hang {
			break
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
	set, failed := in.draw(func(s Set) float64 { return s.Errors })
	if set.Latency > 0 {
		if err := sleep(ctx, set.Latency); err != nil {
			return err
		}
	}
	if failed {
		return ErrInjected
	}
	return nil
}

// Lost says whether the answer of a call that has had its effect gets lost.
func (in *Injector) Lost() bool {
	_, lost := in.draw(func(s Set) float64 { return s.LoseReply })
	return lost
}

func (in *Injector) draw(share func(Set) float64) (Set, bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	p := share(in.set)
	return in.set, p > 0 && in.rng.Float64() < p
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

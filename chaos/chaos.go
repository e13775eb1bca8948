// Package chaos injects faults into calls, to see whether the policies around them hold: in tests, in rehearsals, and, for a small share
// of the calls, in production.
//
// It injects failures, lost answers (the call was made, and its success is thrown away), latency, outcomes of your choice and behaviour of your
// choice, each for a share of the calls. It is off until it is switched on, and says in the pipeline's String when it is on.
//
//	Events: EventChaos for each injection: Reason "fault", "lost", "latency", "outcome", "behavior".
//	Order:  innermost, in place of what fails in earnest.
//
// When not to use it: to find out what the network does to bytes. It acts on calls; a proxy acts on connections.
package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/backstay-go/backstay"
)

// ErrInjected matches every injected failure. For a fault the call was not made; for a lost answer it was.
var ErrInjected = errors.New("injected by chaos")

// injected is a failure of the user's that matches ErrInjected too.
type injected struct{ error }

func (e injected) Unwrap() []error { return []error{e.error, ErrInjected} }

// Chaos is a policy that injects faults. All methods are safe for concurrent use.
type Chaos struct {
	config atomic.Pointer[Config]
	hits   atomic.Int64

	mu  sync.Mutex
	rng *rand.Rand // guarded by mu
}

// New returns a Chaos. It panics when the config is not valid.
func New(c Config) *Chaos {
	ch := &Chaos{}
	if err := ch.Apply(c); err != nil {
		panic(err)
	}
	return ch
}

// Apply changes what is injected, and On. The sequence of draws begins anew.
func (c *Chaos) Apply(config Config) error {
	if err := config.Validate(); err != nil {
		return err
	}
	if config.Fault == nil {
		config.Fault = ErrInjected
	} else if !errors.Is(config.Fault, ErrInjected) {
		config.Fault = injected{config.Fault}
	}
	seed := config.Seed
	if seed == 0 {
		seed = rand.Uint64()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rng = rand.New(rand.NewPCG(seed, seed))
	c.config.Store(&config)
	return nil
}

// Switch turns the injection on or off, and reports whether it was on.
func (c *Chaos) Switch(on bool) (was bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	config := *c.config.Load()
	was, config.On = config.On, on
	c.config.Store(&config)
	return was
}

// On reports whether the injection is on.
func (c *Chaos) On() bool { return c.config.Load().On }

// Hits returns how many injections there have been.
func (c *Chaos) Hits() int64 { return c.hits.Load() }

// Wrap implements backstay.Policy. A nil Chaos wraps to next itself.
func (c *Chaos) Wrap(next backstay.Handler) backstay.Handler {
	if c == nil {
		return next
	}
	return func(ctx context.Context, call *backstay.Call) backstay.Outcome { return c.Around(ctx, call, next) }
}

// Around implements backstay.Around.
func (c *Chaos) Around(ctx context.Context, call *backstay.Call, next backstay.Handler) backstay.Outcome {
	config := c.config.Load()
	if !config.On || config.Match != nil && !config.Match(call) {
		return next(ctx, call)
	}
	hit := c.draw(config)
	if hit.behavior {
		c.injected(ctx, call, config, "behavior", 0)
		if err := config.Behavior(ctx, call); err != nil {
			return backstay.Outcome{Err: err}.Settled()
		}
	}
	if hit.latency > 0 {
		c.injected(ctx, call, config, "latency", hit.latency)
		if !sleep(ctx, hit.latency) {
			return backstay.Outcome{Err: backstay.ContextErr(ctx), Class: backstay.Failure}
		}
	}
	switch {
	case hit.outcome:
		c.injected(ctx, call, config, "outcome", 0)
		return config.Outcome(ctx, call).Settled()
	case hit.fault:
		c.injected(ctx, call, config, "fault", 0)
		return backstay.Outcome{Err: config.Fault, Class: backstay.Failure}
	}
	out := next(ctx, call)
	if hit.lost && out.Class == backstay.Success {
		c.injected(ctx, call, config, "lost", 0)
		out.Release()
		return backstay.Outcome{Err: config.Fault, Class: backstay.Failure, Sent: out.Sent}
	}
	return out
}

// hit is what happens to one call.
type hit struct {
	behavior, outcome, fault, lost bool
	latency                        time.Duration
}

// draw draws for one call. It always draws the same number of times, so that a rate that is changed does not shift what the others hit.
func (c *Chaos) draw(config *Config) hit {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := hit{
		behavior: c.rng.Float64() < config.BehaviorRate,
		outcome:  c.rng.Float64() < config.OutcomeRate,
		fault:    c.rng.Float64() < config.FaultRate,
		lost:     c.rng.Float64() < config.LostRate,
	}
	late, more := c.rng.Float64() < config.LatencyRate, c.rng.Float64()
	if late {
		h.latency = config.Latency + time.Duration(more*float64(config.Jitter))
	}
	return h
}

func (c *Chaos) injected(ctx context.Context, call *backstay.Call, config *Config, reason string, wait time.Duration) {
	c.hits.Add(1)
	call.Emit(ctx, config.Observer, backstay.Event{Kind: backstay.EventChaos, Policy: "chaos", Name: config.Name, Reason: reason, Wait: wait})
}

// sleep waits for d, and reports false when the context ended before.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// Describe implements backstay.Describer. It is loud when the injection is on.
func (c *Chaos) Describe() backstay.Description {
	config := c.config.Load()
	d := backstay.Description{Kind: "chaos", Name: config.Name, Detail: "off"}
	if !config.On {
		return d
	}
	var parts []string
	add := func(rate float64, what string) {
		if rate > 0 {
			parts = append(parts, fmt.Sprintf("%.3g%% %s", 100*rate, what))
		}
	}
	add(config.FaultRate, "FAULTS")
	add(config.LostRate, "LOST ANSWERS")
	add(config.LatencyRate, fmt.Sprintf("LATE BY %v", config.Latency+config.Jitter))
	add(config.OutcomeRate, "OTHER OUTCOMES")
	add(config.BehaviorRate, "BEHAVIOR")
	if len(parts) == 0 {
		parts = append(parts, "nothing")
	}
	d.Detail = "ON, INJECTS " + strings.Join(parts, ", ")
	return d
}

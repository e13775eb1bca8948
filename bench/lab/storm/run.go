package storm

import (
	"context"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// Target makes one attempt at a host: nil, errBusy, errAttempt, or why ctx ended.
type Target func(ctx context.Context, host int) error

// Call makes one call to a host as a strategy does, and reports whether it was answered well. ctx ends with the run, long after an answer could be good.
type Call func(ctx context.Context, host int) bool

// Strategy is a way to call.
type Strategy struct {
	Name string
	// New makes a client of a target with so many hosts. stop, which may be nil, ends what it has started.
	New func(target Target, hosts int) (call Call, stop func())
}

// good is how soon a good answer has to come.
const good = 3 * time.Second

// lab is one run.
type lab struct {
	Scenario
	strategy Strategy
	ctx      context.Context //nolint:containedctx // of the run; each handler's context comes from it
	stops    []func()
	handlers sync.WaitGroup
	mu       sync.Mutex // guards rng
	rng      *rand.Rand
}

func (l *lab) pick(n int) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.rng.IntN(n)
}

// clients makes as many clients of the target as the scenario has, and returns a call through one of them at random.
func (l *lab) clients(target Target, hosts int) Call {
	calls := make([]Call, l.Clients)
	for i := range calls {
		var stop func()
		if calls[i], stop = l.strategy.New(target, hosts); stop != nil {
			l.stops = append(l.stops, stop)
		}
	}
	return func(ctx context.Context, host int) bool { return calls[l.pick(len(calls))](ctx, host) }
}

// hop is a service whose handler makes the call next, as a target: it works on when its caller has gone, for as long as the deadline lets it that
// it was handed, if any.
func (l *lab) hop(next Call) Target {
	return func(ctx context.Context, host int) error {
		timer := time.NewTimer(l.Attempt)
		defer timer.Stop()
		inner, cancel := context.WithCancel(l.ctx)
		if l.Deadline {
			deadline := time.Now().Add(l.Attempt)
			if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
				deadline = d
			}
			inner, cancel = context.WithDeadline(l.ctx, deadline)
		}
		done := make(chan error, 1)
		l.handlers.Go(func() {
			defer cancel()
			if next(inner, host) {
				done <- nil
			} else {
				done <- errBusy
			}
		})
		select {
		case err := <-done:
			return err
		case <-timer.C:
			return errAttempt
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// run runs the scenario once. It is called inside a testing/synctest bubble.
func run(s Scenario, strategy Strategy, seed uint64) Result {
	arrivals := rand.New(rand.NewPCG(seed, 1))
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	l := &lab{Scenario: s, strategy: strategy, ctx: ctx, rng: rand.New(rand.NewPCG(seed, 2))}
	result := make(Result, int(s.Run/time.Second))
	var mu sync.Mutex // guards result
	server := s.start()
	at := func() int { return int(time.Since(server.start) / time.Second) }
	hosts := max(s.Replicas, 1)
	target := func(ctx context.Context, host int) error {
		if s.Balanced {
			host = l.pick(hosts)
		}
		mu.Lock()
		if now := at(); now < len(result) { // what is still under way after the run is no part of it
			result[now].Attempts++
			result[now].Queue = max(result[now].Queue, len(server.replicas[host]))
		}
		mu.Unlock()
		return server.call(ctx, host)
	}
	names := hosts
	if s.Balanced {
		names = 1
	}
	call := l.clients(target, names)
	for range s.Hops {
		call = l.clients(l.hop(call), names)
	}
	var under sync.WaitGroup
	for next := time.Duration(0); ; {
		next += time.Duration(-math.Log(1-arrivals.Float64()) / s.Rate * float64(time.Second))
		if next >= s.Run {
			break
		}
		time.Sleep(next - time.Since(server.start))
		host, begun := arrivals.IntN(names), at()
		mu.Lock()
		result[begun].Offered++
		mu.Unlock()
		under.Go(func() {
			start := time.Now()
			ok := call(ctx, host)
			if took := time.Since(start); ok && took <= good {
				mu.Lock()
				result[begun].Good++
				result[begun].Took += took
				mu.Unlock()
			}
		})
	}
	time.Sleep(good)
	cancel()
	under.Wait()
	l.handlers.Wait()
	for _, stop := range l.stops {
		stop()
	}
	server.stop()
	return result
}

// Run runs the scenario once, in virtual time.
func Run(t *testing.T, s Scenario, strategy Strategy, seed uint64) (r Result) {
	t.Helper()
	synctest.Test(t, func(*testing.T) { r = run(s, strategy, seed) })
	return r
}

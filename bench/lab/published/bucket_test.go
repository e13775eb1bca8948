package published_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/budget"
	"github.com/backstay-go/backstay/retry"
)

// flaky is a server that fails at random, whatever its load, some way off.
type flaky struct {
	failing  float64       // part of the attempts
	away     time.Duration // mean of a way, exponential
	attempts atomic.Int64

	mu  sync.Mutex
	rng *rand.Rand // guarded by mu
}

var errFlaky = errors.New("bad luck")

func (f *flaky) call(context.Context) error {
	f.attempts.Add(1)
	f.mu.Lock()
	ways := (f.rng.ExpFloat64() + f.rng.ExpFloat64()) * float64(f.away)
	fails := f.rng.Float64() < f.failing
	f.mu.Unlock()
	time.Sleep(time.Duration(ways))
	if fails {
		return errFlaky
	}
	return nil
}

// openLoop makes calls through each pipeline at random times, rate a second, for so long, and returns attempts for each call and the part of calls that ended well.
func openLoop(pipelines []*backstay.Pipeline, rate float64, long time.Duration, f *flaky) (amplification, availability float64) {
	var calls, well atomic.Int64
	var clients, under sync.WaitGroup
	for i, p := range pipelines {
		rng := rand.New(rand.NewPCG(uint64(i), 11))
		clients.Go(func() {
			for start := time.Now(); ; {
				time.Sleep(time.Duration(rng.ExpFloat64() / rate * float64(time.Second)))
				if time.Since(start) >= long {
					return
				}
				calls.Add(1)
				under.Go(func() {
					if backstay.Run(context.Background(), p, f.call) == nil {
						well.Add(1)
					}
				})
			}
		})
	}
	clients.Wait()
	under.Wait()
	return float64(f.attempts.Load()) / float64(calls.Load()), float64(well.Load()) / float64(calls.Load())
}

// stopAbove ends a client's retries while more than the part most of its calls so far have failed: the "circuit breaker" that the article compares with.
func stopAbove(most float64) backstay.Policy {
	var calls, failures atomic.Int64
	return backstay.Classify(func(ctx context.Context, out backstay.Outcome) backstay.Outcome {
		if backstay.CallFrom(ctx).Attempt() == 1 {
			calls.Add(1)
		}
		if out.Err != nil && float64(failures.Add(1)) > most*float64(calls.Load()) {
			out.Again = backstay.No
		}
		return out
	})
}

// TestTokenBucketOrBreaker (R2) bounds retries by a budget and, for comparison, by a failure rate.
func TestTokenBucketOrBreaker(t *testing.T) {
	if testing.Short() {
		t.Skip("runs for a second")
	}
	tab := compare(t, "M. Brooker, Fixing retries with token buckets and circuit breakers (2022), the author's simulator run for 10 s with one seed")
	const clients, long = 100, 10 * time.Second
	run := func(failing float64, policies func() []backstay.Policy) (amplification, availability float64) {
		synctest.Test(t, func(*testing.T) {
			pipelines := make([]*backstay.Pipeline, clients)
			for i := range pipelines {
				pipelines[i] = backstay.Chain(policies()...)
			}
			amplification, availability = openLoop(pipelines, 10, long, &flaky{failing: failing, away: 10 * time.Millisecond, rng: rand.New(rand.NewPCG(1, 1))})
		})
		return amplification, availability
	}
	three := func() []backstay.Policy { return []backstay.Policy{retry.New(retry.Config{Attempts: 4, Delay: -1})} }
	breaker := func() []backstay.Policy { return append(three(), stopAbove(0.1)) }
	// The article's bucket does not age, and sets no limit to the attempts of a call.
	bucket := func() []backstay.Policy {
		b := budget.New(budget.Config{Ratio: 0.1, Start: 5, Cap: 5, Floor: -1, TTL: 24 * time.Hour})
		return []backstay.Policy{retry.New(retry.Config{Attempts: -1, Delay: -1, Budget: b})}
	}
	ours := func() []backstay.Policy {
		return []backstay.Policy{retry.New(retry.Config{Delay: -1, Budget: budget.New(budget.Config{})})}
	}
	for _, c := range []struct {
		what                        string
		failing                     float64
		policies                    func() []backstay.Policy
		amplification, availability float64
	}{
		{"10 % fail, three retries", 0.1, three, 1.106, 1.000},
		{"10 % fail, retries while ≤ 10 % fail", 0.1, breaker, 1.029, 0.925},
		{"10 % fail, bucket 0.1, cap 5", 0.1, bucket, 1.102, 0.991},
		{"50 % fail, three retries", 0.5, three, 1.899, 0.934},
		{"50 % fail, retries while ≤ 10 % fail", 0.5, breaker, 1.000, 0.505},
		{"50 % fail, bucket 0.1, cap 5", 0.5, bucket, 1.142, 0.573},
	} {
		amplification, availability := run(c.failing, c.policies)
		tab.near(c.what+": attempts per call", c.amplification, amplification, 0.03)
		tab.within(c.what+": calls that end well", c.availability, availability, 0.015)
	}
	// Start and floor add 2 tokens and one more in the 10 s, to 100 calls of a client.
	for _, failing := range []float64{0.1, 0.5, 1} {
		amplification, availability := run(failing, ours)
		tab.atMost(number(100*failing)+" % fail, the budget's defaults: attempts per call", "–", amplification, 1.1+0.03+0.01)
		tab.note(number(100*failing)+" % fail, the budget's defaults: calls that end well", "–", number(availability))
	}
}

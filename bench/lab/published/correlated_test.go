package published_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/budget"
	"github.com/backstay-go/backstay/hedge"
	"github.com/backstay-go/backstay/retry"
)

// pause is when a replica stands still: in one of two hundred half seconds, for the rest of which everything that comes to it waits.
func pause(server, replica int, since time.Duration) time.Duration {
	const length = 500 * time.Millisecond
	if draw(int(since/length), server, -replica) < 0.005 {
		return length - since%length
	}
	return 0
}

// TestTailCorrelated (R5, second table) is what a hedge does when slowness is not drawn anew for each attempt.
func TestTailCorrelated(t *testing.T) {
	if testing.Short() {
		t.Skip("runs for seconds")
	}
	tab := compare(t, "none: the same fan-out, and servers that stand still for up to half a second as a whole")
	const n, gap = 500, 130 * time.Millisecond
	run := func(p *backstay.Pipeline, takes func(since time.Duration, request, server, attempt int) time.Duration) (p95, amplification float64) {
		start := time.Now()
		took, amplification := requests(n, gap, p, func(request, server, attempt int) time.Duration {
			return takes(time.Since(start), request, server, attempt)
		})
		return quantile(took, 0.95), amplification
	}
	body := func(request, server, attempt int) time.Duration {
		return time.Duration(2+8*draw(request, server, attempt)) * time.Millisecond
	}
	sameHost := func(since time.Duration, request, server, attempt int) time.Duration {
		return pause(server, 1, since) + body(request, server, attempt)
	}
	otherHost := func(since time.Duration, request, server, attempt int) time.Duration {
		return pause(server, attempt, since) + body(request, server, attempt)
	}
	hedged := func() *backstay.Pipeline {
		return backstay.Chain(hedge.New(hedge.Config{Delay: 10 * time.Millisecond}))
	}
	synctest.Test(t, func(*testing.T) {
		alone, _ := run(nil, sameHost)
		tab.note("no hedge: 95th percentile, ms", "–", number(alone))
		same, more := run(hedged(), sameHost)
		tab.near("hedge after 10 ms, to the same host: 95th percentile, ms (no help)", alone, same, 0.1)
		tab.atMost("… attempts per call, for nothing", "–", more, 1.1)
		other, more := run(hedged(), otherHost)
		tab.atMost("hedge after 10 ms, to another replica: 95th percentile, ms", number(alone), other, alone/5)
		tab.atMost("… attempts per call", "–", more, 1.1)
	})
	// All servers are slow and then fail, as in an overload: retries and hedges are load.
	overload := func(p func() []backstay.Policy) (amplification float64) {
		synctest.Test(t, func(*testing.T) {
			var attempts atomic.Int64
			var under sync.WaitGroup
			pipeline := backstay.Chain(p()...)
			const calls = 5000
			for range calls {
				time.Sleep(time.Millisecond)
				under.Go(func() {
					_ = backstay.Run(context.Background(), pipeline, func(context.Context) error {
						attempts.Add(1)
						time.Sleep(50 * time.Millisecond)
						return errLeaf
					}, backstay.Idempotent())
				})
			}
			under.Wait()
			amplification = float64(attempts.Load()) / calls
		})
		return amplification
	}
	after := hedge.Config{Delay: 10 * time.Millisecond}
	naive := overload(func() []backstay.Policy {
		h := after
		h.Budget = budget.New(budget.Config{Ratio: 100, Cap: -1})
		return []backstay.Policy{retry.New(retry.Config{}), h.Budget, hedge.New(h)}
	})
	apart := overload(func() []backstay.Policy {
		return []backstay.Policy{retry.New(retry.Config{Budget: budget.New(budget.Config{})}), hedge.New(after)}
	})
	shared := overload(func() []backstay.Policy {
		b, h := budget.New(budget.Config{}), after
		h.Budget = b
		return []backstay.Policy{retry.New(retry.Config{Budget: b}), hedge.New(h)}
	})
	tab.within("all fail after 50 ms, three attempts with a hedge each, no budget to speak of: attempts per call", 6, naive, 0)
	tab.note("… a budget each for retries and hedges", "–", number(apart))
	tab.atMost("… one budget for both", "–", shared, 1.1+(2+0.5+1)/5000)
}

package published_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/adaptive"
	"github.com/backstay-go/backstay/budget"
	"github.com/backstay-go/backstay/retry"
)

var errQuota = errors.New("out of quota")

// quota is a backend that accepts so many requests in each second, and turns the rest away.
type quota struct {
	perSecond int
	start     time.Time

	mu       sync.Mutex
	second   int // guarded by mu, as is all below
	left     int
	requests int
	accepts  int
}

func (q *quota) call(context.Context) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if now := int(time.Since(q.start) / time.Second); now != q.second {
		q.second, q.left = now, q.perSecond
	}
	q.requests++
	if q.left == 0 {
		return errQuota
	}
	q.left--
	q.accepts++
	return nil
}

// TestClientThrottle (R3, first part) has one client offer four times what its backend accepts.
func TestClientThrottle(t *testing.T) {
	if testing.Short() {
		t.Skip("runs for a second")
	}
	tab := compare(t, "Site Reliability Engineering, Handling Overload: refuse with probability (requests − K × accepts) ÷ (requests + 1) over two minutes")
	const offered, accepted = 200, 50
	for _, k := range []float64{1.5, 2, 3} {
		synctest.Test(t, func(*testing.T) {
			q := &quota{perSecond: accepted, start: time.Now(), second: -1}
			throttle := adaptive.NewThrottle(adaptive.ThrottleConfig{K: k, Rand: rand.New(rand.NewPCG(3, uint64(k*2))).Float64})
			p := backstay.Chain(throttle)
			second := func() {
				for range offered {
					time.Sleep(time.Second / offered)
					_ = backstay.Run(context.Background(), p, q.call)
				}
			}
			for range 300 { // until the window knows nothing but this
				second()
			}
			requests, accepts := q.requests, q.accepts
			for range 300 {
				second()
			}
			sent := float64(q.requests - requests)
			tab.near(fmt.Sprintf("K = %g, 200/s offered, 50/s accepted: requests sent for each accepted one", k), k, sent/float64(q.accepts-accepts), 0.05)
			tab.near(fmt.Sprintf("K = %g: part refused in the client", k), 1-k*accepted/offered, 1-sent/(300*offered), 0.05)
		})
	}
	// A backend that accepts nothing. The formula refuses all but one of the requests in the window; ours lets a tenth through, to notice the end of it.
	synctest.Test(t, func(*testing.T) {
		q := &quota{start: time.Now(), second: -1}
		throttle := adaptive.NewThrottle(adaptive.ThrottleConfig{Rand: rand.New(rand.NewPCG(3, 3)).Float64})
		p := backstay.Chain(throttle)
		for range 60 * offered {
			time.Sleep(time.Second / offered)
			_ = backstay.Run(context.Background(), p, q.call)
		}
		sent := float64(q.requests) / (60 * offered)
		tab.add("nothing accepted for a minute: part of the calls sent", "→ 0", number(sent), "0.1 ± 0.02", sent >= 0.08 && sent <= 0.12)
	})
}

// TestRetryRatio (R3, second part) has a backend that turns everything away, and clients with three attempts for each request.
func TestRetryRatio(t *testing.T) {
	if testing.Short() {
		t.Skip("runs for a second")
	}
	tab := compare(t, "Site Reliability Engineering, Handling Overload: a per-client retry ratio of 10 % (as quoted)")
	const long = 20 * time.Second
	run := func(rate int, b *budget.Budget) float64 {
		calls, attempts := 0, atomic.Int64{}
		var under sync.WaitGroup
		p := backstay.Chain(retry.New(retry.Config{Budget: b}))
		for range rate * int(long/time.Second) {
			time.Sleep(time.Second / time.Duration(rate))
			calls++
			under.Go(func() {
				_ = backstay.Run(context.Background(), p, func(context.Context) error {
					attempts.Add(1)
					return errQuota
				})
			})
		}
		under.Wait()
		return float64(attempts.Load()) / float64(calls)
	}
	for _, rate := range []int{1, 50, 500, 5000} {
		synctest.Test(t, func(*testing.T) {
			tab.within(fmt.Sprintf("%d calls/s, three attempts: attempts per call (“just under 3×”)", rate), 3, run(rate, nil), 0)
			brought := 2 + long.Seconds()/10 // the budget's start and floor, which weigh where calls are few
			tab.atMost(fmt.Sprintf("%d calls/s, with a budget", rate), "1.1", run(rate, budget.New(budget.Config{})), 1.1+(brought+0.01)/(float64(rate)*long.Seconds()))
		})
	}
}

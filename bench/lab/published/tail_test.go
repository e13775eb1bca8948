package published_test

import (
	"context"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/budget"
	"github.com/backstay-go/backstay/hedge"
)

const fanOut = 100 // servers that a request asks, all of which it waits for

// draw returns the number in [0, 1) that belongs to an attempt: the same in each run, in whatever order goroutines come.
func draw(request, server, attempt int) float64 {
	x := uint64(request)*0x9e3779b97f4a7c15 ^ uint64(server)*0xbf58476d1ce4e5b9 ^ uint64(attempt)*0x94d049bb133111eb
	for range 2 { // splitmix64's finish
		x ^= x >> 30
		x *= 0xbf58476d1ce4e5b9
		x ^= x >> 27
		x *= 0x94d049bb133111eb
		x ^= x >> 31
	}
	return float64(x>>11) / (1 << 53)
}

// bigtable is the time that one server takes, by a uniform draw u. Two of its points are the paper's: 2 % of the answers take more than the hedge's 10 ms, and so many more than
// 1,800 ms that one request in a thousand does. The third is fitted to the hedged figure: 0.32 % take more than 70 ms. Between the points it is a
// power law, below them even from 2 to 10 ms.
func bigtable(u float64) time.Duration {
	const over10, over70, over1800 = 0.02, 0.0032, 1e-5
	var ms float64
	switch rest := 1 - u; {
	case rest > over10:
		ms = 2 + 8*(1-rest)/(1-over10)
	case rest > over70:
		ms = 10 * math.Pow(over10/rest, math.Log(7)/math.Log(over10/over70))
	default:
		ms = 70 * math.Pow(over70/rest, math.Log(1800.0/70)/math.Log(over70/over1800))
	}
	return time.Duration(ms * float64(time.Millisecond))
}

// wait is a server that takes d, unless its caller goes.
func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// requests makes so many, one a gap or, when that is 0, one after another. Each asks all servers through the pipeline and takes as long as the slowest. It returns
// how long each took, and how many attempts were made for each call.
func requests(n int, gap time.Duration, p *backstay.Pipeline, takes func(request, server, attempt int) time.Duration) (took []time.Duration, amplification float64) {
	var attempts atomic.Int64
	took = make([]time.Duration, n)
	one := func(i int) {
		start := time.Now()
		var all sync.WaitGroup
		for server := range fanOut {
			all.Go(func() {
				_ = backstay.Run(context.Background(), p, func(ctx context.Context) error {
					attempts.Add(1)
					return wait(ctx, takes(i, server, backstay.CallFrom(ctx).Attempt()))
				}, backstay.Idempotent())
			})
		}
		all.Wait()
		took[i] = time.Since(start)
	}
	var under sync.WaitGroup
	for i := range n {
		if gap == 0 {
			one(i)
			continue
		}
		under.Go(func() { one(i) })
		time.Sleep(gap)
	}
	under.Wait()
	slices.Sort(took)
	return took, float64(attempts.Load()) / float64(n*fanOut)
}

// quantile is in ms, of times in order.
func quantile(took []time.Duration, q float64) float64 {
	return took[min(int(q*float64(len(took))), len(took)-1)].Seconds() * 1000
}

// slower is the part of the times that are over d.
func slower(took []time.Duration, d time.Duration) float64 {
	n := 0
	for _, t := range took {
		if t > d {
			n++
		}
	}
	return float64(n) / float64(len(took))
}

// slow makes one request as requests does, but leaves out the calls that are answered within delay: nothing of a hedge happens in them, except for what they
// bring to its budget.
func slow(request int, delay time.Duration, b *budget.Budget, p *backstay.Pipeline, takes func(request, server, attempt int) time.Duration) time.Duration {
	start, quick := time.Now(), time.Duration(0)
	var all sync.WaitGroup
	for server := range fanOut {
		b.Deposit()
		if d := takes(request, server, 1); d <= delay {
			quick = max(quick, d)
			continue
		}
		all.Go(func() {
			_ = backstay.Run(context.Background(), p, func(ctx context.Context) error {
				return wait(ctx, takes(request, server, backstay.CallFrom(ctx).Attempt()))
			}, backstay.Idempotent())
		})
	}
	all.Wait()
	return max(quick, time.Since(start))
}

// TestTailAtScale (R5, first table) has each request wait for a hundred servers.
func TestTailAtScale(t *testing.T) {
	if testing.Short() {
		t.Skip("runs for seconds")
	}
	tab := compare(t, "J. Dean and L. A. Barroso, The Tail at Scale, CACM 56/2 (2013), as quoted. Fitted: one point of the servers' times, 0.32 % over 70 ms")
	times := func(request, server, attempt int) time.Duration { return bigtable(draw(request, server, attempt)) }

	var plain []time.Duration // no policy acts, so a request takes the longest draw
	for i := range 200_000 {
		most := time.Duration(0)
		for server := range fanOut {
			most = max(most, times(i, server, 1))
		}
		plain = append(plain, most)
	}
	slices.Sort(plain)
	tab.near("no hedge: 99.9th percentile, ms (fixed by the paper's figure)", 1800, quantile(plain, 0.999), 0.15)

	for _, delay := range []time.Duration{10 * time.Millisecond, 20 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			const n, whole = 60_000, 500
			b := budget.New(budget.Config{})
			h := hedge.New(hedge.Config{Delay: delay, Budget: b})
			took := make([]time.Duration, n)
			for i := range took {
				took[i] = slow(i, delay, b, backstay.Chain(h), times)
			}
			// The same requests with no call left out take the same times.
			all, _ := requests(whole, 0, backstay.Chain(hedge.New(hedge.Config{Delay: delay})), times)
			some := slices.Sorted(slices.Values(took[:whole]))
			if !slices.Equal(all, some) {
				t.Errorf("hedge after %v: %d requests with all their calls took other times than with slow ones alone: median %v and %v", delay, whole, all[whole/2], some[whole/2])
			}
			slices.Sort(took)
			p999, more := quantile(took, 0.999), 100*float64(h.Snapshot().Hedges)/(n*fanOut)
			if delay == 10*time.Millisecond {
				tab.near("hedge after 10 ms: 99.9th percentile, ms (fitted)", 74, p999, 0.15)
				tab.within("hedge after 10 ms: more requests, % (fixed)", 2, more, 0.1)
			} else {
				tab.note("hedge after 20 ms: 99.9th percentile, ms", "–", number(p999))
				tab.note("hedge after 20 ms: more requests, %", "–", number(more))
			}
			if denied := h.Snapshot().Denied; denied != 0 {
				t.Errorf("hedge after %v: the budget refused %d hedges, want none at 2 %% of the calls", delay, denied)
			}
		})
	}

	// One answer in a hundred takes a second, and a request waits for a hundred of them.
	oneSlow := func(request, server, attempt int) time.Duration {
		if draw(request, server, attempt) < 0.01 {
			return time.Second
		}
		return 10 * time.Millisecond
	}
	synctest.Test(t, func(*testing.T) {
		const n, delay = 10_000, 20 * time.Millisecond
		var alone, hedged []time.Duration
		b := budget.New(budget.Config{})
		p := backstay.Chain(hedge.New(hedge.Config{Delay: delay, Budget: b}))
		for i := range n {
			alone = append(alone, slow(i, delay, b, nil, oneSlow))
			hedged = append(hedged, slow(i, delay, b, p, oneSlow))
		}
		tab.within("1 % of the answers take a second: part of the requests that do", 0.63, slower(alone, 500*time.Millisecond), 0.02)
		tab.within("the same, hedge after 20 ms (1 − 0.9999¹⁰⁰)", 0.01, slower(hedged, 500*time.Millisecond), 0.004)
	})
}

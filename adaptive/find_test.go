package adaptive_test

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/adaptive"
)

// load calls s through l from n goroutines, each as often as it can, until the test ends, and counts the good calls.
func load(t *testing.T, s *server, l *adaptive.Limit, n int) *atomic.Int64 {
	p := backstay.Chain(l)
	var good atomic.Int64
	var all sync.WaitGroup
	stop := make(chan struct{})
	for range n {
		all.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				err := backstay.Run(context.Background(), p, func(ctx context.Context) error { return s.call(ctx, time.Second) })
				if err == nil {
					good.Add(1)
				} else {
					time.Sleep(5 * time.Millisecond)
				}
			}
		})
	}
	t.Cleanup(func() { close(stop); all.Wait() })
	return &good
}

func TestFindsCapacity(t *testing.T) {
	for _, c := range []struct{ workers, callers, initial int }{
		{30, 120, 0},
		{200, 800, 0},
		{10, 200, 100}, // the first calls queue already, and their time is no baseline
	} {
		if testing.Short() && c.workers > 10 {
			continue
		}
		synctest.Test(t, func(t *testing.T) {
			workers := c.workers
			s := startServer(t, workers, 100000, 10*time.Millisecond)
			l := adaptive.New(adaptive.Config{Initial: c.initial})
			good := load(t, s, l, c.callers)
			time.Sleep(2 * time.Second)
			good.Store(0)
			time.Sleep(10 * time.Second)
			capacity := float64(workers) * 100 * 10
			if got := float64(good.Load()) / capacity; got < 0.93 {
				t.Errorf("%d workers: goodput is %.2f of capacity, want at least 0.93", workers, got)
			}
			snap := l.Snapshot()
			t.Logf("%d workers: goodput is %.3f of capacity, limit %d, response time %v", workers, float64(good.Load())/capacity, snap.Limit, snap.RTT)
			if snap.Limit < workers/2 || snap.Limit > 2*workers {
				t.Errorf("%d workers: limit is %d, want near %d", workers, snap.Limit, workers)
			}
			if snap.RTT > 20*time.Millisecond || snap.Baseline < 9*time.Millisecond || snap.Baseline > 12*time.Millisecond {
				t.Errorf("%d workers: response time %v, baseline %v; want at most 20ms and about 10ms", workers, snap.RTT, snap.Baseline)
			}
		})
	}
}

// A limit far above what is tried must not stand by while calls queue.
func TestComesDownFromAfar(t *testing.T) {
	for _, callers := range []int{50, 200} { // who queue for five times and for twenty times as long as the work takes
		synctest.Test(t, func(t *testing.T) {
			const workers = 10
			s := startServer(t, workers, 100000, 10*time.Millisecond)
			l := adaptive.New(adaptive.Config{Initial: 1000})
			load(t, s, l, 5)
			time.Sleep(2 * time.Second)
			load(t, s, l, callers)
			time.Sleep(3 * time.Second)
			if snap := l.Snapshot(); snap.Limit > 3*workers || snap.RTT > 40*time.Millisecond {
				t.Errorf("3 s after %d callers came: limit %d, response time %v; want at most %d and 40ms", callers, snap.Limit, snap.RTT, 3*workers)
			}
		})
	}
}

// Calls that take many times as long as they did queue somewhere, however few they are: the limit comes down to them at once, since they tell of the queue
// late enough. A time that is only some times as long leaves a limit alone that so few do not reach.
func TestComesDownAtOnce(t *testing.T) {
	for _, c := range []struct {
		name   string
		slower time.Duration
		rounds int
		most   int // limit after; 0: as before
	}{
		{"twenty times as long", 20, 4, 9},
		{"four times as long", 4, 50, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			const quick = 5 * time.Millisecond
			l := adaptive.New(adaptive.Config{Initial: 1000})
			p := backstay.Chain(l)
			spend := func(d time.Duration, rounds int) { // nine at once
				for range rounds {
					var all sync.WaitGroup
					for range 9 {
						all.Go(func() { _ = backstay.Run(t.Context(), p, func(context.Context) error { time.Sleep(d); return nil }) })
					}
					all.Wait()
				}
			}
			spend(quick, 100)
			spend(c.slower*quick, c.rounds)
			if got := l.Snapshot().Limit; c.most > 0 && got > c.most || c.most == 0 && got != 1000 {
				t.Errorf("%s: the limit is %d, want at most %d (0: 1000)", c.name, got, c.most)
			}
		})
	}
}

// A dependency that has become three times slower for good is no overload. With 18 workers the limit comes to rest not far below the last time that
// the queue got shorter.
func TestBaselineShift(t *testing.T) {
	for _, c := range []struct {
		workers int
		at      time.Duration
	}{{10, 21 * time.Second}, {18, 21 * time.Second}, {30, 21 * time.Second}, {30, 23700 * time.Millisecond}, {200, 22300 * time.Millisecond}} {
		if testing.Short() && c.workers > 10 {
			continue
		}
		synctest.Test(t, func(t *testing.T) {
			s := startServer(t, c.workers, 100000, 10*time.Millisecond)
			l := adaptive.New(adaptive.Config{})
			good := load(t, s, l, 4*c.workers)
			time.Sleep(c.at)
			s.service.Store(int64(30 * time.Millisecond))
			good.Store(0)
			time.Sleep(10 * time.Second)
			got := float64(good.Swap(0)) / (float64(c.workers) / 0.03 * 10)
			snap := l.Snapshot()
			t.Logf("%d workers, shift at %v: goodput in the 10 s after it is %.3f of capacity, baseline %v", c.workers, c.at, got, snap.Baseline)
			if got < 0.85 {
				t.Errorf("%d workers, shift at %v: goodput in the 10 s after it is %.2f of capacity, want at least 0.85", c.workers, c.at, got)
			}
			if snap.Baseline < 25*time.Millisecond || snap.Baseline > 40*time.Millisecond {
				t.Errorf("%d workers, shift at %v: baseline 10 s after it is %v, want about 30ms", c.workers, c.at, snap.Baseline)
			}
			time.Sleep(10 * time.Second)
			if got := float64(good.Load()) / (float64(c.workers) / 0.03 * 10); got < 0.85 {
				t.Errorf("%d workers, shift at %v: goodput from 10 to 20 s after it is %.2f of capacity, want at least 0.85", c.workers, c.at, got)
			}
			s.service.Store(int64(10 * time.Millisecond))
			time.Sleep(10 * time.Second)
			if snap := l.Snapshot(); snap.Baseline > 13*time.Millisecond {
				t.Errorf("%d workers: baseline 10 s after the shift back is %v, want about 10ms", c.workers, snap.Baseline)
			}
		})
	}
}

// Clients that know nothing of each other offer half as much again as their server can do. The queue must stay short, and not grow with time as it does
// when each takes the others' queue for its baseline, and stay so also when some of them do not reach their limits. They begin at one moment, and know what to do once they have
// measured together, which they do at 5 s, or at 10 s if their answers took more than 0.1 s until then (fifty response times).
func TestSharedOverload(t *testing.T) {
	for clients, most := range map[int]struct{ mean, second time.Duration }{ // of 255 runs the highest were 25, 53 and 221 ms, and 38, 63 and 379 ms; without measuring, five clients come to 38 ms
		5:   {33 * time.Millisecond, 80 * time.Millisecond},
		20:  {100 * time.Millisecond, 150 * time.Millisecond},
		100: {450 * time.Millisecond, 800 * time.Millisecond},
	} {
		if testing.Short() && clients != 5 {
			continue
		}
		synctest.Test(t, func(t *testing.T) {
			const capacity, settled, end = 3000, 12, 40
			s := startServer(t, capacity/100, 100000, 10*time.Millisecond)
			var good [end]atomic.Int64
			var spent [end]atomic.Int64
			var all sync.WaitGroup
			for range clients {
				p := backstay.Chain(adaptive.New(adaptive.Config{}))
				all.Go(func() {
					start := time.Now()
					for at := 0.0; ; {
						at += rand.ExpFloat64() / (1.5 * capacity / float64(clients))
						if at >= end {
							return
						}
						time.Sleep(time.Until(start.Add(time.Duration(at * float64(time.Second)))))
						all.Go(func() {
							begun := time.Now()
							if backstay.Run(t.Context(), p, func(ctx context.Context) error { return s.call(ctx, time.Second) }) == nil {
								good[int(at)].Add(1)
								spent[int(at)].Add(int64(time.Since(begun)))
							}
						})
					}
				})
			}
			all.Wait()
			var means []time.Duration
			for sec := range end {
				means = append(means, time.Duration(spent[sec].Load()/max(good[sec].Load(), 1)).Round(time.Millisecond))
			}
			t.Logf("%d clients: mean time by second %v", clients, means)
			var sum int64
			var mean time.Duration
			for sec := settled; sec < end; sec++ {
				sum += good[sec].Load()
				if got := float64(good[sec].Load()) / capacity; got < 0.75 { // a second in which all measure their baseline
					t.Errorf("%d clients: goodput in second %d is %.2f of capacity, want at least 0.75", clients, sec, got)
				}
				if means[sec] > most.second {
					t.Errorf("%d clients: the mean time in second %d is %v, want at most %v", clients, sec, means[sec], most.second)
				}
				mean += means[sec] / (end - settled)
			}
			if mean > most.mean {
				t.Errorf("%d clients: the mean time is %v, want at most %v", clients, mean, most.mean)
			}
			if got := float64(sum) / capacity / (end - settled); got < 0.93 {
				t.Errorf("%d clients: goodput is %.2f of capacity, want at least 0.93", clients, got)
			}
		})
	}
}

// Clients that know nothing of each other must measure at the same time, or each measures the queue of the others.
func TestDipsInStep(t *testing.T) {
	for _, begin := range []time.Duration{0, 1700 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			time.Sleep(begin) // the clock of a bubble begins at a multiple of 5 s
			s := startServer(t, 30, 100000, 10*time.Millisecond)
			l := adaptive.New(adaptive.Config{})
			load(t, s, l, 120)
			time.Sleep(20*time.Second - begin)
			const step = 5 * time.Millisecond
			early, late := 1000, 1000 // the lowest limit in the first half second after a multiple of 5 s, and after that
			for at := time.Duration(0); at < 5*time.Second; at += step {
				if limit := l.Snapshot().Limit; at <= 500*time.Millisecond {
					early = min(early, limit)
				} else {
					late = min(late, limit)
				}
				time.Sleep(step)
			}
			if early > 30 || late < 35 {
				t.Errorf("begun at %v: the lowest limit is %d within 0.5 s after a multiple of 5 s, and %d later; want it halved in the first, and there only", begin, early, late)
			}
		})
	}
}

// A limit that nobody reaches takes for its baseline what it sees. When that has become three times as long, it is measured once, with fewer calls: if they are as slow, the
// dependency has become slower, and all is as it was; if they are quick again, there was a queue, and the limit comes down to what was in flight without it.
func TestDoubtsBaseline(t *testing.T) {
	const quick, slow = 5 * time.Millisecond, 25 * time.Millisecond
	for _, c := range []struct {
		name  string
		spend func(inFlight int64) time.Duration
		most  int // limit at the end; 0: as before
	}{
		{"the dependency is slower", func(int64) time.Duration { return slow }, 0},
		{"others queue, too", func(n int64) time.Duration {
			if n > 6 {
				return slow
			}
			return quick
		}, 20},
	} {
		synctest.Test(t, func(t *testing.T) {
			l := adaptive.New(adaptive.Config{Initial: 1000})
			p := backstay.Chain(l)
			var flying atomic.Int64
			round := func(spend func(int64) time.Duration) (refused int) { // eleven at once
				var all sync.WaitGroup
				var no atomic.Int64
				for range 11 {
					all.Go(func() {
						err := backstay.Run(t.Context(), p, func(context.Context) error {
							n := flying.Add(1)
							defer flying.Add(-1)
							time.Sleep(time.Millisecond) // until all are there
							n = max(n, flying.Load())
							time.Sleep(spend(n) - time.Millisecond)
							return nil
						})
						if err != nil {
							no.Add(1)
						}
					})
				}
				all.Wait()
				return int(no.Load())
			}
			start := time.Now()
			for time.Since(start) < 3*time.Second {
				round(func(int64) time.Duration { return quick })
			}
			var refused [30]int
			for {
				sec := int(time.Since(start) / time.Second)
				if sec >= len(refused) {
					break
				}
				n := round(c.spend)
				refused[sec] += n
				time.Sleep(time.Duration(n) * time.Millisecond)
			}
			limit := l.Snapshot().Limit
			t.Logf("%s: limit %d, refused by second %v", c.name, limit, refused)
			if c.most > 0 && limit > c.most {
				t.Errorf("%s: the limit is %d, want at most %d", c.name, limit, c.most)
			}
			if c.most > 0 {
				return
			}
			if limit != 1000 {
				t.Errorf("%s: the limit is %d, want 1000 as before", c.name, limit)
			}
			seconds, sum := 0, 0
			for _, n := range refused {
				seconds += min(n, 1)
				sum += n
			}
			if seconds != 1 || sum > 60 {
				t.Errorf("%s: %d calls refused in %d seconds, want at most 60 in one", c.name, sum, seconds)
			}
		})
	}
}

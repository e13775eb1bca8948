package adaptive_test

import (
	"context"
	"errors"
	"flag"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/adaptive"
)

// For the tables of docs/decisions/006: go test ./adaptive -run TestStall -v -args -min 4
var (
	clients = flag.Int("clients", 20, "how many share the server in TestStall")
	minimum = flag.Int("min", 0, "Config.Min in TestStall")
	window  = flag.Duration("window", 0, "ThrottleConfig.Window in TestStallThrottled")
)

// server is a leaf with a queue that never learns that a client has gone: workers × 1/service is its capacity.
type server struct {
	jobs    chan chan struct{}
	service atomic.Int64 // time.Duration
	stall   func(now time.Duration) time.Duration
	origin  time.Time
}

var errFull = errors.New("503: queue full")

func startServer(t *testing.T, workers, queue int, service time.Duration) *server {
	s := &server{jobs: make(chan chan struct{}, queue), origin: time.Now()}
	s.service.Store(int64(service))
	s.stall = func(time.Duration) time.Duration { return 0 }
	var all sync.WaitGroup
	for range workers {
		all.Go(func() {
			for done := range s.jobs {
				time.Sleep(time.Duration(s.service.Load()))
				time.Sleep(s.stall(time.Since(s.origin)))
				close(done)
			}
		})
	}
	t.Cleanup(func() { close(s.jobs); all.Wait() })
	return s
}

func (s *server) call(ctx context.Context, timeout time.Duration) error {
	done := make(chan struct{})
	select {
	case s.jobs <- done:
	default:
		return errFull
	}
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-done:
		return nil
	case <-timer.C:
		return context.DeadlineExceeded
	case <-ctx.Done():
		return ctx.Err()
	}
}

// second counts the calls that began in one second of the run.
type second struct{ offered, good, attempts int }

// result is a run by seconds.
type result []second

func (r result) share(from, to int) float64 {
	var sum second
	for _, s := range r[from:to] {
		sum.offered += s.offered
		sum.good += s.good
	}
	return float64(sum.good) / float64(sum.offered)
}

func (r result) amplification(from, to int) float64 {
	var sum second
	for _, s := range r[from:to] {
		sum.offered += s.offered
		sum.attempts += s.attempts
	}
	return float64(sum.attempts) / float64(sum.offered)
}

// recovery is the first second at or after from that starts five, in each of which at least 90 % of the calls were good; -1: none.
func (r result) recovery(from int) int {
	run := 0
	for i := from; i < len(r); i++ {
		if s := r[i]; float64(s.good) >= 0.9*float64(s.offered) {
			if run++; run == 5 {
				return i - 4 - from
			}
		} else {
			run = 0
		}
	}
	return -1
}

// retried calls once and up to twice more, as a bucket of a tenth of a token a call allows. It stands in for package retry.
func retried(bucket *float64, mu *sync.Mutex, once func() error) error {
	mu.Lock()
	*bucket = min(*bucket+0.1, 10)
	mu.Unlock()
	for n := 0; ; n++ {
		err := once()
		if err == nil || n == 2 || errors.Is(err, backstay.ErrRejected) {
			return err
		}
		mu.Lock()
		ok := *bucket >= 1
		if ok {
			*bucket--
		}
		mu.Unlock()
		if !ok {
			return err
		}
		time.Sleep(time.Duration(rand.Int64N(int64(100*time.Millisecond) << n)))
	}
}

// storm runs the stall scenario: the clients share a server of 300 calls/s, offer rate calls/s for 60 s, and all workers stand still from 20 s to 30 s. A
// call is good when it succeeds within 3 s.
func storm(t *testing.T, seed uint64, rate float64, policy func() backstay.Policy) result {
	const end = 60
	out := make(result, end)
	synctest.Test(t, func(t *testing.T) {
		s := startServer(t, 3, 1000, 10*time.Millisecond)
		s.stall = func(now time.Duration) time.Duration {
			if now >= 20*time.Second && now < 30*time.Second {
				return 30*time.Second - now
			}
			return 0
		}
		type client struct {
			p      *backstay.Pipeline
			bucket float64
			mu     sync.Mutex
		}
		all := make([]*client, *clients)
		for i := range all {
			all[i] = &client{p: chain(policy()), bucket: 2}
		}
		rng := rand.New(rand.NewPCG(seed, 0))
		var mu sync.Mutex // guards out
		var calls sync.WaitGroup
		start := time.Now()
		for at := 0.0; ; {
			at += rng.ExpFloat64() / rate
			if at >= end {
				break
			}
			time.Sleep(time.Until(start.Add(time.Duration(at * float64(time.Second)))))
			c, sec := all[rng.IntN(*clients)], int(at)
			calls.Go(func() {
				begun := time.Now()
				attempts := 0
				err := retried(&c.bucket, &c.mu, func() error {
					return backstay.Run(t.Context(), c.p, func(ctx context.Context) error {
						attempts++
						return s.call(ctx, time.Second)
					})
				})
				mu.Lock()
				defer mu.Unlock()
				out[sec].offered++
				out[sec].attempts += attempts
				if err == nil && time.Since(begun) <= 3*time.Second {
					out[sec].good++
				}
			})
		}
		calls.Wait()
	})
	return out
}

func chain(p backstay.Policy) *backstay.Pipeline { return backstay.Chain(p) }

// The limit must get a crowd of clients over a stall, and cost nothing while all is well. Without it the same retries, on the same budget, leave
// the server with seconds of work that nobody waits for any more.
func TestStall(t *testing.T) {
	for _, rate := range []float64{240, 280} {
		for seed := range uint64(3) {
			if testing.Short() && seed > 0 {
				break
			}
			none := storm(t, seed, rate, func() backstay.Policy { return nil })
			ours := storm(t, seed, rate, func() backstay.Policy { return adaptive.New(adaptive.Config{Min: *minimum}) })
			t.Logf("%v/s, seed %d: recovery %d s (without: %d), goodput before %.4f (%.4f), from 35 s on %.4f (%.4f), amplification %.2f (%.2f)", rate, seed,
				ours.recovery(30), none.recovery(30), ours.share(5, 20), none.share(5, 20), ours.share(35, 60), none.share(35, 60), ours.amplification(20, 60), none.amplification(20, 60))
			if got := ours.recovery(30); got < 0 || got > 5 {
				t.Errorf("%v/s, seed %d: recovered %d s after the stall, want within 5", rate, seed, got)
			}
			if got, want := ours.share(5, 20), 0.99*none.share(5, 20); got < want {
				t.Errorf("%v/s, seed %d: goodput before the stall %.4f, want at least %.4f", rate, seed, got, want)
			}
			if got := ours.amplification(20, 60); got > 1.1 {
				t.Errorf("%v/s, seed %d: %.2f attempts a call, want at most 1.1", rate, seed, got)
			}
		}
	}
}

// A throttle around the limit must not hold it back: with its window of two minutes a stall of ten seconds is no reason to refuse.
func TestStallThrottled(t *testing.T) {
	c := adaptive.ThrottleConfig{Window: *window}
	alone := storm(t, 0, 280, func() backstay.Policy { return adaptive.NewThrottle(c) })
	both := storm(t, 0, 280, func() backstay.Policy {
		return backstay.Chain(adaptive.NewThrottle(c), adaptive.New(adaptive.Config{}))
	})
	t.Logf("window %v: recovery %d s with a limit inside, %d s alone", c.Window, both.recovery(30), alone.recovery(30))
	if got := both.recovery(30); got < 0 || got > 5 {
		t.Errorf("recovered %d s after the stall, want within 5", got)
	}
}

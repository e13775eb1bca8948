package breaker_test

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/breaker"
)

// due returns a breaker whose open period has just passed.
func due(c breaker.Config) *breaker.Breaker {
	b := breaker.New(c)
	b.Trip()
	time.Sleep(b.Snapshot().RetryAfter)
	return b
}

// A probe that never reports must not keep the breaker half-open for ever, and must not speak for it later.
func TestLostProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := plain(1)
		c.ProbeTimeout = time.Second
		b := due(c)
		lost := acquire(t, b)
		wantState(t, b, breaker.HalfOpen)
		time.Sleep(time.Second - 1)
		if r := refused(t, b); r == nil {
			t.Fatal("a call was let through beside a probe whose lease is not over")
		}
		time.Sleep(1)
		second := acquire(t, b)
		wantState(t, b, breaker.HalfOpen)

		lost.DoneErr(context.Background(), nil)
		wantState(t, b, breaker.HalfOpen)
		lost.DoneErr(context.Background(), errDown)
		wantState(t, b, breaker.HalfOpen)
		if s := b.Snapshot(); s.Lost != 1 || s.Stale != 1 || s.Probes != 1 {
			t.Fatalf("got %d lost, %d stale, %d in flight, want 1 of each", s.Lost, s.Stale, s.Probes)
		}
		second.DoneErr(context.Background(), nil)
		wantState(t, b, breaker.Closed)
	})
}

func TestProbeThatDoesNotReturn(t *testing.T) {
	for name, end := range map[string]func(){
		"panic":  func() { panic("boom") },
		"Goexit": runtime.Goexit,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := &log{}
				c := plain(1)
				c.Observer = l
				b := due(c)
				var got any
				var probe sync.WaitGroup
				probe.Go(func() {
					defer func() { got = recover() }()
					_ = backstay.Run(context.Background(), backstay.Chain(b), func(context.Context) error {
						end()
						return nil
					})
				})
				probe.Wait()
				if name == "panic" && got != "boom" {
					t.Errorf("got panic %v, want boom", got)
				}
				wantState(t, b, breaker.Open)
				time.Sleep(2 * time.Second)
				if err := try(b, nil); err != nil {
					t.Fatalf("the next probe: got error %v, want none", err)
				}
				wantState(t, b, breaker.Closed)
			})
		})
	}
}

// A thousand goroutines at once, all past the first check when the state moves: exactly as many run as there are places.
func TestProbesAreNotExceeded(t *testing.T) {
	for _, k := range []int{1, 3, 10} {
		for range 20 {
			synctest.Test(t, func(t *testing.T) {
				c := plain(1)
				c.Probes, c.Successes = k, k
				b := due(c)
				p := backstay.Chain(b)
				start, release := make(chan struct{}), make(chan struct{})
				var ran, refusals atomic.Int64
				var all sync.WaitGroup
				for range 1000 {
					all.Go(func() {
						<-start
						err := backstay.Run(context.Background(), p, func(context.Context) error {
							ran.Add(1)
							<-release
							return nil
						})
						if errors.Is(err, breaker.ErrOpen) {
							refusals.Add(1)
						}
					})
				}
				close(start)
				synctest.Wait()
				if ran.Load() != int64(k) || refusals.Load() != int64(1000-k) {
					t.Fatalf("got %d probes and %d refusals, want %d and %d", ran.Load(), refusals.Load(), k, 1000-k)
				}
				close(release)
				all.Wait()
				wantState(t, b, breaker.Closed)
			})
		}
	}
}

// A neutral ending decides nothing and gives its place back at once, however often.
func TestNeutralProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := due(plain(1))
		for range 100 {
			if err := try(b, backstay.Ignore(errDown)); !errors.Is(err, errDown) {
				t.Fatalf("got error %v, want the call's own", err)
			}
			wantState(t, b, breaker.HalfOpen)
		}
		ctx, cancel := context.WithCancel(context.Background())
		_ = backstay.Run(ctx, backstay.Chain(b), func(context.Context) error {
			cancel()
			return errDown
		})
		wantState(t, b, breaker.HalfOpen)
		acquire(t, b).Cancel(context.Background())
		wantState(t, b, breaker.HalfOpen)
		if err := try(b, nil); err != nil {
			t.Fatalf("got error %v, want none", err)
		}
		wantState(t, b, breaker.Closed)
	})
}

func TestSuccessesNeeded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := plain(1)
		c.Probes, c.Successes = 1, 3
		b := due(c)
		for range 2 {
			times(b, 1, nil)
			wantState(t, b, breaker.HalfOpen)
		}
		times(b, 1, nil)
		wantState(t, b, breaker.Closed)
	})
}

// With two of three successes in, a single further probe can close it; a second would be for nothing.
func TestNoMoreProbesThanDecide(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := plain(1)
		c.Probes, c.Successes = 2, 3
		b := due(c)
		times(b, 2, nil)
		p := acquire(t, b)
		if refused(t, b) == nil {
			t.Fatal("a probe was let through that could decide nothing")
		}
		p.DoneErr(context.Background(), nil)
		wantState(t, b, breaker.Closed)
	})
}

func TestProbeFailuresTolerated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := plain(1)
		c.Successes, c.Tolerated = 2, 2
		b := due(c)
		times(b, 2, errDown)
		wantState(t, b, breaker.HalfOpen)
		times(b, 1, nil)
		wantState(t, b, breaker.HalfOpen)
		times(b, 1, errDown)
		wantState(t, b, breaker.Open)

		time.Sleep(b.Snapshot().RetryAfter)
		times(b, 2, errDown) // a new round, with its own two
		times(b, 1, nil)
		wantState(t, b, breaker.HalfOpen)
		times(b, 1, nil)
		wantState(t, b, breaker.Closed)
	})
}

func TestSlowProbe(t *testing.T) {
	for _, c := range []struct {
		rate float64
		want breaker.State
	}{{0.5, breaker.Open}, {0, breaker.Closed}} {
		synctest.Test(t, func(t *testing.T) {
			config := plain(1)
			config.SlowCall, config.SlowRate = time.Second, c.rate
			b := due(config)
			if err := last(b, time.Second, nil); err != nil {
				t.Fatalf("got error %v, want the probe's result", err)
			}
			wantState(t, b, c.want)
		})
	}
}

// With few calls, Successes may be long in coming.
func TestMaxHalfOpen(t *testing.T) {
	for _, c := range []struct {
		name   string
		before func(*breaker.Breaker)
		want   breaker.State // when the next call comes
	}{
		{"more succeeded than failed", func(b *breaker.Breaker) { times(b, 2, nil); times(b, 1, errDown) }, breaker.Closed},
		{"as many", func(b *breaker.Breaker) { times(b, 1, nil); times(b, 1, errDown) }, breaker.Open},
		{"only failed", func(b *breaker.Breaker) { times(b, 1, errDown) }, breaker.Open},
		{"nothing seen", func(b *breaker.Breaker) { times(b, 1, backstay.Ignore(errDown)) }, breaker.HalfOpen},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				config := plain(1)
				config.Successes, config.Tolerated, config.MaxHalfOpen = 100, 100, 10*time.Second
				b := due(config)
				c.before(b)
				time.Sleep(10*time.Second - 1)
				acquire(t, b).Cancel(context.Background())
				wantState(t, b, breaker.HalfOpen)
				time.Sleep(1)
				wantState(t, b, breaker.HalfOpen) // reading moves nothing
				times(b, 1, backstay.Ignore(errDown))
				wantState(t, b, c.want)
			})
		})
	}
}

// A result of a call that began before the last change of state changes nothing: not the state, not the counts.
func TestStaleResults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		l := &log{}
		c := plain(1)
		c.Successes, c.Observer = 2, l
		b := breaker.New(c)
		closed := []*breaker.Permit{acquire(t, b), acquire(t, b), acquire(t, b), acquire(t, b)}
		times(b, 1, errDown)
		closed[0].DoneErr(ctx, nil)
		wantState(t, b, breaker.Open)

		time.Sleep(time.Second)
		probe := acquire(t, b)
		closed[1].DoneErr(ctx, errDown)
		wantState(t, b, breaker.HalfOpen)
		closed[2].DoneErr(ctx, nil)
		if s := b.Snapshot(); s.Probes != 1 || s.Succeeded != 0 {
			t.Fatalf("got %d probes in flight and %d succeeded, want 1 and 0", s.Probes, s.Succeeded)
		}
		b.Reset()
		probe.DoneErr(ctx, errDown)
		closed[3].DoneErr(ctx, errDown)
		wantState(t, b, breaker.Closed)
		if s := b.Snapshot(); s.Calls != 0 || s.Stale != 5 {
			t.Fatalf("got %d calls and %d stale results, want 0 and 5", s.Calls, s.Stale)
		}
		if got := len(l.kinds(backstay.EventStale)); got != 5 {
			t.Fatalf("got %d events of stale results, want 5", got)
		}
	})
}

// Probes bounds how many are in flight, also where more are needed to close.
func TestProbesAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := plain(1)
		c.Probes, c.Successes = 2, 5
		b := due(c)
		first := acquire(t, b)
		acquire(t, b)
		if refused(t, b) == nil {
			t.Fatal("a third probe was let through beside two")
		}
		first.DoneErr(context.Background(), nil)
		acquire(t, b)
		if refused(t, b) == nil {
			t.Fatal("a third probe was let through beside two, after one had succeeded")
		}
	})
}

// With a gap, probes begin one after another until one has succeeded; then the others need not wait. What a refusal says of the time is the rest of the gap.
func TestProbeGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := plain(1)
		c.Probes, c.Successes, c.ProbeGap, c.OpenFor = 3, 3, 400*time.Millisecond, time.Second
		b := due(c)
		first := acquire(t, b)
		time.Sleep(400*time.Millisecond - 1)
		if r := refused(t, b); r == nil || r.RetryAfter != 1 {
			t.Fatalf("just before the gap is over: got %+v, want a refusal for 1ns", r)
		}
		time.Sleep(1)
		second := acquire(t, b) // the first takes its time
		if r := refused(t, b); r == nil || r.RetryAfter != 400*time.Millisecond {
			t.Fatalf("beside two probes: got %+v, want a refusal for 400ms", r)
		}
		first.DoneErr(context.Background(), nil)
		third := acquire(t, b) // at once, although the second has just begun: it works
		if refused(t, b) == nil {
			t.Fatal("a fourth probe was let through where three decide")
		}
		second.DoneErr(context.Background(), nil)
		third.DoneErr(context.Background(), nil)
		wantState(t, b, breaker.Closed)
	})
}

// A probe that ends without saying anything leaves no gap behind: nothing of it is under way any more.
func TestProbeGapAfterNeutral(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := plain(1)
		c.Probes, c.Successes, c.ProbeGap = 2, 2, time.Second
		b := due(c)
		acquire(t, b).Cancel(context.Background())
		acquire(t, b)
	})
}

package breaker_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/breaker"
)

// A window that is shorter than the calls must see them all the same: they are filed under their end.
func TestWindowShorterThanLatency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(breaker.Config{Window: 10 * time.Second, MinCalls: 5, Consecutive: -1})
		var calls sync.WaitGroup
		for i := range 20 {
			calls.Go(func() { _ = last(b, 30*time.Second+time.Duration(i)*time.Millisecond, errDown) })
		}
		time.Sleep(30*time.Second + 3*time.Millisecond)
		synctest.Wait()
		wantState(t, b, breaker.Closed)
		time.Sleep(time.Millisecond)
		synctest.Wait()
		wantState(t, b, breaker.Open)
		calls.Wait()
	})
}

func TestSparseFailuresInARow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(breaker.Config{Window: time.Second, Consecutive: 5, FailureRate: -1})
		for i := range 5 {
			if i > 0 {
				time.Sleep(2 * time.Second)
			}
			wantState(t, b, breaker.Closed)
			_ = try(b, errDown)
		}
		wantState(t, b, breaker.Open)
	})
}

func TestSuccessEndsTheRow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(plain(3))
		times(b, 2, errDown)
		times(b, 1, nil)
		times(b, 2, errDown)
		wantState(t, b, breaker.Closed)
		times(b, 1, backstay.Ignore(errDown))
		wantState(t, b, breaker.Closed)
		times(b, 1, errDown)
		wantState(t, b, breaker.Open)
	})
}

// One hiccup fails all the calls that are in flight at that moment. That is no outage yet.
func TestRowMustSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(breaker.Config{MinCalls: 1000})
		times(b, 50, errDown)
		wantState(t, b, breaker.Closed)
		time.Sleep(time.Second - 1)
		times(b, 1, errDown)
		wantState(t, b, breaker.Closed)
		time.Sleep(1)
		times(b, 1, errDown)
		wantState(t, b, breaker.Open)
	})
}

// Calls that hang are not yet part of the rate.
func TestCallsInFlightDiluteNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(breaker.Config{Consecutive: -1})
		var hung []*breaker.Permit
		for range 90 {
			hung = append(hung, acquire(t, b))
		}
		times(b, 19, errDown)
		wantState(t, b, breaker.Closed)
		times(b, 1, errDown)
		wantState(t, b, breaker.Open)
		for _, p := range hung {
			p.Cancel(context.Background())
		}
	})
}

func TestFailureRate(t *testing.T) {
	for _, c := range []struct {
		name            string
		config          breaker.Config
		good, bad, more int // successes, failures, then failures until open
	}{
		{"half of twenty", breaker.Config{}, 10, 9, 1},
		{"over half, below the minimum", breaker.Config{}, 0, 19, 1},
		{"a tenth", breaker.Config{FailureRate: 0.1, MinCalls: 10}, 90, 9, 1},
		{"all", breaker.Config{FailureRate: 1, MinCalls: 3}, 0, 2, 1},
		{"last ten", breaker.Config{Count: 10}, 100, 4, 1},
		{"last thousand", breaker.Config{Count: 1000}, 1000, 499, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c.config.Consecutive = -1
				b := breaker.New(c.config)
				times(b, c.good, nil)
				times(b, c.bad, errDown)
				wantState(t, b, breaker.Closed)
				times(b, c.more, errDown)
				wantState(t, b, breaker.Open)
			})
		})
	}
}

// The twentieth call makes a rate of what came before, also when it is a success itself.
func TestSuccessThatFillsTheMinimum(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(breaker.Config{Consecutive: -1})
		times(b, 19, errDown)
		wantState(t, b, breaker.Closed)
		times(b, 1, nil)
		wantState(t, b, breaker.Open)
	})
}

// When old successes leave the window the rate goes up, which is no news of the dependency.
func TestSuccessOfAnAgeingWindowDoesNotOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(breaker.Config{Consecutive: -1, MinCalls: 5})
		times(b, 100, nil)
		time.Sleep(25 * time.Second)
		times(b, 10, errDown)
		time.Sleep(5 * time.Second)
		times(b, 9, nil)
		wantState(t, b, breaker.Closed)
		times(b, 1, errDown)
		wantState(t, b, breaker.Open)
	})
}

func TestWindowForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(breaker.Config{Consecutive: -1})
		times(b, 19, errDown)
		time.Sleep(30 * time.Second)
		times(b, 19, errDown)
		wantState(t, b, breaker.Closed)
	})
}

func TestSlowCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(breaker.Config{SlowCall: 200 * time.Millisecond, SlowRate: 0.5, MinCalls: 10})
		for i := range 10 {
			wantState(t, b, breaker.Closed)
			d := time.Millisecond
			if i < 6 {
				d = 300 * time.Millisecond
			}
			if err := last(b, d, nil); err != nil {
				t.Fatalf("call %d: got error %v, want its result", i, err)
			}
		}
		wantState(t, b, breaker.Open)
	})
}

func TestSlowIsFromSlowCallOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(breaker.Config{SlowCall: 200 * time.Millisecond, SlowRate: 0.5, MinCalls: 2})
		_ = last(b, 200*time.Millisecond-1, nil)
		_ = last(b, 200*time.Millisecond, nil)
		if got := b.Snapshot().Slow; got != 1 {
			t.Fatalf("got %d slow calls, want 1", got)
		}
		wantState(t, b, breaker.Open)
	})
}

func TestSlowCallsAreOffByDefault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(breaker.Config{})
		for range 30 {
			_ = last(b, time.Minute, nil)
		}
		wantState(t, b, breaker.Closed)
	})
}

func TestRulesThatAreOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(breaker.Config{FailureRate: -1, Consecutive: -1, SlowRate: -1})
		for range 1000 {
			_ = last(b, 10*time.Second, errDown)
		}
		wantState(t, b, breaker.Closed)
		b.Trip()
		wantState(t, b, breaker.Open)
	})
}

// How an attempt ended, and who ended it. The breaker opens on a single failure.
func TestEndings(t *testing.T) {
	// wait is a function that is ended by its context, and says so or not.
	wait := func(say error) func(context.Context) error {
		return func(ctx context.Context) error {
			<-ctx.Done()
			if say != nil {
				return say
			}
			return ctx.Err()
		}
	}
	limit := func(d time.Duration) backstay.Policy { // an attempt timeout: its own expiry is its own failure
		return backstay.PolicyFunc(func(next backstay.Handler) backstay.Handler {
			return func(ctx context.Context, call *backstay.Call) backstay.Outcome {
				ctx, cancel := context.WithTimeout(ctx, d)
				defer cancel()
				return next(ctx, call)
			}
		})
	}
	cancelled := func(d time.Duration) func(context.Context) (context.Context, context.CancelFunc) {
		return func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(ctx)
			time.AfterFunc(d, cancel)
			return ctx, cancel
		}
	}
	deadline := func(d time.Duration) func(context.Context) (context.Context, context.CancelFunc) {
		return func(ctx context.Context) (context.Context, context.CancelFunc) { return context.WithTimeout(ctx, d) }
	}
	for _, c := range []struct {
		name  string
		ctx   func(context.Context) (context.Context, context.CancelFunc)
		inner backstay.Policy
		fn    func(context.Context) error
		want  breaker.State
	}{
		{name: "an error", fn: func(context.Context) error { return errDown }, want: breaker.Open},
		{name: "a marked error", fn: func(context.Context) error { return backstay.Ignore(errDown) }, want: breaker.Closed},
		{name: "the caller cancels", ctx: cancelled(time.Minute), fn: wait(nil), want: breaker.Closed},
		{name: "the caller cancels, the driver says something else", ctx: cancelled(time.Minute), fn: wait(errors.New("read: canceled")), want: breaker.Closed},
		{name: "the attempt timeout fires", inner: limit(time.Second), fn: wait(nil), want: breaker.Open},
		{name: "the attempt timeout fires before the caller's deadline", ctx: deadline(time.Minute), inner: limit(time.Second), fn: wait(nil), want: breaker.Open},
		{name: "the caller's deadline passes, soon", ctx: deadline(5*time.Second - 1), fn: wait(nil), want: breaker.Closed},
		{name: "the caller's deadline passes, after SlowCall", ctx: deadline(5 * time.Second), fn: wait(nil), want: breaker.Open},
		{name: "a failure just before the caller cancels", ctx: cancelled(time.Minute), fn: func(context.Context) error { return errDown }, want: breaker.Open},
		{
			name: "an inner policy refuses", want: breaker.Closed, fn: func(context.Context) error { return nil },
			inner: backstay.PolicyFunc(func(backstay.Handler) backstay.Handler {
				return func(context.Context, *backstay.Call) backstay.Outcome {
					return backstay.Reject(&backstay.Rejected{Policy: "bulkhead", Reason: "full"})
				}
			}),
		},
		{
			name: "an answer that is a failure, as the caller cancels", want: breaker.Open, ctx: cancelled(time.Second), fn: wait(nil),
			inner: backstay.Classify(func(_ context.Context, out backstay.Outcome) backstay.Outcome {
				out.Class, out.Answered = backstay.Failure, true
				return out
			}),
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				config := plain(1)
				b := breaker.New(config)
				ctx := context.Background()
				if c.ctx != nil {
					var cancel context.CancelFunc
					ctx, cancel = c.ctx(ctx)
					defer cancel()
				}
				_ = backstay.Run(ctx, backstay.Chain(b, c.inner), c.fn)
				wantState(t, b, c.want)
			})
		})
	}
}

// A hedge cancels the attempt that lost; that says nothing about its server.
func TestLostHedgeIsNeutral(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(plain(1))
		hedge := backstay.PolicyFunc(func(next backstay.Handler) backstay.Handler {
			return func(ctx context.Context, call *backstay.Call) backstay.Outcome {
				lost, cancel := context.WithCancelCause(ctx)
				time.AfterFunc(time.Second, func() { cancel(errors.New("another attempt was faster")) })
				next(lost, call.Next(lost, nil))
				return next(ctx, call)
			}
		})
		attempts := 0
		err := backstay.Run(context.Background(), backstay.Chain(hedge, b), func(ctx context.Context) error {
			if attempts++; attempts == 1 {
				<-ctx.Done()
				return context.Cause(ctx)
			}
			return nil
		})
		if err != nil || attempts != 2 {
			t.Fatalf("got error %v after %d attempts, want none after 2", err, attempts)
		}
		wantState(t, b, breaker.Closed)
	})
}

func TestPanicIsAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(plain(1))
		boom := fmt.Errorf("boom")
		func() {
			defer func() {
				if got := recover(); got != boom {
					t.Fatalf("got panic %v, want %v", got, boom)
				}
			}()
			_ = backstay.Run(context.Background(), backstay.Chain(b), func(context.Context) error { panic(boom) })
		}()
		wantState(t, b, breaker.Open)
	})
}

func TestRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(plain(2))
		b.Record(backstay.Failure)
		b.Record(backstay.Neutral)
		b.Record(backstay.Unclassified)
		if s := b.Snapshot(); s.Calls != 1 || s.Failures != 1 {
			t.Fatalf("got %d calls and %d failures, want 1 and 1", s.Calls, s.Failures)
		}
		b.Record(backstay.Success)
		b.Record(backstay.Failure)
		wantState(t, b, breaker.Closed)
		b.Record(backstay.Failure)
		wantState(t, b, breaker.Open)

		b.Record(backstay.Success)
		time.Sleep(time.Second)
		b.Record(backstay.Success)
		wantState(t, b, breaker.Due)
		if got := b.Snapshot().Stale; got != 2 {
			t.Fatalf("got %d stale results, want 2", got)
		}
	})
}

// body is a held value that may turn out to be broken.
type body struct{ broken func(error) }

func (*body) Release()                  {}
func (*body) OnRelease(func())          {}
func (h *body) OnBreak(f func(error))   { h.broken = f }
func (h *body) stall()                  { h.broken(errors.New("stalled")) }
func (h *body) policy() backstay.Policy { return backstay.Classify(h.hold) }
func (h *body) hold(_ context.Context, out backstay.Outcome) backstay.Outcome {
	out.Held = h
	return out
}

// A body may stall after its call has been counted as a success.
func TestValueThatBreaksLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &body{}
		b := breaker.New(plain(2))
		call := func() {
			_ = backstay.Run(context.Background(), backstay.Chain(b, h.policy()), func(context.Context) error { return nil })
		}
		call()
		h.stall()
		if got := b.Snapshot(); got.Calls != 2 || got.Failures != 1 {
			t.Fatalf("got %d endings and %d failures, want 2 and 1", got.Calls, got.Failures)
		}
		h.stall()
		wantState(t, b, breaker.Open)

		h.broken = nil
		b.SetMode(breaker.Shadow)
		call() // would have been refused
		if h.broken != nil {
			t.Error("the breaker wants to hear of a call that it would have refused")
		}
	})
}

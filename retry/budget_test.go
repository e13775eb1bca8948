package retry_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/budget"
	"github.com/backstay-go/backstay/retry"
)

// empty returns a budget without tokens that gets none.
func empty() *budget.Budget {
	return budget.New(budget.Config{Ratio: -1, Start: -1, Floor: -1})
}

// T37 and T40: an empty budget denies the extra attempt only, before the wait, and leaves the real error.
func TestEmptyBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := begin()
		err := run(retry.New(retry.Config{Delay: 5 * time.Second, Jitter: retry.None, Budget: empty()}), tr.failing(errDown))
		if tr.n != 1 || time.Since(tr.t0) != 0 {
			t.Errorf("got %d attempts in %v, want 1 without a wait", tr.n, time.Since(tr.t0))
		}
		if !errors.Is(err, errDown) || !errors.Is(err, retry.ErrBudget) {
			t.Errorf("got %v, want the error and ErrBudget", err)
		}
		if err := run(retry.New(retry.Config{Budget: empty()}), func(context.Context) error { return nil }); err != nil {
			t.Errorf("a call that succeeds: got %v, want nil", err)
		}
	})
}

// A token is taken for attempts that are made, and for nothing else.
func TestTokensAreCountedExactly(t *testing.T) {
	reject := backstay.Reject(&backstay.Rejected{Policy: "breaker", Reason: "open", RetryAfter: time.Second})
	fail := backstay.Outcome{Class: backstay.Failure, Err: errDown}
	for _, tc := range []struct {
		name string
		c    retry.Config
		left time.Duration
		outs []backstay.Outcome
		want int64
	}{
		{"three attempts", retry.Config{}, time.Hour, []backstay.Outcome{fail}, 2},
		{"success", retry.Config{}, time.Hour, []backstay.Outcome{{Class: backstay.Success}}, 0},
		{"second attempt succeeds", retry.Config{}, time.Hour, []backstay.Outcome{fail, {Class: backstay.Success}}, 1},
		{"the deadline forbids the wait", retry.Config{Delay: 2 * time.Second}, time.Second, []backstay.Outcome{fail}, 0},
		{"the hint is too long", retry.Config{}, time.Hour, []backstay.Outcome{{Class: backstay.Failure, Err: errDown, Wait: time.Minute}}, 0},
		{"rejected", retry.Config{}, time.Hour, []backstay.Outcome{reject}, 0},
		{"rejected, waited for", retry.Config{WaitForBreaker: true}, time.Hour, []backstay.Outcome{reject, {Class: backstay.Success}}, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			b := budget.New(budget.Config{})
			tc.c.Budget, tc.c.Jitter = b, retry.None
			ctx, cancel := context.WithTimeout(t.Context(), tc.left)
			defer cancel()
			h, _ := outcomes(tc.outs...)
			backstay.Chain(retry.New(tc.c)).Handle(ctx, backstay.CallInfo{}, h)
			if got := b.Snapshot().Withdrawn; got != tc.want {
				t.Errorf("%s: got %d tokens taken, want %d", tc.name, got, tc.want)
			}
		})
	}
}

// T39: with 10,000 concurrent calls that fail, retries stay at the ratio and what the budget started with, counted exactly.
func TestBudgetUnderContention(t *testing.T) {
	b := budget.New(budget.Config{Ratio: 0.2, TTL: 24 * time.Hour, Start: 3, Cap: -1, Floor: -1})
	p := backstay.Chain(retry.New(retry.Config{Delay: -1, Attempts: 10, Budget: b}))
	const calls = 10_000
	var attempts atomic.Int64
	var wg sync.WaitGroup
	for range calls {
		wg.Go(func() {
			_ = backstay.Run(context.Background(), p, func(context.Context) error { attempts.Add(1); return errDown })
		})
	}
	wg.Wait()
	retries := attempts.Load() - calls
	if most := int64(calls/5 + 3); retries > most || retries < most-2 {
		t.Errorf("got %d retries of %d calls, want %d or at most two less", retries, calls, most)
	}
	if got := b.Snapshot().Withdrawn; got != retries {
		t.Errorf("got %d tokens taken for %d retries", got, retries)
	}
}

// A server that fails everything, at rates from 1 to 5,000 calls a second: the load grows by the ratio and the start, not by three.
func TestAmplification(t *testing.T) {
	for _, rate := range []int{1, 50, 500, 5000} {
		synctest.Test(t, func(t *testing.T) {
			p := backstay.Chain(retry.New(retry.Config{Budget: budget.New(budget.Config{})}))
			seconds := 20
			if rate > 500 {
				seconds = 4
			}
			attempts := 0
			var mu sync.Mutex
			var wg sync.WaitGroup
			for range rate * seconds {
				wg.Go(func() {
					_ = backstay.Run(t.Context(), p, func(context.Context) error {
						time.Sleep(time.Millisecond)
						mu.Lock()
						attempts++
						mu.Unlock()
						return errDown
					})
				})
				time.Sleep(time.Second / time.Duration(rate))
			}
			wg.Wait()
			calls := rate * seconds
			most := float64(calls)*1.1 + 2 + float64(seconds)/10 + 1
			t.Logf("%d calls a second: %.3f attempts per call", rate, float64(attempts)/float64(calls))
			if float64(attempts) > most || attempts < calls*11/10 {
				t.Errorf("%d calls a second: got %d attempts of %d calls, want at most %v and at least a tenth more", rate, attempts, calls, most)
			}
		})
	}
}

func TestSharedBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := budget.New(budget.Config{})
		one, two := retry.New(retry.Config{Budget: b}), retry.New(retry.Config{Budget: b})
		tr := begin()
		_ = run(one, tr.failing(errDown))
		_ = run(two, tr.failing(errDown))
		if tr.n != 4 {
			t.Errorf("got %d attempts of two calls with two tokens, want 4", tr.n)
		}
	})
}

func TestBudgetPerKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		budgets := budget.PerKey(budget.Config{}, backstay.KeyedConfig{})
		r := retry.New(retry.Config{BudgetFor: budgets.For})
		tr := begin()
		for range 5 {
			_ = run(r, tr.failing(errDown), backstay.WithKey("bad"))
		}
		if tr.n != 7 {
			t.Errorf("got %d attempts of 5 calls to one key, want 7", tr.n)
		}
		tr = begin()
		_ = run(r, tr.failing(errDown), backstay.WithKey("other"))
		if tr.n != 3 {
			t.Errorf("got %d attempts to another key, want 3", tr.n)
		}
		none := retry.New(retry.Config{BudgetFor: func(string) *budget.Budget { return nil }})
		tr = begin()
		if _ = run(none, tr.failing(errDown)); tr.n != 3 {
			t.Errorf("without a budget: got %d attempts, want 3", tr.n)
		}
	})
}

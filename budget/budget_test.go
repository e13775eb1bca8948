package budget_test

import (
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backstay-go/backstay/budget"
)

// drain withdraws until the budget is empty and returns how many tokens there were.
func drain(b *budget.Budget) (n int) {
	for b.Withdraw() {
		n++
	}
	return n
}

func TestStartsLow(t *testing.T) {
	b := budget.New(budget.Config{})
	if got := drain(b); got != 2 {
		t.Errorf("a new budget: got %d tokens, want 2", got)
	}
	var zero budget.Budget
	if got := drain(&zero); got != 2 {
		t.Errorf("the zero Budget: got %d tokens, want 2", got)
	}
}

func TestNilAllowsEverything(t *testing.T) {
	var b *budget.Budget
	b.Deposit()
	for range 1000 {
		if !b.Withdraw() {
			t.Fatal("a nil Budget refused")
		}
	}
	if got := b.Snapshot(); got != (budget.Snapshot{}) {
		t.Errorf("got snapshot %+v, want zero", got)
	}
}

func TestTenCallsMakeOneTokenExactly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := budget.New(budget.Config{Start: -1, Floor: -1})
		for range 9 {
			b.Deposit()
		}
		if b.Withdraw() {
			t.Error("nine calls allowed a retry")
		}
		b.Deposit()
		if !b.Withdraw() {
			t.Error("ten calls did not allow a retry")
		}
		if b.Withdraw() {
			t.Error("ten calls allowed a second retry")
		}
	})
}

// The table of Finagle's RetryBudgetTest: in no time, n calls allow n × ratio + reserve retries, give or take one.
func TestRatio(t *testing.T) {
	for _, ratio := range []float64{0.0001, 0.001, 0.01, 0.1, 0.2, 0.25, 0.333333, 0.5, 0.75, 0.9999, 1, 2} {
		for _, start := range []float64{-1, 100} {
			synctest.Test(t, func(t *testing.T) {
				b := budget.New(budget.Config{Ratio: ratio, Start: start, Cap: -1, Floor: -1})
				const calls = 10_000
				retried := 0
				for range calls {
					b.Deposit()
					for range 5 {
						if b.Withdraw() {
							retried++
						}
					}
				}
				want := ratio*calls + max(start, 0)
				if got := float64(retried); got > want || got < want-1 {
					t.Errorf("ratio %v, start %v: got %v retries, want %v or one less", ratio, start, got, want)
				}
			})
		}
	}
}

func TestCap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := budget.New(budget.Config{})
		for range 10_000 {
			b.Deposit()
		}
		if got := drain(b); got != 10 {
			t.Errorf("after 10,000 calls: got %d tokens, want the cap of 10", got)
		}
		for range 10 { // the path without a lock must not hide deposits after a withdrawal
			b.Deposit()
		}
		if got := drain(b); got != 1 {
			t.Errorf("after ten more calls: got %d tokens, want 1", got)
		}
	})
}

// T42: deposits older than TTL allow no retries.
func TestDepositsAge(t *testing.T) {
	for _, tc := range []struct {
		after time.Duration
		want  int
	}{
		{0, 5},
		{8 * time.Second, 5},  // kept for at least 0.9 TTL
		{10 * time.Second, 0}, // and at most TTL
		{time.Hour, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			b := budget.New(budget.Config{Start: -1, Floor: -1})
			time.Sleep(300 * time.Millisecond) // not on the edge of a slot
			for range 50 {
				b.Deposit()
			}
			time.Sleep(tc.after)
			if got := drain(b); got != tc.want {
				t.Errorf("%v after 50 calls: got %d tokens, want %d", tc.after, got, tc.want)
			}
		})
	}
}

// A steady caller at the cap, whose deposits take the path without a lock, keeps its tokens fresh.
func TestDepositsAtTheCapRenew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := budget.New(budget.Config{Start: -1, Floor: -1})
		for range 30 * 200 { // 200 calls a second for 30 s
			b.Deposit()
			time.Sleep(5 * time.Millisecond)
		}
		time.Sleep(8 * time.Second)
		if got := drain(b); got != 10 {
			t.Errorf("8 s after steady calls: got %d tokens, want 10", got)
		}
	})
}

// T38: a floor of 3 per second lets 1 call per second retry, whatever the ratio.
func TestFloor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := budget.New(budget.Config{Ratio: 0.001, Floor: time.Second / 3})
		drain(b)
		for i := range 100 {
			time.Sleep(time.Second)
			b.Deposit()
			if !b.Withdraw() {
				t.Fatalf("call %d may not retry", i)
			}
		}
	})
}

func TestFloorRefillsToStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := budget.New(budget.Config{})
		drain(b)
		time.Sleep(10*time.Second - 1)
		if b.Withdraw() {
			t.Error("a token came before its 10 s")
		}
		time.Sleep(1)
		if got := drain(b); got != 1 {
			t.Errorf("after 10 s: got %d tokens, want 1", got)
		}
		time.Sleep(24 * 365 * time.Hour)
		if got := drain(b); got != 2 {
			t.Errorf("after a year: got %d tokens, want those of a new budget, 2", got)
		}
	})
}

// However often it is looked at, the floor neither loses nor gains.
func TestFloorIsExactUnderPolling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := budget.New(budget.Config{Floor: 7 * time.Second})
		drain(b)
		got := 0
		for range 70_000 * 10 / 7 { // 100 s, a look each millisecond
			time.Sleep(time.Millisecond)
			if b.Withdraw() {
				got++
			}
		}
		if want := 14; got != want {
			t.Errorf("got %d tokens in 100 s, want %d", got, want)
		}
	})
}

// T39: exact under contention.
func TestContention(t *testing.T) {
	b := budget.New(budget.Config{Ratio: 0.2, TTL: 24 * time.Hour, Start: 3, Cap: -1, Floor: -1})
	var allowed, refused atomic.Int64
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for range 2000 {
				b.Deposit()
				for range 2 {
					if b.Withdraw() {
						allowed.Add(1)
					} else {
						refused.Add(1)
					}
				}
			}
		})
	}
	wg.Wait()
	allowed.Add(int64(drain(b)))
	const want = 16*2000/5 + 3
	if got := allowed.Load(); got != want {
		t.Errorf("got %d retries, want %d exactly", got, want)
	}
	s := b.Snapshot()
	if s.Withdrawn != want || s.Denied != refused.Load()+1 {
		t.Errorf("got %d withdrawn and %d denied, want %d and %d", s.Withdrawn, s.Denied, want, refused.Load()+1)
	}
}

func TestContentionAtTheCap(t *testing.T) {
	b := budget.New(budget.Config{TTL: 24 * time.Hour, Floor: -1})
	var calls, allowed atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 20_000 {
				b.Deposit()
				calls.Add(1)
				if i%100 == 0 && b.Withdraw() {
					allowed.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if got, most := allowed.Load(), calls.Load()/10+2; got > most {
		t.Errorf("got %d retries of %d calls, want at most %d", got, calls.Load(), most)
	}
	if got := drain(b); got > 10 {
		t.Errorf("got %d tokens at the end, want at most the cap of 10", got)
	}
}

func TestSnapshotTakesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := budget.New(budget.Config{})
		b.Deposit()
		for range 100 {
			b.Snapshot()
		}
		if got, want := b.Snapshot(), (budget.Snapshot{Tokens: 2.1}); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	})
}

func TestApply(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := budget.New(budget.Config{})
		for range 1000 {
			b.Deposit()
		}
		if err := b.Apply(budget.Config{Ratio: 7000}); err == nil {
			t.Error("a wrong config was applied")
		}
		if got := b.Snapshot().Tokens; got != 10 {
			t.Errorf("after a wrong config: got %v tokens, want 10", got)
		}
		if err := b.Apply(budget.Config{Ratio: 0.5, TTL: time.Minute, Cap: 5}); err != nil {
			t.Fatal(err)
		}
		if got := drain(b); got != 5 {
			t.Errorf("with a cap of 5: got %d tokens, want 5", got)
		}
		b.Deposit()
		b.Deposit()
		time.Sleep(50 * time.Second)
		if !b.Withdraw() {
			t.Error("two calls at a ratio of 0.5 and a TTL of a minute allow no retry 50 s later")
		}
		if got := b.Config().Cap; got != 5 {
			t.Errorf("got a cap of %v, want 5", got)
		}
	})
}

func TestNoAllocations(t *testing.T) {
	b := budget.New(budget.Config{})
	if got := testing.AllocsPerRun(1000, func() { b.Deposit(); b.Withdraw() }); got != 0 {
		t.Errorf("got %v allocations, want none", got)
	}
}

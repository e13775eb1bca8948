package budget_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/budget"
)

func TestPerKey(t *testing.T) {
	budgets := budget.PerKey(budget.Config{}, backstay.KeyedConfig{})
	if a, again := budgets.For("a"), budgets.For("a"); a != again {
		t.Error("one key has two budgets")
	}
	drain(budgets.For("a"))
	if budgets.For("a").Withdraw() {
		t.Error("key a has tokens left")
	}
	if !budgets.For("b").Withdraw() {
		t.Error("key b has no tokens although only a has used some")
	}
}

// A flood of keys leaves the memory bounded and does not make an empty budget whole while others could go.
func TestPerKeyIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // no floor fills a budget meanwhile
		budgets := budget.PerKey(budget.Config{}, backstay.KeyedConfig{Max: 100})
		drain(budgets.For("empty"))
		for i := range 10_000 {
			budgets.For(fmt.Sprint("key-", i)).Deposit()
		}
		if got := budgets.Keyed().Stats().Keys; got > 100 {
			t.Errorf("got %d keys, want at most 100", got)
		}
		if budgets.For("empty").Withdraw() {
			t.Error("an empty budget was forgotten before budgets with nothing to remember")
		}
	})
}

func TestKeep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := budget.New(budget.Config{})
		if busy, left := b.Keep(); busy || left != 0 {
			t.Errorf("new: got %v, %v, want nothing to remember", busy, left)
		}
		drain(b)
		if _, left := b.Keep(); left != 20*time.Second {
			t.Errorf("empty: got %v, want the 20s until it is as new", left)
		}
		time.Sleep(20 * time.Second)
		if _, left := b.Keep(); left != 0 {
			t.Errorf("refilled: got %v, want 0", left)
		}
		never := budget.New(budget.Config{Floor: -1})
		drain(never)
		if _, left := never.Keep(); left < 24*time.Hour {
			t.Errorf("without a floor: got %v, want no end", left)
		}
	})
}

func TestPolicyDepositsOncePerCall(t *testing.T) {
	b := budget.New(budget.Config{Start: -1, Floor: -1})
	p := backstay.Chain(b)
	for range 10 {
		_ = backstay.Run(context.Background(), p, func(context.Context) error { return errors.New("down") })
	}
	if got := b.Snapshot().Tokens; got != 1 {
		t.Errorf("after ten calls: got %v tokens, want 1", got)
	}
	var none *budget.Budget
	if err := backstay.Run(context.Background(), backstay.Chain(none), func(context.Context) error { return nil }); err != nil {
		t.Errorf("a nil Budget in a chain: got %v, want nil", err)
	}
}

func TestPerKeyApply(t *testing.T) {
	budgets := budget.PerKey(budget.Config{}, backstay.KeyedConfig{})
	old := budgets.For("old")
	if err := budgets.Apply(budget.Config{Ratio: 1e9}); err == nil {
		t.Error("a wrong config was applied")
	}
	want := budget.Config{Ratio: 0.5, Start: 5}
	if err := budgets.Apply(want); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"old", "new"} {
		if got := budgets.For(key).Config(); got != want {
			t.Errorf("key %s: got %+v, want %+v", key, got, want)
		}
	}
	if budgets.For("old") != old {
		t.Error("the budget was replaced, with its tokens")
	}
	own := budget.Config{Ratio: 0.25}
	if err := old.Apply(own); err != nil {
		t.Fatal(err)
	}
	if got := budgets.For("old").Config(); got != own {
		t.Errorf("a budget with settings of its own: got %+v, want %+v", got, own)
	}
}

package policies

import (
	"context"
	"errors"
	"testing"
	"time"

	backoff4 "github.com/cenkalti/backoff/v4"
	backoff5 "github.com/cenkalti/backoff/v5"
	failsafe "github.com/failsafe-go/failsafe-go"
	fsbudget "github.com/failsafe-go/failsafe-go/budget"
	"github.com/failsafe-go/failsafe-go/retrypolicy"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/budget"
	"github.com/backstay-go/backstay/retry"
)

// BenchmarkRetry is a call that succeeds at once. `none` is Do without a policy: what `backstay` has above it is the retry's own.
// backoff is a loop around a function and hands it no context.
func BenchmarkRetry(b *testing.B) {
	b.Run("bare", direct)
	b.Run("none", func(b *testing.B) { backstayDo(b) })
	b.Run("backstay", func(b *testing.B) { backstayDo(b, retry.New(retry.Config{})) })
	b.Run("failsafe", func(b *testing.B) { failsafeDo(b, retrypolicy.NewWithDefaults[*item]()) })
	b.Run("backoff4", func(b *testing.B) {
		b.ReportAllocs()
		ctx := b.Context()
		for b.Loop() {
			v, err := backoff4.RetryWithData(plainCall, backoff4.WithContext(&backoff4.ZeroBackOff{}, ctx))
			if v != one || err != nil {
				b.Fatalf("got %v and error %v, want the item", v, err)
			}
		}
	})
	b.Run("backoff5", func(b *testing.B) {
		b.ReportAllocs()
		ctx := b.Context()
		for b.Loop() {
			v, err := backoff5.Retry(ctx, plainCall)
			if v != one || err != nil {
				b.Fatalf("got %v and error %v, want the item", v, err)
			}
		}
	})
}

// BenchmarkRetryBudget is BenchmarkRetry with a budget, and with one of many budgets picked by the call's key.
func BenchmarkRetryBudget(b *testing.B) {
	b.Run("backstay", func(b *testing.B) {
		backstayDo(b, retry.New(retry.Config{Budget: budget.New(budget.Config{})}))
	})
	b.Run("backstay-key", func(b *testing.B) {
		backstayDo(b, retry.New(retry.Config{BudgetFor: budget.PerKey(budget.Config{}, backstay.KeyedConfig{}).For}))
	})
	b.Run("failsafe", func(b *testing.B) {
		failsafeDo(b, retrypolicy.NewBuilder[*item]().WithBudget(fsbudget.New()).Build())
	})
}

// BenchmarkBudget is the deposit of a call: by a busy client, whose budget is at its cap, and without a cap.
func BenchmarkBudget(b *testing.B) {
	for name, c := range map[string]budget.Config{"backstay": {}, "backstay-uncapped": {Cap: -1}} {
		b.Run(name, func(b *testing.B) {
			tokens := budget.New(c)
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					tokens.Deposit()
				}
			})
		})
	}
}

// BenchmarkRetryFails is a call whose three attempts fail, without waits.
func BenchmarkRetryFails(b *testing.B) {
	b.Run("backstay", func(b *testing.B) {
		p := backstay.Chain(retry.New(retry.Config{Delay: -1}))
		b.ReportAllocs()
		ctx := b.Context()
		for b.Loop() {
			if _, err := backstay.Do(ctx, p, failingCall); err == nil {
				b.Fatal("got no error")
			}
		}
	})
	b.Run("failsafe", func(b *testing.B) { failsafeFails(b, retrypolicy.NewWithDefaults[*item]()) })
	b.Run("backoff5", func(b *testing.B) {
		b.ReportAllocs()
		ctx := b.Context()
		for b.Loop() {
			_, err := backoff5.Retry(ctx, func() (*item, error) { return failingCall(ctx) },
				backoff5.WithBackOff(backoff5.NewConstantBackOff(time.Duration(0))), backoff5.WithMaxTries(3))
			if err == nil {
				b.Fatal("got no error")
			}
		}
	})
}

func failsafeFails(b *testing.B, policies ...failsafe.Policy[*item]) {
	x := failsafe.With(policies...)
	b.ReportAllocs()
	ctx := b.Context()
	for b.Loop() {
		_, err := x.WithContext(ctx).GetWithExecution(func(e failsafe.Execution[*item]) (*item, error) { return failingCall(e.Context()) })
		if err == nil {
			b.Fatal("got no error")
		}
	}
}

var errFails = errors.New("fails")

func failingCall(context.Context) (*item, error) { return nil, errFails }

package policies

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"github.com/sony/gobreaker/v2"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/breaker"
)

// BenchmarkBreaker is a successful call through a closed breaker. `backstay` is the policy around a handler, as gobreaker's Execute is around
// a function; `do` is the whole way through backstay.Do, as failsafe's is through its executor.
func BenchmarkBreaker(b *testing.B) {
	b.Run("bare", direct)
	b.Run("backstay", func(b *testing.B) {
		inside(b, breaker.New(breaker.Config{}), answer, func(ctx context.Context, call *backstay.Call, h backstay.Handler) {
			b.ReportAllocs()
			for b.Loop() {
				if out := h(ctx, call); out.Value != any(one) || out.Err != nil {
					b.Fatalf("got %v and error %v, want the item", out.Value, out.Err)
				}
			}
		})
	})
	b.Run("do", func(b *testing.B) { backstayDo(b, breaker.New(breaker.Config{})) })
	b.Run("gobreaker", func(b *testing.B) {
		cb := gobreaker.NewCircuitBreaker[*item](gobreaker.Settings{})
		b.ReportAllocs()
		for b.Loop() {
			if v, err := cb.Execute(plainCall); v != one || err != nil {
				b.Fatalf("got %v and error %v, want the item", v, err)
			}
		}
	})
	b.Run("failsafe", func(b *testing.B) { failsafeDo(b, circuitbreaker.NewWithDefaults[*item]()) })
}

// BenchmarkBreakerParallel is BenchmarkBreaker from all processors at once.
func BenchmarkBreakerParallel(b *testing.B) {
	b.Run("backstay", func(b *testing.B) {
		inside(b, breaker.New(breaker.Config{}), answer, func(ctx context.Context, call *backstay.Call, h backstay.Handler) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if out := h(ctx, call); out.Err != nil {
						b.Errorf("got error %v", out.Err)
					}
				}
			})
		})
	})
	b.Run("gobreaker", func(b *testing.B) {
		cb := gobreaker.NewCircuitBreaker[*item](gobreaker.Settings{})
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if _, err := cb.Execute(plainCall); err != nil {
					b.Errorf("got error %v", err)
				}
			}
		})
	})
}

// BenchmarkBreakerOpen is a call that an open breaker refuses.
func BenchmarkBreakerOpen(b *testing.B) {
	const openFor = time.Hour
	b.Run("backstay", func(b *testing.B) {
		br := breaker.New(breaker.Config{OpenFor: openFor})
		br.Trip()
		inside(b, br, answer, func(ctx context.Context, call *backstay.Call, h backstay.Handler) {
			b.ReportAllocs()
			for b.Loop() {
				if out := h(ctx, call); !errors.Is(out.Err, breaker.ErrOpen) {
					b.Fatalf("got error %v, want a refusal", out.Err)
				}
			}
		})
	})
	b.Run("gobreaker", func(b *testing.B) {
		cb := gobreaker.NewCircuitBreaker[*item](gobreaker.Settings{
			Timeout: openFor, ReadyToTrip: func(gobreaker.Counts) bool { return true },
		})
		_, _ = cb.Execute(func() (*item, error) { return nil, errors.New("down") })
		b.ReportAllocs()
		for b.Loop() {
			if _, err := cb.Execute(plainCall); !errors.Is(err, gobreaker.ErrOpenState) {
				b.Fatalf("got error %v, want a refusal", err)
			}
		}
	})
}

func plainCall() (*item, error) { return one, nil }

// answer is call as an adapter makes it.
func answer(context.Context, *backstay.Call) backstay.Outcome {
	return backstay.Outcome{Value: one, Class: backstay.Success, Answered: true}
}

// inside runs loop with a call and with p around h.
func inside(b *testing.B, p backstay.Policy, h backstay.Handler, loop func(context.Context, *backstay.Call, backstay.Handler)) {
	h = p.Wrap(h)
	measure := backstay.PolicyFunc(func(backstay.Handler) backstay.Handler {
		return func(ctx context.Context, call *backstay.Call) backstay.Outcome {
			loop(ctx, call, h)
			return backstay.Outcome{}
		}
	})
	_ = backstay.Run(b.Context(), backstay.Chain(measure), func(context.Context) error { return nil })
}

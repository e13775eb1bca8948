package policies

import (
	"context"
	"testing"
	"time"

	failsafe "github.com/failsafe-go/failsafe-go"
	fsbulkhead "github.com/failsafe-go/failsafe-go/bulkhead"
	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"github.com/failsafe-go/failsafe-go/retrypolicy"
	fstimeout "github.com/failsafe-go/failsafe-go/timeout"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/breaker"
	"github.com/backstay-go/backstay/bulkhead"
	"github.com/backstay-go/backstay/retry"
	"github.com/backstay-go/backstay/timeout"
)

// item is what the call returns: a pointer, as most calls of services do.
type item struct{ n int }

var one = &item{n: 1}

// call is what is protected.
func call(context.Context) (*item, error) { return one, nil }

// direct is the call without any policy.
func direct(b *testing.B) {
	b.ReportAllocs()
	ctx := b.Context()
	for b.Loop() {
		if v, err := call(ctx); v != one || err != nil {
			b.Fatalf("got %v and error %v, want the item", v, err)
		}
	}
}

// backstayDo measures calls through a pipeline.
func backstayDo(b *testing.B, policies ...backstay.Policy) {
	p := backstay.Chain(policies...)
	b.ReportAllocs()
	ctx := b.Context()
	for b.Loop() {
		if v, err := backstay.Do(ctx, p, call); v != one || err != nil {
			b.Fatalf("got %v and error %v, want the item", v, err)
		}
	}
}

// failsafeDo measures calls through an executor that is built once. The context is handed to the function, as it is by the others.
func failsafeDo(b *testing.B, policies ...failsafe.Policy[*item]) {
	x := failsafe.With(policies...)
	b.ReportAllocs()
	ctx := b.Context()
	for b.Loop() {
		v, err := x.WithContext(ctx).GetWithExecution(func(e failsafe.Execution[*item]) (*item, error) { return call(e.Context()) })
		if v != one || err != nil {
			b.Fatalf("got %v and error %v, want the item", v, err)
		}
	}
}

// failsafeAlone is failsafeDo without a context: cheaper, but nobody can cancel the call.
func failsafeAlone(b *testing.B, policies ...failsafe.Policy[*item]) {
	x := failsafe.With(policies...)
	b.ReportAllocs()
	ctx := b.Context()
	for b.Loop() {
		if v, err := x.Get(func() (*item, error) { return call(ctx) }); v != one || err != nil {
			b.Fatalf("got %v and error %v, want the item", v, err)
		}
	}
}

// failsafeStack returns the three policies of BenchmarkStackNoTimeout.
func failsafeStack() []failsafe.Policy[*item] {
	return []failsafe.Policy[*item]{
		retrypolicy.NewWithDefaults[*item](), fsbulkhead.New[*item](1000), circuitbreaker.NewWithDefaults[*item](),
	}
}

// failsafeTimed returns the five policies of BenchmarkStack.
func failsafeTimed() []failsafe.Policy[*item] {
	timed := append([]failsafe.Policy[*item]{fstimeout.New[*item](30 * time.Second)}, failsafeStack()...)
	return append(timed, fstimeout.New[*item](10*time.Second))
}

// BenchmarkStackNoTimeout is retry, breaker and bulkhead.
func BenchmarkStackNoTimeout(b *testing.B) {
	b.Run("bare", direct)
	b.Run("backstay", func(b *testing.B) {
		backstayDo(b, retry.New(retry.Config{}), bulkhead.New(bulkhead.Config{}), breaker.New(breaker.Config{}))
	})
	b.Run("failsafe", func(b *testing.B) { failsafeDo(b, failsafeStack()...) })
	b.Run("failsafe-without-context", func(b *testing.B) { failsafeAlone(b, failsafeStack()...) })
}

// BenchmarkStack is the whole default order: total timeout, retry, bulkhead, breaker, attempt timeout.
func BenchmarkStack(b *testing.B) {
	b.Run("bare", func(b *testing.B) { // two nested context.WithTimeout, what anybody writes by hand
		b.ReportAllocs()
		ctx := b.Context()
		for b.Loop() {
			total, cancelTotal := context.WithTimeout(ctx, 30*time.Second)
			attempt, cancel := context.WithTimeout(total, 10*time.Second)
			if v, err := call(attempt); v != one || err != nil {
				b.Fatalf("got %v and error %v, want the item", v, err)
			}
			cancel()
			cancelTotal()
		}
	})
	b.Run("backstay", func(b *testing.B) {
		backstayDo(b, timeout.New(30*time.Second), retry.New(retry.Config{}), bulkhead.New(bulkhead.Config{}), breaker.New(breaker.Config{}),
			timeout.New(10*time.Second))
	})
	b.Run("failsafe", func(b *testing.B) { failsafeDo(b, failsafeTimed()...) })
	b.Run("failsafe-without-context", func(b *testing.B) { failsafeAlone(b, failsafeTimed()...) })
}

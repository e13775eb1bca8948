package backstay_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/breaker"
	"github.com/backstay-go/backstay/bulkhead"
	"github.com/backstay-go/backstay/retry"
	"github.com/backstay-go/backstay/timeout"
)

type inventory struct{ calls int }

// Stock fails the first time.
func (i *inventory) Stock(context.Context, string) (int, error) {
	if i.calls++; i.calls == 1 {
		return 0, errors.New("connection reset")
	}
	return 42, nil
}

// A function is called through a pipeline of policies, outermost first. The pipeline is built once and kept.
func Example_function() {
	ctx, service := context.Background(), &inventory{}

	pipeline := backstay.Chain(
		timeout.New(30*time.Second), // the whole call
		retry.New(retry.Config{}),
		bulkhead.New(bulkhead.Config{Limit: 100}),
		breaker.New(breaker.Config{Name: "inventory"}),
		timeout.New(2*time.Second), // each attempt
	)
	stock, err := backstay.Do(ctx, pipeline, func(ctx context.Context) (int, error) {
		return service.Stock(ctx, "teapot")
	})
	if errors.Is(err, breaker.ErrOpen) {
		fmt.Println("inventory is down; ask again later")
	}

	fmt.Println(stock, err, "after", service.calls, "attempts")
	// Output: 42 <nil> after 2 attempts
}

// The nesting of a pipeline can be printed, and checked for an order that will not do what its author expects.
func Example_order() {
	pipeline := backstay.Chain(
		breaker.New(breaker.Config{Name: "inventory"}),
		retry.New(retry.Config{}),
	)
	for _, finding := range pipeline.Lint() {
		fmt.Println(finding)
	}
	// Output: breaker-outside-retry: breaker "inventory" (50% of ≥ 20 in 30s or 10 in a row; open 1s to 5s) stands outside the retry and sees one ending per call, not each attempt; put it inside
}

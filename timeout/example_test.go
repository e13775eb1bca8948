package timeout_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/timeout"
)

func ExampleNew() {
	p := backstay.Chain(timeout.New(10 * time.Millisecond))
	err := backstay.Run(context.Background(), p, func(ctx context.Context) error {
		<-ctx.Done() // a query that takes too long
		return ctx.Err()
	})
	fmt.Println(err, errors.Is(err, timeout.ErrExceeded), errors.Is(err, context.DeadlineExceeded))
	// Output: timeout: exceeded 10ms true true
}

func ExampleNewWith() {
	quick := timeout.NewWith(timeout.Config{Name: "search", Limit: time.Second, MinAttempt: 50 * time.Millisecond})
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	err := backstay.Run(ctx, backstay.Chain(quick), func(context.Context) error { return nil })
	fmt.Println(errors.Is(err, timeout.ErrNoTime))
	// Output: true
}

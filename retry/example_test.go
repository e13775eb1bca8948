package retry_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/budget"
	"github.com/backstay-go/backstay/retry"
)

func ExampleNew() {
	p := backstay.Chain(retry.New(retry.Config{
		Delay:  time.Millisecond,
		Budget: budget.New(budget.Config{}), // keep it for the life of the process
	}))

	greeting, err := backstay.Do(context.Background(), p, func(ctx context.Context) (string, error) {
		if n := backstay.CallFrom(ctx).Attempt(); n < 3 {
			return "", fmt.Errorf("attempt %d: connection refused", n)
		}
		return "hello", nil
	})
	fmt.Println(greeting, err)
	// Output: hello <nil>
}

func ExampleRetry_Loop() {
	r := retry.New(retry.Config{Delay: time.Millisecond})

	fetch := func(ctx context.Context) (string, error) {
		if backstay.CallFrom(ctx).Attempt() == 1 {
			return "", errors.New("connection refused")
		}
		return "hello", nil
	}
	var greeting string
	var err error
	for attempt := range r.Loop(context.Background(), &err) { // attempt is the context of this attempt
		greeting, err = fetch(attempt)
		fmt.Println("attempt", attempt.Attempt(), err)
	}
	fmt.Println(greeting, err)
	// Output:
	// attempt 1 connection refused
	// attempt 2 <nil>
	// hello <nil>
}

// A schedule written for cenkalti/backoff serves as it is.
func ExampleConfig_backoff() {
	r := retry.New(retry.Config{Backoff: func() retry.BackOff { // a new one for each call
		return backoff.NewConstantBackOff(20 * time.Millisecond)
	}})
	fmt.Println(r.Describe())
	for d := range r.Delays() {
		fmt.Println(d)
		break
	}
	// Output:
	// retry (3 attempts, own backoff ≤ 5s)
	// 20ms
}

// Fewer attempts for one error than for others: a Classify innermost says which.
func ExampleConfig_perError() {
	errLocked := errors.New("row is locked")
	p := backstay.Chain(
		retry.New(retry.Config{Attempts: 5, Delay: -1}),
		backstay.Classify(func(ctx context.Context, out backstay.Outcome) backstay.Outcome {
			if errors.Is(out.Err, errLocked) && backstay.CallFrom(ctx).Attempt() >= 2 {
				out.Again = backstay.No
			}
			return out
		}),
	)
	n := 0
	err := backstay.Run(context.Background(), p, func(context.Context) error { n++; return errLocked })
	fmt.Println(n, err)
	// Output: 2 row is locked
}

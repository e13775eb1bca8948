// Own-policy writes a policy in one function literal, as with net/http middleware: it refuses calls outside opening hours, and counts how
// long each attempt took. It works at any place of a pipeline.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/retry"
)

var errClosed = errors.New("closed")

// openingHours refuses calls while open reports false. Other policies do not count its refusals, and a retry does not repeat them.
func openingHours(open func() bool) backstay.Policy {
	return backstay.PolicyFunc(func(next backstay.Handler) backstay.Handler {
		return func(ctx context.Context, call *backstay.Call) backstay.Outcome {
			if !open() {
				return backstay.Reject(&backstay.Rejected{Policy: "opening hours", Reason: "closed", Err: errClosed})
			}
			return next(ctx, call)
		}
	})
}

// stopwatch adds up how long attempts take. What it remembers is in the policy value, not in the handler that Wrap returns.
type stopwatch struct{ attempts, nanos atomic.Int64 }

func (s *stopwatch) Wrap(next backstay.Handler) backstay.Handler {
	return func(ctx context.Context, call *backstay.Call) backstay.Outcome {
		start := time.Now()
		defer func() { // also when the call panics
			s.attempts.Add(1)
			s.nanos.Add(int64(time.Since(start)))
		}()
		return next(ctx, call)
	}
}

func main() {
	open, watch := true, &stopwatch{}
	pipeline := backstay.Chain(
		openingHours(func() bool { return open }),
		retry.New(retry.Config{Delay: time.Millisecond}),
		watch,
	)
	greet := func(ctx context.Context) (string, error) {
		if attempt := backstay.CallFrom(ctx).Attempt(); attempt < 3 {
			return "", fmt.Errorf("attempt %d: not yet", attempt)
		}
		return "good morning", nil
	}

	text, err := backstay.Do(context.Background(), pipeline, greet)
	fmt.Printf("open:   %q, error %v, %d attempts\n", text, err, watch.attempts.Load())

	open = false
	_, refused := backstay.Do(context.Background(), pipeline, greet)
	fmt.Printf("closed: %v, %d attempts\n", refused, watch.attempts.Load())

	if err != nil || !errors.Is(refused, errClosed) || !errors.Is(refused, backstay.ErrRejected) || watch.attempts.Load() != 3 {
		os.Exit(1)
	}
	fmt.Println("shown: two policies of one's own, one that refuses and one that watches each attempt, beside a retry.")
}

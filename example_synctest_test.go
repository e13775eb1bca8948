package backstay_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/breaker"
	"github.com/backstay-go/backstay/retry"
)

// TestVirtualTime is the test of docs/guides/testing.md: an hour's wait takes no time.
func TestVirtualTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pipeline := backstay.Chain(
			retry.New(retry.Config{Attempts: 2, Delay: time.Hour, MaxDelay: time.Hour, Jitter: retry.None}),
			breaker.New(breaker.Config{Consecutive: 2, Spread: -1}),
		)
		down := func(context.Context) (int, error) { return 0, errors.New("down") }

		start := time.Now()
		if _, err := backstay.Do(t.Context(), pipeline, down); err == nil {
			t.Error("got no error from a dependency that is down, want one")
		}
		if waited := time.Since(start); waited != time.Hour {
			t.Errorf("waited %v, want the hour between two attempts", waited)
		}
		if _, err := backstay.Do(t.Context(), pipeline, down); !errors.Is(err, breaker.ErrOpen) {
			t.Errorf("got %v after two failures in a row, want a refusal by the breaker", err)
		}
	})
}

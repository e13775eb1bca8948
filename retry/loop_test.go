package retry_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/retry"
)

func TestLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := retry.New(retry.Config{Delay: time.Second, Jitter: retry.None})
		start := time.Now()
		var err error
		n := 0
		for attempt := range r.Loop(t.Context(), &err, backstay.Named("get")) {
			n++
			if attempt.Attempt() != n || attempt.Name() != "get" || attempt.Err() != nil {
				t.Errorf("got attempt %d of %q, want %d of get", attempt.Attempt(), attempt.Name(), n)
			}
			if err != nil {
				t.Errorf("attempt %d began with %v, want nil", n, err)
			}
			if n > 1 && attempt.Previous() != errDown {
				t.Errorf("got previous %v, want down", attempt.Previous())
			}
			if n < 3 {
				err = errDown
			}
		}
		if n != 3 || err != nil || time.Since(start) != 3*time.Second {
			t.Errorf("got %d attempts and %v in %v, want 3 and nil in 3s", n, err, time.Since(start))
		}
	})
}

func TestLoopGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var err error
		loop := retry.New(retry.Config{}).Loop(t.Context(), &err)
		for range 2 { // each range is a call of its own
			n := 0
			for range loop {
				n++
				err = errDown
			}
			var e *retry.ExhaustedError
			if n != 3 || !errors.As(err, &e) || e.Err != errDown {
				t.Errorf("got %d attempts and %v, want 3 and an ExhaustedError", n, err)
			}
		}
	})
}

func TestLoopPermanent(t *testing.T) {
	var err error
	n := 0
	for range retry.New(retry.Config{}).Loop(t.Context(), &err) {
		n++
		err = backstay.Permanent(errDown)
	}
	if n != 1 || err != errDown {
		t.Errorf("got %d attempts and %v, want 1 and the bare error", n, err)
	}
}

func TestLoopBreak(t *testing.T) {
	var err error
	n := 0
	for range retry.New(retry.Config{}).Loop(t.Context(), &err) {
		n++
		err = errDown
		break
	}
	if n != 1 || err != errDown {
		t.Errorf("got %d attempts and %v, want 1 and what the body left", n, err)
	}
	func() {
		defer func() {
			if got := recover(); got != "boom" {
				t.Errorf("got panic %v, want boom", got)
			}
		}()
		for range retry.New(retry.Config{}).Loop(t.Context(), &err) {
			panic("boom")
		}
	}()
}

func TestLoopContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var err error
	for range retry.New(retry.Config{}).Loop(ctx, &err) {
		t.Error("the body ran although the context was over")
	}
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
}

// A retry inside the body is nested like any other.
func TestLoopNests(t *testing.T) {
	r := retry.New(retry.Config{Delay: -1})
	var err error
	n := 0
	for attempt := range r.Loop(t.Context(), &err) {
		err = backstay.Run(attempt, backstay.Chain(r), func(context.Context) error { n++; return errDown })
	}
	if n != 3 || !errors.Is(err, errDown) {
		t.Errorf("got %d attempts and %v, want 3", n, err)
	}
}

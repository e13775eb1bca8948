package retry_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/retry"
)

// T32: what a server asks for is waited for, jittered upward only; nonsense is ignored; too much ends the call.
func TestHints(t *testing.T) {
	half := func() float64 { return 0.5 }
	for _, tc := range []struct {
		name string
		c    retry.Config
		hint time.Duration
		want time.Duration
		err  error
	}{
		{"none", retry.Config{}, 0, 100 * time.Millisecond, nil},
		{"negative", retry.Config{}, -5 * time.Second, 100 * time.Millisecond, nil},
		{"exact", retry.Config{HintJitter: -1}, 3 * time.Second, 3 * time.Second, nil},
		{"a little later", retry.Config{Rand: half}, 3 * time.Second, 3150 * time.Millisecond, nil},
		{"never earlier", retry.Config{Rand: func() float64 { return -9 }}, 3 * time.Second, 3 * time.Second, nil},
		{"shorter than the schedule", retry.Config{HintJitter: -1}, time.Millisecond, time.Millisecond, nil},
		{"longer than MaxDelay", retry.Config{HintJitter: -1, MaxDelay: time.Second}, 20 * time.Second, 20 * time.Second, nil},
		{"as long as MaxHint", retry.Config{HintJitter: -1}, 30 * time.Second, 30 * time.Second, nil},
		{"too long", retry.Config{}, 30*time.Second + 1, 0, retry.ErrHint},
		{"the longest there is", retry.Config{}, 1<<63 - 1, 0, retry.ErrHint},
		{"the longest there is, without a bound", retry.Config{MaxHint: -1, HintJitter: 1}, 1<<63 - 1, 0, retry.ErrHint},
		{"146 years, without a bound", retry.Config{MaxHint: -1, HintJitter: 1, MaxElapsed: time.Hour}, 1 << 62, 0, retry.ErrElapsed},
	} {
		synctest.Test(t, func(t *testing.T) {
			tc.c.Attempts, tc.c.Jitter = 2, retry.None
			h, n := outcomes(
				backstay.Outcome{Class: backstay.Failure, Err: errDown, Wait: tc.hint},
				backstay.Outcome{Class: backstay.Success},
			)
			start := time.Now()
			out := backstay.Chain(retry.New(tc.c)).Handle(t.Context(), backstay.CallInfo{}, h)
			if took := time.Since(start); took != tc.want || !errors.Is(out.Err, tc.err) {
				t.Errorf("%s: got %v in %v, want %v in %v", tc.name, out.Err, took, tc.err, tc.want)
			}
			if tc.err != nil && (*n != 1 || !errors.Is(out.Err, errDown)) {
				t.Errorf("%s: got %v after %d attempts, want the last error after 1", tc.name, out.Err, *n)
			}
		})
	}
}

func TestHintTooLongIsTold(t *testing.T) {
	err := run(retry.New(retry.Config{}), func(context.Context) error { return backstay.RetryAfter(errDown, time.Hour) })
	if err == nil || !strings.Contains(err.Error(), "the server asks to wait too long (1h0m0s): down") {
		t.Errorf("got %v, want a word on the hour", err)
	}
	var e *retry.ExhaustedError
	if !errors.As(err, &e) || e.Wait != time.Hour {
		t.Errorf("got %+v, want a Wait of 1h", e)
	}
}

func TestHintThatDoesNotFitTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		start := time.Now()
		err := backstay.Run(ctx, backstay.Chain(retry.New(retry.Config{})), func(context.Context) error { return backstay.RetryAfter(errDown, 20*time.Second) })
		if time.Since(start) != 0 || !errors.Is(err, retry.ErrDeadline) || !errors.Is(err, errDown) {
			t.Errorf("got %v in %v, want ErrDeadline at once", err, time.Since(start))
		}
	})
}

// A hint is no step of the schedule: the waits after it begin where they would have.
func TestHintLeavesTheScheduleAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, _ := outcomes(
			backstay.Outcome{Class: backstay.Failure, Err: errDown, Wait: 3 * time.Second},
			backstay.Outcome{Class: backstay.Failure, Err: errDown},
			backstay.Outcome{Class: backstay.Success},
		)
		start := time.Now()
		backstay.Chain(retry.New(retry.Config{Jitter: retry.None, HintJitter: -1})).Handle(t.Context(), backstay.CallInfo{}, h)
		if got, want := time.Since(start), 3100*time.Millisecond; got != want {
			t.Errorf("got %v, want %v", got, want)
		}
	})
}

// An exact wait is kept to the letter, also one of nothing, and the schedule begins anew after it.
func TestExactWait(t *testing.T) {
	for _, wait := range []time.Duration{0, 3 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			h, _ := outcomes(
				backstay.Outcome{Class: backstay.Failure, Err: errDown},
				backstay.Outcome{Class: backstay.Failure, Err: errDown, Wait: wait, WaitExact: true},
				backstay.Outcome{Class: backstay.Failure, Err: errDown},
				backstay.Outcome{Class: backstay.Success},
			)
			start := time.Now()
			out := backstay.Chain(retry.New(retry.Config{Attempts: 4, Jitter: retry.None, HintJitter: 1})).Handle(t.Context(), backstay.CallInfo{}, h)
			if got, want := time.Since(start), 200*time.Millisecond+wait; got != want || out.Err != nil {
				t.Errorf("an exact wait of %v: got %v and %v in all, want nil and %v: 100ms, the wait, 100ms again", wait, out.Err, got, want)
			}
		})
	}
	synctest.Test(t, func(t *testing.T) {
		h, n := outcomes(backstay.Outcome{Class: backstay.Failure, Err: errDown, Wait: time.Hour, WaitExact: true})
		out := backstay.Chain(retry.New(retry.Config{})).Handle(t.Context(), backstay.CallInfo{}, h)
		if !errors.Is(out.Err, retry.ErrHint) || *n != 1 {
			t.Errorf("an exact wait of an hour: got %v after %d attempts, want ErrHint after 1", out.Err, *n)
		}
	})
}

package retry_test

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/retry"
)

// T26: a wait that would pass the deadline is not begun.
func TestGivesUpBeforeTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		tr := begin()
		err := backstay.Run(ctx, backstay.Chain(retry.New(retry.Config{Delay: 5 * time.Second, Jitter: retry.None})), tr.failing(errDown))
		if took := time.Since(tr.t0); took != 0 || tr.n != 1 {
			t.Errorf("got %d attempts in %v, want 1 at once", tr.n, took)
		}
		if !errors.Is(err, errDown) || !errors.Is(err, retry.ErrDeadline) || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want the error and ErrDeadline; the deadline has not passed", err)
		}
		if got, want := err.Error(), "retry: 1 attempt in 0s, then the wait would pass the deadline (5s): down"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

func TestMinAttemptMustFit(t *testing.T) {
	for _, tc := range []struct {
		min, left time.Duration
		want      int
	}{
		{0, 110 * time.Millisecond, 2}, // 100 ms wait and 10 ms
		{0, 109 * time.Millisecond, 1},
		{time.Second, 1100 * time.Millisecond, 2},
		{time.Second, 1099 * time.Millisecond, 1},
		{-1, 101 * time.Millisecond, 2},
		{-1, 99 * time.Millisecond, 1},
	} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), tc.left)
			defer cancel()
			tr := begin()
			r := retry.New(retry.Config{Attempts: 2, Jitter: retry.None, MinAttempt: tc.min})
			_ = backstay.Run(ctx, backstay.Chain(r), tr.failing(errDown))
			if tr.n != tc.want {
				t.Errorf("MinAttempt %v with %v left: got %d attempts, want %d", tc.min, tc.left, tr.n, tc.want)
			}
		})
	}
}

// T27: when the context ends the wait, its cause and the last error are both there.
func TestContextEndsTheWait(t *testing.T) {
	errQuit := errors.New("quit")
	for _, tc := range []struct {
		name string
		end  func(context.Context) (context.Context, context.CancelFunc)
		want []error
	}{
		{"cancelled", func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(ctx)
			time.AfterFunc(time.Second, cancel)
			return ctx, cancel
		}, []error{context.Canceled}},
		{"cancelled with a cause", func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancelCause(ctx)
			time.AfterFunc(time.Second, func() { cancel(errQuit) })
			return ctx, func() { cancel(nil) }
		}, []error{context.Canceled, errQuit}},
		{"a deadline that was not announced", func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithTimeout(ctx, time.Second)
			return hiddenDeadline{ctx}, cancel
		}, []error{context.DeadlineExceeded}},
	} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := tc.end(t.Context())
			defer cancel()
			entered := 0 // policies inside are left alone too: no permit is taken for an attempt that cannot be made
			inside := backstay.PolicyFunc(func(next backstay.Handler) backstay.Handler {
				return func(ctx context.Context, call *backstay.Call) backstay.Outcome { entered++; return next(ctx, call) }
			})
			tr := begin()
			err := backstay.Run(ctx, backstay.Chain(retry.New(retry.Config{Delay: 5 * time.Second, Jitter: retry.None}), inside), tr.failing(errDown))
			if took := time.Since(tr.t0); took != time.Second || tr.n != 1 || entered != 1 {
				t.Errorf("%s: got %d attempts, %d into the policy inside, in %v, want 1 in 1s", tc.name, tr.n, entered, took)
			}
			for _, want := range append(tc.want, errDown) {
				if !errors.Is(err, want) {
					t.Errorf("%s: got %v, want it to match %v", tc.name, err, want)
				}
			}
		})
	}
}

type hiddenDeadline struct{ context.Context }

func (hiddenDeadline) Deadline() (time.Time, bool) { return time.Time{}, false }

// When the context cuts a later attempt short, what made it necessary is still there.
func TestContextEndsALaterAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		n := 0
		err := backstay.Run(ctx, backstay.Chain(retry.New(retry.Config{})), func(ctx context.Context) error {
			if n++; n == 1 {
				return errDown
			}
			<-ctx.Done()
			return &net.OpError{Op: "read", Err: os.ErrDeadlineExceeded} // as a driver tells it
		})
		if n != 2 || !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, errDown) || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("got %v after %d attempts, want both errors and the deadline after 2", err, n)
		}
		if te, ok := err.(interface{ Timeout() bool }); !ok || !te.Timeout() {
			t.Errorf("got Timeout not true of %v", err)
		}
	})
}

func TestNothingAfterTheCallerHasGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		n := 0
		err := backstay.Run(ctx, backstay.Chain(retry.New(retry.Config{})), func(context.Context) error { n++; cancel(); return errDown })
		if n != 1 || err != errDown {
			t.Errorf("got %v after %d attempts, want the bare error after 1", err, n)
		}
		err = backstay.Run(ctx, backstay.Chain(retry.New(retry.Config{})), func(context.Context) error { n++; return errDown })
		if n != 1 || !errors.Is(err, context.Canceled) {
			t.Errorf("a context that is over: got %v after %d attempts, want its error after none", err, n-1)
		}
	})
}

// T28: no attempt is squeezed in at the end.
func TestMaxElapsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := begin()
		r := retry.New(retry.Config{Attempts: -1, Schedule: retry.Constant, Delay: 800 * time.Millisecond, Jitter: retry.None, MaxElapsed: time.Second})
		err := run(r, tr.failing(errDown))
		if tr.n != 2 || time.Since(tr.t0) != 800*time.Millisecond {
			t.Errorf("got attempts at %v and the end at %v, want 2 and the end at 800ms", tr.at, time.Since(tr.t0))
		}
		if !errors.Is(err, retry.ErrElapsed) || !errors.Is(err, errDown) {
			t.Errorf("got %v, want ErrElapsed and the error", err)
		}
	})
}

// T36: what a policy inside refuses is not repeated.
func TestRejectionIsNotRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, n := outcomes(backstay.Reject(&backstay.Rejected{Policy: "breaker", Reason: "open", RetryAfter: time.Second}))
		start := time.Now()
		out := backstay.Chain(retry.New(retry.Config{})).Handle(t.Context(), backstay.CallInfo{}, h)
		if *n != 1 || time.Since(start) != 0 {
			t.Errorf("got %d attempts in %v, want 1 without a wait", *n, time.Since(start))
		}
		if r, ok := out.Err.(*backstay.Rejected); !ok || r.RetryAfter != time.Second {
			t.Errorf("got %v, want the bare rejection", out.Err)
		}
	})
}

// A breaker that opens between two attempts: the caller gets the answer of the first, and both errors.
func TestLaterRejectionHandsBackTheOutcomeBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		released := 0
		h, n := outcomes(
			backstay.Outcome{Class: backstay.Failure, Err: errDown, Value: "503", Answered: true, Held: held(func() { released++ })},
			backstay.Reject(&backstay.Rejected{Policy: "breaker", Reason: "open", RetryAfter: time.Second}),
		)
		out := backstay.Chain(retry.New(retry.Config{})).Handle(t.Context(), backstay.CallInfo{Holds: true}, h)
		var r *backstay.Rejected
		if *n != 2 || out.Value != "503" || !errors.Is(out.Err, errDown) || !errors.As(out.Err, &r) || !errors.Is(out.Err, backstay.ErrRejected) {
			t.Errorf("got %v, %v after %d attempts, want the value and both errors after 2", out.Value, out.Err, *n)
		}
		if out.Again != backstay.No || out.Class != backstay.Failure || !out.Answered {
			t.Errorf("got %+v, want a failure that answered and is not to be repeated", out)
		}
		if released != 1 || out.Held == nil {
			t.Errorf("got %d releases, want 1, before the wait", released)
		}
	})
}

func TestWaitForBreaker(t *testing.T) {
	reject := func(after time.Duration) backstay.Outcome {
		return backstay.Reject(&backstay.Rejected{Policy: "breaker", Reason: "open", RetryAfter: after})
	}
	ok := backstay.Outcome{Class: backstay.Success, Value: "v"}
	fail := backstay.Outcome{Class: backstay.Failure, Err: errDown}
	for _, tc := range []struct {
		name  string
		outs  []backstay.Outcome
		left  time.Duration
		calls int
		took  time.Duration
		rest  []error // what the error matches
		bare  bool    // the error is the rejection itself
	}{
		{"once", []backstay.Outcome{reject(700 * time.Millisecond), ok}, 0, 2, 700 * time.Millisecond, nil, false},
		{"not twice", []backstay.Outcome{reject(time.Second), reject(time.Second), ok}, 0, 2, time.Second, []error{backstay.ErrRejected}, true},
		{"not past the deadline", []backstay.Outcome{reject(time.Second), ok}, 500 * time.Millisecond, 1, 0, []error{backstay.ErrRejected}, true},
		{"not for longer than MaxHint", []backstay.Outcome{reject(time.Minute), ok}, 0, 1, 0, []error{backstay.ErrRejected}, true},
		{"not without a time", []backstay.Outcome{reject(0), ok}, 0, 1, 0, []error{backstay.ErrRejected}, true},
		{"refused attempts are not counted", []backstay.Outcome{reject(time.Second), fail}, 0, 4, 4 * time.Second, []error{errDown}, false},
		{"in the middle", []backstay.Outcome{fail, reject(time.Second), ok}, 0, 3, 2 * time.Second, nil, false},
		{"in the middle, in vain", []backstay.Outcome{fail, reject(time.Second), reject(time.Second)}, 0, 3, 2 * time.Second, []error{errDown, backstay.ErrRejected}, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			ctx := t.Context()
			if tc.left > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, tc.left)
				defer cancel()
			}
			h, n := outcomes(tc.outs...)
			r := retry.New(retry.Config{WaitForBreaker: true, Delay: time.Second, Jitter: retry.None})
			start := time.Now()
			out := backstay.Chain(r).Handle(ctx, backstay.CallInfo{}, h)
			if *n != tc.calls || time.Since(start) != tc.took {
				t.Errorf("%s: got %d calls in %v, want %d in %v", tc.name, *n, time.Since(start), tc.calls, tc.took)
			}
			if tc.rest == nil && out.Err != nil {
				t.Errorf("%s: got %v, want no error", tc.name, out.Err)
			}
			for _, want := range tc.rest {
				if !errors.Is(out.Err, want) {
					t.Errorf("%s: got %v, want it to match %v", tc.name, out.Err, want)
				}
			}
			if _, bare := out.Err.(*backstay.Rejected); bare != tc.bare {
				t.Errorf("%s: got %T, want the bare rejection: %v", tc.name, out.Err, tc.bare)
			}
		})
	}
}

func TestContextEndsTheWaitForABreaker(t *testing.T) {
	for _, before := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(1500*time.Millisecond, cancel)
			all := []backstay.Outcome{backstay.Reject(&backstay.Rejected{Policy: "breaker", Reason: "open", RetryAfter: 5 * time.Second})}
			if before {
				all = append([]backstay.Outcome{{Class: backstay.Failure, Err: errDown, Value: "503"}}, all...)
			}
			h, _ := outcomes(all...)
			out := backstay.Chain(retry.New(retry.Config{WaitForBreaker: true, Delay: time.Second, Jitter: retry.None})).Handle(ctx, backstay.CallInfo{}, h)
			if !errors.Is(out.Err, context.Canceled) || !errors.Is(out.Err, backstay.ErrRejected) {
				t.Errorf("got %v, want the cancellation and the rejection", out.Err)
			}
			if before && (!errors.Is(out.Err, errDown) || out.Value != "503") {
				t.Errorf("got %v, %v, want the outcome before too", out.Value, out.Err)
			}
		})
	}
}

func TestEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []string
		r := retry.New(retry.Config{Name: "n", Delay: time.Second, Jitter: retry.None, Observer: backstay.ObserverFunc(func(_ context.Context, e backstay.Event) {
			got = append(got, strings.Join([]string{e.Kind.String(), e.Policy, e.Name, e.Call, e.Reason, e.Wait.String(), e.Err.Error()}, " ")+" "+string(rune('0'+e.Attempt)))
		})})
		tr := begin()
		_ = run(r, tr.failing(errDown), backstay.Named("get"))
		want := []string{
			"retry retry n get schedule 1s down 1",
			"retry retry n get schedule 2s down 2",
			`stop retry n get attempts 0s retry "n": 3 attempts in 3s: down 3`,
		}
		if strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	})
}

// A schedule that says stop ends the call like a last attempt.
func TestScheduleThatStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var reason string
		r := retry.New(retry.Config{
			Attempts: -1,
			Backoff:  func() retry.BackOff { return &backOffs{time.Second, -1} },
			Observer: backstay.ObserverFunc(func(_ context.Context, e backstay.Event) { reason = e.Reason }),
		})
		tr := begin()
		err := run(r, tr.failing(errDown))
		var e *retry.ExhaustedError
		if tr.n != 2 || !errors.As(err, &e) || e.Cause != nil || e.Err != errDown || reason != "schedule" {
			t.Errorf("got %d attempts, %v and reason %q, want 2, the error without a cause, schedule", tr.n, err, reason)
		}
	})
}

func TestExhaustedErrorFindsBoth(t *testing.T) {
	last, cause := &net.OpError{Op: "dial", Err: os.ErrDeadlineExceeded}, &backstay.Rejected{Policy: "breaker", Reason: "open"}
	err := error(&retry.ExhaustedError{Attempts: 2, Elapsed: 90 * time.Second, Err: last, Cause: cause})
	var op *net.OpError
	var r *backstay.Rejected
	if !errors.As(err, &op) || op != last || !errors.As(err, &r) || r != cause {
		t.Errorf("got %v, %v; want both the last error and the cause", op, r)
	}
	var nested *retry.ExhaustedError
	outer := &retry.ExhaustedError{Err: &retry.ExhaustedError{Err: errDown, Cause: retry.ErrBudget}, Cause: retry.ErrDeadline}
	if !errors.As(outer.Unwrap(), &nested) || !errors.Is(outer, retry.ErrBudget) || !errors.Is(outer, retry.ErrDeadline) || !errors.Is(outer, errDown) {
		t.Errorf("got %v, want all four to be found", outer)
	}
	for _, tc := range []struct {
		err, cause error
		want       bool
	}{
		{errDown, nil, false},
		{errDown, retry.ErrDeadline, false}, // it has not passed
		{os.ErrDeadlineExceeded, nil, true},
		{errDown, context.DeadlineExceeded, true},
		{nil, nil, false},
	} {
		if got := (&retry.ExhaustedError{Err: tc.err, Cause: tc.cause}).Timeout(); got != tc.want {
			t.Errorf("timeout of %v, %v: got %v, want %v", tc.err, tc.cause, got, tc.want)
		}
	}
	if got, want := err.Error(), `retry: 2 attempts in 1m30s, then breaker: open: dial: i/o timeout`; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

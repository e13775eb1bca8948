package retry_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/retry"
)

var errDown = errors.New("down")

// tries counts the attempts of one call and when they were made.
type tries struct {
	n  int
	at []time.Duration
	t0 time.Time
}

func begin() *tries { return &tries{t0: time.Now()} }

// failing fails every attempt with err.
func (tr *tries) failing(err error) func(context.Context) error {
	return func(context.Context) error {
		tr.n++
		tr.at = append(tr.at, time.Since(tr.t0))
		return err
	}
}

func run(r *retry.Retry, fn func(context.Context) error, opts ...backstay.CallOption) error {
	return backstay.Run(context.Background(), backstay.Chain(r), fn, opts...)
}

// outcomes is an innermost handler that gives its outcomes one after the other, the last one for ever.
func outcomes(all ...backstay.Outcome) (backstay.Handler, *int) {
	n := 0
	return func(context.Context, *backstay.Call) backstay.Outcome {
		out := all[min(n, len(all)-1)]
		n++
		return out
	}, &n
}

func TestRepeatsUntilSuccess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		got, err := backstay.Do(t.Context(), backstay.Chain(retry.New(retry.Config{})), func(context.Context) (string, error) {
			if n++; n < 3 {
				return "", errDown
			}
			return "hello", nil
		})
		if got != "hello" || err != nil || n != 3 {
			t.Errorf("got %q, %v after %d attempts, want hello, nil after 3", got, err, n)
		}
	})
}

func TestExhausted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := begin()
		err := run(retry.New(retry.Config{Name: "inventory", Delay: time.Second, Jitter: retry.None}), tr.failing(errDown))
		var e *retry.ExhaustedError
		if !errors.As(err, &e) {
			t.Fatalf("got %v, want an ExhaustedError", err)
		}
		if e.Attempts != 3 || e.Elapsed != 3*time.Second || e.Cause != nil || errors.Unwrap(err) != errDown {
			t.Errorf("got %+v, want 3 attempts, 3s, no cause, the last error inside", e)
		}
		if got, want := err.Error(), `retry "inventory": 3 attempts in 3s: down`; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		if want := []time.Duration{0, time.Second, 3 * time.Second}; fmt.Sprint(tr.at) != fmt.Sprint(want) {
			t.Errorf("got attempts at %v, want %v", tr.at, want)
		}
	})
}

func TestNumberOfAttempts(t *testing.T) {
	for _, tc := range []struct {
		name string
		c    retry.Config
		opt  backstay.CallOption
		want int
	}{
		{"default", retry.Config{}, nil, 3},
		{"one", retry.Config{Attempts: 1}, nil, 1},
		{"five", retry.Config{Attempts: 5}, nil, 5},
		{"unlimited", retry.Config{Attempts: -1, Delay: time.Second, Jitter: retry.None, Schedule: retry.Constant, MaxElapsed: 1001 * time.Second}, nil, 1001},
		{"the call's own", retry.Config{}, backstay.Attempts(7), 7},
		{"the call's own goes before one", retry.Config{Attempts: 1}, backstay.Attempts(2), 2},
		{"no retry", retry.Config{}, backstay.NoRetry(), 1},
	} {
		synctest.Test(t, func(t *testing.T) {
			var opts []backstay.CallOption
			if tc.opt != nil {
				opts = append(opts, tc.opt)
			}
			tr := begin()
			err := run(retry.New(tc.c), tr.failing(errDown), opts...)
			if tr.n != tc.want || !errors.Is(err, errDown) {
				t.Errorf("%s: got %d attempts and %v, want %d and the error", tc.name, tr.n, err, tc.want)
			}
			if tc.want == 1 && err != errDown {
				t.Errorf("%s: got %v, want the bare error of a single attempt", tc.name, err)
			}
		})
	}
}

func TestWhatIsRepeated(t *testing.T) {
	for _, tc := range []struct {
		name string
		out  backstay.Outcome
		info backstay.CallInfo
		want int
	}{
		{"success", backstay.Outcome{Class: backstay.Success}, backstay.CallInfo{}, 1},
		{"success that may be repeated", backstay.Outcome{Class: backstay.Success, Again: backstay.Yes}, backstay.CallInfo{}, 1},
		{"success with an error", backstay.Outcome{Class: backstay.Success, Err: errDown}, backstay.CallInfo{}, 1},
		{"failure", backstay.Outcome{Class: backstay.Failure, Err: errDown}, backstay.CallInfo{}, 3},
		{"failure without an error", backstay.Outcome{Class: backstay.Failure}, backstay.CallInfo{}, 3},
		{"failure that may not", backstay.Outcome{Class: backstay.Failure, Err: errDown, Again: backstay.No}, backstay.CallInfo{}, 1},
		{"failure of a call that may not", backstay.Outcome{Class: backstay.Failure, Err: errDown}, backstay.CallInfo{Repeat: backstay.No}, 1},
		{"the same, sent", backstay.Outcome{Class: backstay.Failure, Err: errDown, Sent: backstay.SentYes}, backstay.CallInfo{Repeat: backstay.No}, 1},
		{"the same, provably not sent", backstay.Outcome{Class: backstay.Failure, Err: errDown, Sent: backstay.SentNever}, backstay.CallInfo{Repeat: backstay.No}, 3},
		{"the same, marked", backstay.Outcome{Class: backstay.Failure, Err: errDown, Again: backstay.Yes}, backstay.CallInfo{Repeat: backstay.No}, 3},
		{"neutral", backstay.Outcome{Class: backstay.Neutral, Err: errDown}, backstay.CallInfo{}, 1},
		{"neutral that may be: a 429", backstay.Outcome{Class: backstay.Neutral, Err: errDown, Again: backstay.Yes, Answered: true}, backstay.CallInfo{}, 3},
		{"rejected", backstay.Reject(&backstay.Rejected{Policy: "breaker", Reason: "open"}), backstay.CallInfo{}, 1},
		{"rejected, whatever it says", backstay.Outcome{Class: backstay.Failure, Again: backstay.Yes, Err: &backstay.Rejected{}}, backstay.CallInfo{}, 1},
	} {
		synctest.Test(t, func(t *testing.T) {
			h, n := outcomes(tc.out)
			backstay.Chain(retry.New(retry.Config{})).Handle(t.Context(), tc.info, h)
			if *n != tc.want {
				t.Errorf("%s: got %d attempts, want %d", tc.name, *n, tc.want)
			}
		})
	}
}

func TestPermanent(t *testing.T) {
	for name, err := range map[string]error{
		"ours":             backstay.Permanent(errDown),
		"backoff's":        backoff.Permanent(errDown),
		"backoff's inside": fmt.Errorf("at host: %w", backoff.Permanent(errDown)),
		"ignored":          backstay.Ignore(errDown),
	} {
		synctest.Test(t, func(t *testing.T) {
			tr := begin()
			got := run(retry.New(retry.Config{}), tr.failing(err))
			if tr.n != 1 || !errors.Is(got, errDown) {
				t.Errorf("%s: got %d attempts and %v, want 1 and the error", name, tr.n, got)
			}
			if name != "backoff's inside" && got != errDown {
				t.Errorf("%s: got %#v, want the bare error", name, got)
			}
		})
	}
}

func TestPermanentAfterRepeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		errGone := errors.New("gone")
		n := 0
		got := run(retry.New(retry.Config{}), func(context.Context) error {
			if n++; n == 2 {
				return backstay.Permanent(errGone)
			}
			return errDown
		})
		if n != 2 || got != errGone {
			t.Errorf("got %d attempts and %v, want 2 and the bare error", n, got)
		}
	})
}

// A failure that is only a value: the last value comes back, and no error is made up.
func TestResultPredicate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := backstay.Chain(retry.New(retry.Config{}), backstay.Classify(func(_ context.Context, out backstay.Outcome) backstay.Outcome {
			if out.Value == "pending" {
				out.Class = backstay.Failure
			}
			return out
		}))
		n := 0
		got, err := backstay.Do(t.Context(), p, func(context.Context) (string, error) { n++; return "pending", nil })
		if got != "pending" || err != nil || n != 3 {
			t.Errorf("got %q, %v after %d attempts, want pending, nil after 3", got, err, n)
		}
	})
}

// T44: number and previous error of an attempt; branches that run side by side have their own.
func TestAttemptInfo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		_ = run(retry.New(retry.Config{}), func(ctx context.Context) error {
			n++
			call := backstay.CallFrom(ctx)
			if call.Attempt() != n {
				t.Errorf("got attempt %d, want %d", call.Attempt(), n)
			}
			var want error
			if n > 1 {
				want = errDown
			}
			if call.Previous() != want {
				t.Errorf("attempt %d: got previous %v, want %v", n, call.Previous(), want)
			}
			return errDown
		})
	})
}

func TestAttemptNumbersUnderAHedge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		seen := map[int]int{}
		twice := backstay.PolicyFunc(func(next backstay.Handler) backstay.Handler {
			return func(ctx context.Context, call *backstay.Call) backstay.Outcome {
				beside := call.Next(ctx, nil)
				var wg sync.WaitGroup
				wg.Go(func() { next(beside, beside) })
				out := next(ctx, call)
				wg.Wait()
				return out
			}
		})
		_ = backstay.Run(t.Context(), backstay.Chain(retry.New(retry.Config{}), twice), func(ctx context.Context) error {
			mu.Lock()
			defer mu.Unlock()
			seen[backstay.CallFrom(ctx).Attempt()]++
			return errDown
		})
		for i := 1; i <= 6; i++ {
			if seen[i] != 1 {
				t.Errorf("got %d attempts with number %d, want 1 (%v)", seen[i], i, seen)
			}
		}
	})
}

// T43: retries inside each other do not multiply, neither in one pipeline nor through a function.
func TestNestedDoesNotMultiply(t *testing.T) {
	r := func(c retry.Config) *retry.Retry { c.Delay = -1; return retry.New(c) }
	for _, tc := range []struct {
		name string
		call func(fn func(context.Context) error) error
		want int
	}{
		{"one pipeline", func(fn func(context.Context) error) error {
			return backstay.Run(t.Context(), backstay.Chain(r(retry.Config{}), r(retry.Config{})), fn)
		}, 3},
		{"through the function", func(fn func(context.Context) error) error {
			return run(r(retry.Config{}), func(ctx context.Context) error {
				return backstay.Run(ctx, backstay.Chain(r(retry.Config{})), fn)
			})
		}, 3},
		{"asked for", func(fn func(context.Context) error) error {
			return run(r(retry.Config{}), func(ctx context.Context) error {
				return backstay.Run(ctx, backstay.Chain(r(retry.Config{Nested: true})), fn)
			})
		}, 9},
		{"around a single attempt", func(fn func(context.Context) error) error {
			return run(r(retry.Config{Attempts: 1}), func(ctx context.Context) error {
				return backstay.Run(ctx, backstay.Chain(r(retry.Config{})), fn)
			})
		}, 3},
		{"five layers", func(fn func(context.Context) error) error {
			for range 5 {
				inner := fn
				fn = func(ctx context.Context) error {
					return backstay.Run(ctx, backstay.Chain(r(retry.Config{})), inner)
				}
			}
			return fn(t.Context())
		}, 3},
	} {
		n := 0
		err := tc.call(func(context.Context) error { n++; return errDown })
		if n != tc.want || !errors.Is(err, errDown) {
			t.Errorf("%s: got %d attempts and %v, want %d and the error", tc.name, n, err, tc.want)
		}
	}
	p := backstay.Chain(r(retry.Config{}), r(retry.Config{}))
	if got := p.Lint(); len(got) != 1 || got[0].Rule != "nested-retry" {
		t.Errorf("got lint %v, want nested-retry", got)
	}
}

// What a discarded outcome holds is let go of before the wait; the last one's stays.
func TestReleasesBeforeTheWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var released []string
		note := func(s string) { released = append(released, fmt.Sprintf("%s at %v", s, time.Since(start))) }
		h, _ := outcomes(
			backstay.Outcome{Class: backstay.Failure, Err: errDown, Value: 1, Held: held(func() { note("first") })},
			backstay.Outcome{Class: backstay.Failure, Err: errDown, Value: 2, Held: held(func() { note("second") })},
			backstay.Outcome{Class: backstay.Failure, Err: errDown, Value: 3, Held: held(func() { note("third") })},
		)
		out := backstay.Chain(retry.New(retry.Config{Delay: time.Second, Jitter: retry.None})).Handle(t.Context(), backstay.CallInfo{Holds: true}, h)
		if got, want := fmt.Sprint(released), "[first at 0s second at 1s]"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		if out.Value != 3 || out.Held == nil {
			t.Errorf("got value %v held %v, want 3, held for the caller", out.Value, out.Held)
		}
	})
}

type held func()

func (h held) Release()           { h() }
func (h held) OnRelease(f func()) { f() }

// T31: one policy value, many goroutines: each call has a schedule of its own.
func TestSharedByManyCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := backstay.Chain(retry.New(retry.Config{Attempts: 4, Delay: time.Second, Jitter: retry.None}))
		var wg sync.WaitGroup
		for i := range 1000 {
			wg.Go(func() {
				time.Sleep(time.Duration(i) * time.Millisecond)
				tr := begin()
				_ = backstay.Run(t.Context(), p, tr.failing(errDown))
				if got, want := fmt.Sprint(tr.at), "[0s 1s 3s 7s]"; got != want {
					t.Errorf("call %d: got attempts at %s, want %s", i, got, want)
				}
			})
		}
		wg.Wait()
	})
}

func TestPanicAndGoexitPassThrough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := retry.New(retry.Config{})
		n := 0
		func() {
			defer func() {
				if got := recover(); got != "boom" {
					t.Errorf("got panic %v, want boom", got)
				}
			}()
			_ = run(r, func(context.Context) error {
				if n++; n == 2 {
					panic("boom")
				}
				return errDown
			})
		}()
		done := make(chan bool)
		go func() {
			defer close(done)
			_ = run(r, func(context.Context) error { n++; runtime.Goexit(); return nil })
		}()
		<-done
		if n != 3 {
			t.Errorf("got %d attempts, want 3: a panic and a Goexit are not repeated", n)
		}
	})
}

func TestNil(t *testing.T) {
	var r *retry.Retry
	tr := begin()
	if err := run(r, tr.failing(errDown)); err != errDown || tr.n != 1 {
		t.Errorf("got %v after %d attempts, want the bare error after 1", err, tr.n)
	}
	var err error
	for range r.Loop(t.Context(), &err) {
		tr.n++
		err = errDown
	}
	if err != errDown || tr.n != 2 {
		t.Errorf("loop: got %v after %d attempts, want the bare error after 1", err, tr.n-1)
	}
	for range r.Delays() {
		t.Error("a nil Retry has a wait")
	}
	if got := r.Describe().String(); got != "retry (none)" {
		t.Errorf("got %q, want retry (none)", got)
	}
}

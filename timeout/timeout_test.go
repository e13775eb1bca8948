package timeout_test

import (
	"context"
	"encoding/json"
	"errors"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/breaker"
	"github.com/backstay-go/backstay/bulkhead"
	"github.com/backstay-go/backstay/timeout"
)

var errBoom = errors.New("boom")

// sleep is a function that ends with its context.
func sleep(d time.Duration) func(context.Context) error {
	return func(ctx context.Context) error {
		select {
		case <-time.After(d):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// T45: our timeout is told from the caller's end.
func TestIdentity(t *testing.T) {
	cases := []struct {
		name   string
		caller func() (context.Context, context.CancelFunc)
		ours   bool
		is     error
		took   time.Duration
	}{
		{"ours", func() (context.Context, context.CancelFunc) { return context.WithCancel(context.Background()) }, true, context.DeadlineExceeded, time.Second},
		{"the caller's deadline", func() (context.Context, context.CancelFunc) {
			return context.WithTimeout(context.Background(), time.Millisecond)
		}, false, context.DeadlineExceeded, time.Millisecond},
		{"the caller's later deadline", func() (context.Context, context.CancelFunc) {
			return context.WithTimeout(context.Background(), time.Hour)
		}, true, context.DeadlineExceeded, time.Second},
		{"the caller's cancel", func() (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(context.Background())
			time.AfterFunc(time.Millisecond, cancel)
			return ctx, cancel
		}, false, context.Canceled, time.Millisecond},
	}
	for _, c := range cases {
		for _, abandon := range []bool{false, true} {
			t.Run(c.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					ctx, cancel := c.caller()
					defer cancel()
					start := time.Now()
					var cause error
					err := backstay.Run(ctx, backstay.Chain(timeout.NewWith(timeout.Config{Name: "db", Limit: time.Second, Abandon: abandon})), func(ctx context.Context) error {
						err := sleep(time.Minute)(ctx)
						cause = context.Cause(ctx)
						return err
					})
					synctest.Wait()
					if took := time.Since(start); took != c.took {
						t.Errorf("took %v, want %v", took, c.took)
					}
					if errors.Is(err, timeout.ErrExceeded) != c.ours || !errors.Is(err, c.is) {
						t.Errorf("got %v; want ours: %v, and %v", err, c.ours, c.is)
					}
					var e *timeout.Error
					if c.ours {
						if !errors.As(err, &e) || e.Name != "db" || e.Limit != time.Second || !e.Timeout() {
							t.Errorf("got %#v, want a *timeout.Error with name and limit", err)
						}
						if !errors.As(cause, &e) || e.Name != "db" || e.Limit != time.Second {
							t.Errorf("cause inside the call: got %v, want the timeout with name and limit", cause)
						}
					}
				})
			})
		}
	}
}

// T46: at the bell it is the value or the timeout, never both.
func TestSuccessAtTheBell(t *testing.T) {
	for _, abandon := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			for i := range 200 {
				fired := 0
				to := timeout.NewWith(timeout.Config{Limit: time.Second, Abandon: abandon, Observer: backstay.ObserverFunc(func(_ context.Context, e backstay.Event) {
					if e.Kind == backstay.EventTimeout {
						fired++
					}
				})})
				got, err := backstay.Do(context.Background(), backstay.Chain(to), func(ctx context.Context) (int, error) {
					if i%2 == 0 {
						ctx.Done()
					}
					time.Sleep(time.Second)
					return 42, nil
				})
				synctest.Wait()
				if value, late := got == 42 && err == nil, got == 0 && errors.Is(err, timeout.ErrExceeded); value == late || late != (fired == 1) {
					t.Fatalf("got %d, %v and %d events", got, err, fired)
				}
			}
		})
	}
}

// T48: a function that ignores its context is waited for, and its value dropped; with Abandon it is left.
func TestFunctionThatIgnoresItsContext(t *testing.T) {
	deaf := func(context.Context) (int, error) { time.Sleep(400 * time.Millisecond); return 42, nil }
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		got, err := backstay.Do(context.Background(), backstay.Chain(timeout.New(50*time.Millisecond)), deaf)
		if took := time.Since(start); took != 400*time.Millisecond || got != 0 || !errors.Is(err, timeout.ErrExceeded) {
			t.Errorf("waited for: got %d, %v after %v; want a timeout after 400ms", got, err, took)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		to := timeout.NewWith(timeout.Config{Limit: 50 * time.Millisecond, Abandon: true})
		_, err := backstay.Do(context.Background(), backstay.Chain(to), deaf)
		if took := time.Since(start); took != 50*time.Millisecond || !errors.Is(err, timeout.ErrExceeded) {
			t.Errorf("abandoned: got %v after %v; want a timeout after 50ms", err, took)
		}
		if got := to.Abandoned(); got != 1 {
			t.Errorf("abandoned functions that run: got %d, want 1", got)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if got := to.Abandoned(); got != 0 {
			t.Errorf("abandoned functions at the end: got %d, want 0", got)
		}
	})
}

// T48: what an abandoned function does late goes to the hook and to nobody else.
func TestAbandonedEndings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var panicked any
		closed := 0
		to := timeout.NewWith(timeout.Config{Limit: time.Second, Abandon: true, OnPanic: func(v any) { panicked = v }})
		p := backstay.Chain(to)
		_ = backstay.Run(context.Background(), p, func(context.Context) error { time.Sleep(time.Minute); panic(errBoom) })
		_ = backstay.Run(context.Background(), p, func(context.Context) error { time.Sleep(time.Minute); runtime.Goexit(); return nil })
		_, release, _ := backstay.DoHeld(context.Background(), p, func(context.Context) (int, error) { time.Sleep(time.Minute); return 1, nil }, func(int) { closed++ })
		release()
		if got := to.Abandoned(); got != 3 {
			t.Errorf("abandoned: got %d, want 3", got)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if panicked != errBoom || closed != 1 || to.Abandoned() != 0 {
			t.Errorf("late: panic %v, %d closes, %d still run; want boom, 1, 0", panicked, closed, to.Abandoned())
		}
	})
}

// Endings in time reach the caller with Abandon as they do without.
func TestAbandonInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := backstay.Chain(timeout.NewWith(timeout.Config{Limit: time.Second, Abandon: true}))
		if got, err := backstay.Do(context.Background(), p, func(context.Context) (int, error) { return 42, errBoom }); got != 42 || err != errBoom {
			t.Errorf("got %d, %v", got, err)
		}
		func() {
			defer func() {
				if got := recover(); got != errBoom {
					t.Errorf("panic: got %v, want boom", got)
				}
			}()
			_ = backstay.Run(context.Background(), p, func(context.Context) error { panic(errBoom) })
		}()
		exited := true
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = backstay.Run(context.Background(), p, func(context.Context) error { runtime.Goexit(); return nil })
			exited = false
		}()
		<-done
		if !exited {
			t.Error("Goexit in the function did not end the caller's goroutine")
		}
		v, release, err := backstay.DoHeld(context.Background(), p, func(ctx context.Context) (context.Context, error) { return ctx, nil }, nil)
		time.Sleep(time.Hour)
		if err != nil || v.Err() != nil {
			t.Errorf("a held value: got %v, its context %v", err, v.Err())
		}
		release()
		if v.Err() == nil {
			t.Error("the context of a held value lives on after release")
		}
	})
}

// T49: with too little time left nothing is begun and no permit taken.
func TestNoTimeLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(breaker.Config{})
		taken := 0
		count := backstay.PolicyFunc(func(next backstay.Handler) backstay.Handler {
			return func(ctx context.Context, call *backstay.Call) backstay.Outcome { taken++; return next(ctx, call) }
		})
		p := backstay.Chain(timeout.NewWith(timeout.Config{Limit: time.Second, MinAttempt: 10 * time.Millisecond}), count, bulkhead.New(bulkhead.Config{}), b)
		ctx, cancel := context.WithTimeout(context.Background(), 9*time.Millisecond)
		defer cancel()
		err := backstay.Run(ctx, p, func(context.Context) error { t.Error("called"); return nil })
		if !errors.Is(err, timeout.ErrNoTime) || !errors.Is(err, backstay.ErrRejected) || !errors.Is(err, context.DeadlineExceeded) || taken != 0 {
			t.Errorf("got %v, and %d policies inside were asked; want ErrNoTime, a rejection, none", err, taken)
		}
		ctx, cancel = context.WithTimeout(context.Background(), 10*time.Millisecond)
		defer cancel()
		if err := backstay.Run(ctx, p, func(context.Context) error { return nil }); err != nil {
			t.Errorf("with the minimum left: got %v", err)
		}
	})
}

// Our expiry is a failure for a breaker around; the caller's cancel is not (T10, T11).
func TestBreakerAround(t *testing.T) {
	for _, c := range []struct {
		name   string
		limit  time.Duration
		cancel time.Duration
		want   breaker.State
	}{
		{"our attempt timeout", time.Second, time.Hour, breaker.Open},
		{"the caller's cancel", time.Hour, time.Second, breaker.Closed},
	} {
		synctest.Test(t, func(t *testing.T) {
			b := breaker.New(breaker.Config{Consecutive: 1, Spread: -1, OpenFor: time.Minute, MaxOpenFor: time.Minute})
			ctx, cancel := context.WithCancel(context.Background())
			stop := time.AfterFunc(c.cancel, cancel)
			_ = backstay.Run(ctx, backstay.Chain(b, timeout.New(c.limit)), func(ctx context.Context) error {
				_ = sleep(time.Hour)(ctx)
				return errors.New("driver: stopped") // does not wrap the context's error
			})
			stop.Stop()
			cancel()
			if got := b.State(); got != c.want {
				t.Errorf("%s: breaker %v, want %v", c.name, got, c.want)
			}
		})
	}
}

func TestLimitFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		to := timeout.NewWith(timeout.Config{LimitFor: func(_ context.Context, call *backstay.Call) time.Duration {
			return map[string]time.Duration{"quick": time.Second}[call.Name()]
		}})
		start := time.Now()
		err := backstay.Run(context.Background(), backstay.Chain(to), sleep(time.Minute), backstay.Named("quick"))
		if !errors.Is(err, timeout.ErrExceeded) || time.Since(start) != time.Second {
			t.Errorf("quick: got %v after %v", err, time.Since(start))
		}
		if err := backstay.Run(context.Background(), backstay.Chain(to), sleep(time.Minute), backstay.Named("other")); err != nil {
			t.Errorf("other: got %v, want no limit", err)
		}
	})
}

// The error keeps what the function said, and the zero Config never fires.
func TestErrorAndZero(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		err := backstay.Run(context.Background(), backstay.Chain(timeout.New(time.Second)), func(ctx context.Context) error { <-ctx.Done(); return errBoom })
		if !errors.Is(err, errBoom) || err.Error() != "timeout: exceeded 1s" {
			t.Errorf("got %v, want the function's error inside", err)
		}
		for _, limit := range []time.Duration{0, -1} {
			if err := backstay.Run(context.Background(), backstay.Chain(timeout.New(limit)), sleep(1000*time.Hour)); err != nil {
				t.Errorf("limit %v: got %v", limit, err)
			}
		}
	})
}

func TestConfig(t *testing.T) {
	bad := timeout.Config{Limit: time.Second, MinAttempt: -1, OnPanic: func(any) {}}
	for _, field := range []string{"MinAttempt", "OnPanic"} {
		if err := bad.Validate(); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("Validate: got %v, want %s named", err, field)
		}
	}
	func() {
		defer func() {
			if err, ok := recover().(error); !ok || err.Error() != bad.Validate().Error() {
				t.Errorf("NewWith: got %v, want a panic with Validate's error", err)
			}
		}()
		timeout.NewWith(bad)
	}()
	in := timeout.Config{Name: "a", Limit: 1500 * time.Millisecond, Abandon: true}
	text, err := json.Marshal(in)
	if want := `{"name":"a","limit":"1.5s","abandon":true}`; err != nil || string(text) != want {
		t.Errorf("JSON: got %s, %v; want %s", text, err, want)
	}
	var out timeout.Config
	if err := json.Unmarshal(text, &out); err != nil || out.Limit != in.Limit || !out.Abandon || out.Name != "a" {
		t.Errorf("from JSON: got %+v, %v", out, err)
	}
	for _, text := range []string{`{"limt":"1s"}`, `{"limit":5}`, `{"limit":"soon"}`} {
		if err := json.Unmarshal([]byte(text), &out); err == nil || !strings.Contains(err.Error(), "lim") {
			t.Errorf("from %s: got %v, want an error that names the field", text, err)
		}
	}
}

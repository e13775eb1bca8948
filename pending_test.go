package backstay_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/adaptive"
	"github.com/backstay-go/backstay/breaker"
	"github.com/backstay-go/backstay/bulkhead"
	"github.com/backstay-go/backstay/hedge"
	"github.com/backstay-go/backstay/ratelimit"
	"github.com/backstay-go/backstay/retry"
	"github.com/backstay-go/backstay/timeout"
)

// stands is a value whose attempt is not over.
type stands struct {
	holding
	ctx    context.Context // of the attempt
	enders []backstay.Ender
}

func (s *stands) Then(e backstay.Ender) { s.enders = append(s.enders, e) }

// end is what the adapter does once the attempt is over.
func (s *stands) end(out backstay.Outcome) backstay.Outcome {
	for _, e := range s.enders {
		out = e.End(out)
	}
	return out
}

// holding is a value that is kept.
type holding struct{ hooks []func() }

func (h *holding) OnRelease(f func()) { h.hooks = append(h.hooks, f) }

func (h *holding) Release() {
	for _, f := range slices.Backward(h.hooks) {
		f()
	}
	h.hooks = nil
}

// stand makes a call through the policies whose first attempt comes to stand; later ones end well.
func stand(t *testing.T, key string, policies ...backstay.Policy) (s *stands, attempts *int) {
	t.Helper()
	s, attempts = &stands{}, new(int)
	p := backstay.Chain(policies...)
	if !p.Describe().Pends {
		t.Errorf("%v does not say that it handles what is Pending", p)
	}
	out := p.Handle(t.Context(), backstay.CallInfo{Key: key, Holds: true}, backstay.Handler(func(ctx context.Context, _ *backstay.Call) backstay.Outcome {
		if *attempts++; *attempts > 1 {
			return backstay.Outcome{Value: "second", Class: backstay.Success}
		}
		s.ctx = ctx
		return backstay.Outcome{Value: "first", Held: s, Class: backstay.Success}
	}))
	if out.Held != backstay.Held(s) || out.Value != "first" || out.Class != backstay.Success {
		t.Fatalf("got %+v, want the outcome as it was", out)
	}
	return s, attempts
}

var (
	errSoon = errors.New("no luck")
	failed  = backstay.Outcome{Err: errSoon, Class: backstay.Failure, Again: backstay.Yes}
)

// What a policy does with an ending it does when that is there, and not when the attempt comes to stand.
func TestPending(t *testing.T) {
	t.Run("breaker", func(t *testing.T) {
		b := breaker.New(breaker.Config{})
		s, _ := stand(t, "", b)
		if got := b.Snapshot().Calls; got != 0 {
			t.Errorf("got %d calls counted before the end, want none", got)
		}
		s.end(failed)
		if got := b.Snapshot(); got.Calls != 1 || got.Failures != 1 {
			t.Errorf("got %+v, want one failure", got)
		}
	})
	t.Run("bulkhead", func(t *testing.T) {
		b := bulkhead.New(bulkhead.Config{})
		inUse := func(what string, want int) {
			t.Helper()
			if got := b.Snapshot().InUse; got != want {
				t.Errorf("%s: got %d permits in use, want %d", what, got, want)
			}
		}
		s, _ := stand(t, "", b)
		inUse("it stands", 1)
		s.end(failed)
		inUse("it has failed", 0)
		s, _ = stand(t, "", b)
		kept := &holding{}
		s.end(backstay.Outcome{Held: kept, Class: backstay.Success})
		inUse("it is kept", 1)
		kept.Release()
		inUse("it was let go", 0)
	})
	t.Run("adaptive", func(t *testing.T) {
		l := adaptive.New(adaptive.Config{})
		s, _ := stand(t, "", l)
		if got := l.Snapshot().InFlight; got != 1 {
			t.Errorf("got %d in flight, want the one that stands", got)
		}
		s.end(failed)
		if got := l.Snapshot().InFlight; got != 0 {
			t.Errorf("got %d in flight, want none", got)
		}
	})
	t.Run("retry", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s, attempts := stand(t, "", retry.New(retry.Config{}), ratelimit.New(ratelimit.Config{Rate: 1000}))
			if out := s.end(failed); out.Value != "second" || *attempts != 2 {
				t.Errorf("got %+v after %d attempts, want what the second returned", out, *attempts)
			}
			s, attempts = stand(t, "", retry.New(retry.Config{}))
			if out := s.end(backstay.Outcome{Value: "first", Class: backstay.Success}); out.Value != "first" || *attempts != 1 {
				t.Errorf("got %+v after %d attempts, want what the first returned", out, *attempts)
			}
		})
	})
	t.Run("timeout", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s, _ := stand(t, "", timeout.New(time.Second))
			<-time.After(time.Hour)
			if err := s.ctx.Err(); err != nil {
				t.Errorf("got %v while it stands; the limit is for the time until it does", err)
			}
			if out := s.end(failed); s.ctx.Err() == nil || out.Err != errSoon {
				t.Errorf("got %v and a context that has ended with %v, want what the attempt ended with, and cancelled", out.Err, s.ctx.Err())
			}
			s, _ = stand(t, "", timeout.New(time.Second))
			kept := &holding{}
			s.end(backstay.Outcome{Held: kept, Class: backstay.Success})
			if err := s.ctx.Err(); err != nil {
				t.Errorf("got %v while it is kept", err)
			}
			if kept.Release(); s.ctx.Err() == nil {
				t.Error("its context has not ended with it")
			}
		})
	})
	t.Run("timeout, too late", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			late := backstay.PolicyFunc(func(next backstay.Handler) backstay.Handler {
				return func(ctx context.Context, call *backstay.Call) backstay.Outcome {
					<-ctx.Done() // and comes to stand after it
					return next(context.WithoutCancel(ctx), call)
				}
			})
			b, s := bulkhead.New(bulkhead.Config{}), &stands{}
			out := backstay.Chain(timeout.New(time.Second), b, late).Handle(t.Context(), backstay.CallInfo{Holds: true}, backstay.Handler(func(context.Context, *backstay.Call) backstay.Outcome {
				return backstay.Outcome{Held: s, Class: backstay.Success}
			}))
			if out.Held != backstay.Held(s) || b.Snapshot().InUse != 1 {
				t.Fatalf("got %+v with %d permits in use, want the outcome as it was and 1", out, b.Snapshot().InUse)
			}
			if out := s.end(failed); !errors.Is(out.Err, timeout.ErrExceeded) || b.Snapshot().InUse != 0 {
				t.Errorf("got %v with %d permits in use, want the timeout's error and none", out.Err, b.Snapshot().InUse)
			}
		})
	})
	t.Run("keyed", func(t *testing.T) {
		k := backstay.NewKeyed(backstay.KeyedConfig{Max: 1}, func(string) *ratelimit.Limit { return ratelimit.New(ratelimit.Config{}) })
		s, _ := stand(t, "a", k)
		if _, kept := k.Get("b"); kept {
			t.Error("a key was forgotten while its call stands")
		}
		s.end(failed)
		if _, kept := k.Get("b"); !kept {
			t.Error("a key was not forgotten although its call is over")
		}
	})
	t.Run("observer", func(t *testing.T) {
		var told []backstay.Event
		watched := backstay.Chain().Observe(backstay.ObserverFunc(func(_ context.Context, e backstay.Event) { told = append(told, e) }))
		s := &stands{}
		watched.Handle(t.Context(), backstay.CallInfo{}, backstay.Handler(func(context.Context, *backstay.Call) backstay.Outcome {
			return backstay.Outcome{Held: s, Class: backstay.Success}
		}))
		if len(told) != 0 {
			t.Errorf("got %v before the end, want nothing", told)
		}
		s.end(failed)
		if len(told) != 2 || told[0].Kind != backstay.EventAttempt || told[1].Kind != backstay.EventCall || told[0].Err != errSoon || told[1].Class != backstay.Failure {
			t.Errorf("got %+v, want the end of the attempt, then of the call, as failures", told)
		}
	})
}

// A pipeline handles what is Pending if each of its policies says so.
func TestPends(t *testing.T) {
	pass := backstay.PolicyFunc(func(next backstay.Handler) backstay.Handler { return next })
	for _, tc := range []struct {
		policy backstay.Policy
		want   bool
	}{
		{backstay.Chain(), true},
		{backstay.Chain(retry.New(retry.Config{}), timeout.New(time.Second)), true},
		{backstay.Chain(retry.New(retry.Config{}), pass), false},
		{backstay.Chain(backstay.Chain(pass)), false},
		{backstay.NewKeyed(backstay.KeyedConfig{}, func(string) backstay.Policy { return pass }), false},
		{timeout.NewWith(timeout.Config{Limit: time.Second, Abandon: true}), false},
		{hedge.New(hedge.Config{Delay: time.Second}), false},
	} {
		if got := backstay.Chain(tc.policy).Describe().Pends; got != tc.want {
			t.Errorf("%v: got %v, want %v", backstay.Chain(tc.policy), got, tc.want)
		}
	}
}

package fallback_test

import (
	"context"
	"encoding/json"
	"errors"
	"reflect"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/fallback"
)

var errBoom = errors.New("boom")

func TestWhen(t *testing.T) {
	rejected := &backstay.Rejected{Policy: "breaker", Reason: "open", Err: errBoom}
	class := func(c backstay.Class, again backstay.Again) backstay.Policy {
		return backstay.Classify(func(_ context.Context, out backstay.Outcome) backstay.Outcome {
			out.Class, out.Again = c, again
			return out
		})
	}
	for _, c := range []struct {
		name  string
		err   error
		inner backstay.Policy
		when  func(context.Context, backstay.Outcome) bool
		want  string
	}{
		{name: "success", want: "real"},
		{name: "failure", err: errBoom, want: "fallback"},
		{name: "permanent failure", err: backstay.Permanent(errBoom), want: "fallback"},
		{name: "refused by a policy", err: rejected, want: "fallback"},
		{name: "ignored", err: backstay.Ignore(errBoom), want: ""},
		{name: "429", err: errBoom, inner: class(backstay.Neutral, backstay.Yes), want: "fallback"},
		{name: "a value that is a failure", inner: class(backstay.Failure, backstay.Unsaid), want: "fallback"},
		{name: "an error that is an answer", err: errBoom, inner: class(backstay.Success, backstay.Unsaid), want: ""},
		{name: "For, matching", err: errBoom, when: fallback.For(errors.ErrUnsupported, errBoom), want: "fallback"},
		{name: "For, not matching", err: errBoom, when: fallback.For(errors.ErrUnsupported), want: ""},
		{name: "For, success", when: fallback.For(errBoom), want: "real"},
		{name: "always", when: func(context.Context, backstay.Outcome) bool { return true }, want: "fallback"},
	} {
		f := fallback.New(fallback.Value("fallback"), fallback.Config{When: c.when})
		p := backstay.Chain(f)
		if c.inner != nil {
			p = backstay.Chain(f, c.inner)
		}
		got, err := backstay.Do(t.Context(), p, func(context.Context) (string, error) {
			if c.err != nil {
				return "", c.err
			}
			return "real", nil
		})
		if got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%s: got %q and %v, want %q", c.name, got, err, c.want)
		}
	}
}

// A caller that has gone needs no answer; one whose deadline has passed may still use it.
func TestContextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := backstay.Chain(fallback.New(fallback.Value(1), fallback.Config{}))
		until := func(ctx context.Context) (int, error) { <-ctx.Done(); return 0, ctx.Err() }

		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		if got, err := backstay.Do(ctx, p, until); got != 0 || !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: got %d and %v, want the cancellation", got, err)
		}
		if got, err := backstay.Do(ctx, p, until); got != 0 || !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled before: got %d and %v, want the cancellation", got, err)
		}
		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		for _, name := range []string{"deadline", "deadline passed before"} {
			if got, err := backstay.Do(ctx, p, until); got != 1 || err != nil {
				t.Errorf("%s: got %d and %v, want the fallback", name, got, err)
			}
		}
	})
}

func TestCall(t *testing.T) {
	p := backstay.Chain(fallback.New(fallback.Call(func(_ context.Context, err error) (string, error) {
		if !errors.Is(err, errBoom) {
			t.Errorf("got error %v, want the call's", err)
		}
		return "copy", nil
	}), fallback.Config{}))
	if got, err := backstay.Do(t.Context(), p, func(context.Context) (string, error) { return "", errBoom }); got != "copy" || err != nil {
		t.Errorf("got %q and %v, want the copy", got, err)
	}
	if _, err := backstay.Do(t.Context(), p, func(context.Context) (int, error) { return 0, errBoom }); !errors.Is(err, backstay.ErrType) {
		t.Errorf("a call of another type: got %v, want ErrType, never a silent zero", err)
	}
}

func TestFallbackFails(t *testing.T) {
	other := errors.New("cache is cold")
	p := backstay.Chain(fallback.New(fallback.Call(func(context.Context, error) (int, error) { return 0, other }), fallback.Config{}))
	_, err := backstay.Do(t.Context(), p, func(context.Context) (int, error) { return 0, errBoom })
	if !errors.Is(err, errBoom) || !errors.Is(err, other) {
		t.Errorf("got %v, want both errors", err)
	}
}

// To policies outside, an answer of the fallback is no success of the dependency.
func TestOutcome(t *testing.T) {
	var got backstay.Outcome
	var event backstay.Event
	outer := backstay.PolicyFunc(func(next backstay.Handler) backstay.Handler {
		return func(ctx context.Context, call *backstay.Call) backstay.Outcome { got = next(ctx, call); return got }
	})
	f := fallback.New(fallback.Value(1), fallback.Config{Name: "f", Observer: backstay.ObserverFunc(func(_ context.Context, e backstay.Event) { event = e })})
	_, _ = backstay.Do(t.Context(), backstay.Chain(outer, f), func(context.Context) (int, error) { return 0, errBoom })
	if got.Class != backstay.Neutral || got.Again != backstay.No || got.Err != nil {
		t.Errorf("got %+v, want it neutral and not to be repeated", got)
	}
	if event.Kind != backstay.EventFallback || event.Name != "f" || !errors.Is(event.Err, errBoom) {
		t.Errorf("got event %+v, want the fallback with the error that it replaced", event)
	}
}

// What the failed outcome holds is let go, unless it is handed back.
func TestHeld(t *testing.T) {
	failing := backstay.Classify(func(_ context.Context, out backstay.Outcome) backstay.Outcome {
		out.Class, out.Err = backstay.Failure, errBoom
		return out
	})
	var kept backstay.Outcome
	outer := backstay.PolicyFunc(func(next backstay.Handler) backstay.Handler {
		return func(ctx context.Context, call *backstay.Call) backstay.Outcome { kept = next(ctx, call); return kept }
	})
	for _, c := range []struct {
		name   string
		answer fallback.Func
		held   bool
	}{
		{"answered", fallback.Value(2), false},
		{"not answered", fallback.Call(func(context.Context, error) (int, error) { return 0, errors.New("no") }), true},
		{"panicked", fallback.Call(func(context.Context, error) (int, error) { panic("boom") }), false},
	} {
		closed := 0
		kept = backstay.Outcome{}
		f := fallback.New(c.answer, fallback.Config{})
		func() {
			defer func() { _ = recover() }()
			_, release, _ := backstay.DoHeld(t.Context(), backstay.Chain(outer, f, failing), func(context.Context) (int, error) { return 1, nil }, func(int) { closed++ })
			release()
		}()
		if closed != 1 || (kept.Held != nil) != c.held {
			t.Errorf("%s: closed %d times, handed back held: %v; want once, %v", c.name, closed, kept.Held != nil, c.held)
		}
		if got := f.Snapshot().Running; got != 0 {
			t.Errorf("%s: %d answers under way, want 0", c.name, got)
		}
	}
}

func TestLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fallback.New(fallback.Call(func(context.Context, error) (int, error) { time.Sleep(time.Second); return 1, nil }), fallback.Config{Limit: 2})
		p := backstay.Chain(f)
		var answered, failed atomic.Int32
		var all sync.WaitGroup
		for range 5 {
			all.Go(func() {
				if _, err := backstay.Do(t.Context(), p, func(context.Context) (int, error) { return 0, errBoom }); err == nil {
					answered.Add(1)
				} else if err == errBoom { // unchanged, not only matching
					failed.Add(1)
				}
			})
		}
		all.Wait()
		if s := f.Snapshot(); answered.Load() != 2 || failed.Load() != 3 || s.Answered != 2 || s.Rejected != 3 || s.Running != 0 {
			t.Errorf("got %d answered, %d with their own error and %+v, want 2 and 3", answered.Load(), failed.Load(), s)
		}
	})
}

func TestPanicPasses(t *testing.T) {
	f := fallback.New(fallback.Value(1), fallback.Config{})
	func() {
		defer func() {
			if got := recover(); got != "boom" {
				t.Errorf("recovered %v, want the panic's own value", got)
			}
		}()
		_, _ = backstay.Do(t.Context(), backstay.Chain(f), func(context.Context) (int, error) { panic("boom") })
	}()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = backstay.Do(context.Background(), backstay.Chain(f), func(context.Context) (int, error) { runtime.Goexit(); return 0, nil })
	}()
	<-done
	if s := f.Snapshot(); s.Answered != 0 {
		t.Errorf("got %+v, want no answer to a panic", s)
	}
}

func TestConfig(t *testing.T) {
	func() {
		defer func() {
			if recover() == nil {
				t.Error("New without a function did not panic")
			}
		}()
		fallback.New(nil, fallback.Config{})
	}()
	in := fallback.Config{Name: "f", Limit: -1}
	text, err := json.Marshal(in)
	if got, want := string(text), `{"name":"f","limit":-1}`; err != nil || got != want {
		t.Errorf("got %s, %v, want %s", got, err, want)
	}
	var out fallback.Config
	if err := json.Unmarshal(text, &out); err != nil || !reflect.DeepEqual(in, out) {
		t.Errorf("got %+v, %v back, want %+v", out, err, in)
	}
	if got, want := fallback.New(fallback.Value(1), fallback.Config{Name: "f"}).Describe().String(), `fallback "f" (100 at once)`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	var f *fallback.Fallback
	if err := backstay.Run(t.Context(), backstay.Chain(f), func(context.Context) error { return errBoom }); !errors.Is(err, errBoom) {
		t.Errorf("a nil fallback: got %v, want the call's error", err)
	}
}

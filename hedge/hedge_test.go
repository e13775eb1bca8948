package hedge_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/budget"
	"github.com/backstay-go/backstay/hedge"
)

// plan is what the attempts of a call do, by their number.
type plan []struct {
	takes time.Duration
	v     string
	err   error
}

// try makes the attempt of ctx: it waits, and is told when it has lost.
func (p plan) try(ctx context.Context) (string, error) {
	a := p[backstay.CallFrom(ctx).Attempt()-1]
	select {
	case <-time.After(a.takes):
		return a.v, a.err
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

const ms = time.Millisecond

// do runs p through a hedge of 10 ms with up to extra further attempts.
func do(ctx context.Context, p plan, extra int, inner ...backstay.Policy) (string, error) {
	h := hedge.New(hedge.Config{Delay: 10 * ms, Extra: extra, Budget: plenty()})
	return backstay.Do(ctx, backstay.Chain(append([]backstay.Policy{h}, inner...)...), p.try, backstay.Idempotent())
}

func plenty() *budget.Budget { return budget.New(budget.Config{Start: 1000, Cap: 1000}) }

var errA, errB, errC = errors.New("a"), errors.New("b"), errors.New("c")

func TestEndings(t *testing.T) {
	for _, c := range []struct {
		name  string
		plan  plan
		extra int
		want  string
		errs  []error
		after time.Duration
	}{
		{"fast", plan{{5 * ms, "1", nil}}, 1, "1", nil, 5 * ms},
		{"slow first, the second wins", plan{{100 * ms, "1", nil}, {5 * ms, "2", nil}}, 1, "2", nil, 15 * ms},
		{"slow first wins all the same", plan{{20 * ms, "1", nil}, {50 * ms, "2", nil}}, 1, "1", nil, 20 * ms},
		{"third wins", plan{{100 * ms, "1", nil}, {100 * ms, "2", nil}, {5 * ms, "3", nil}}, 2, "3", nil, 25 * ms},
		{"fails before the delay", plan{{5 * ms, "", errA}}, 1, "", []error{errA}, 5 * ms},
		{"first fails, the second is waited for", plan{{20 * ms, "", errA}, {30 * ms, "2", nil}}, 1, "2", nil, 40 * ms},
		{"second fails, the first is waited for", plan{{50 * ms, "1", nil}, {5 * ms, "", errB}}, 1, "1", nil, 50 * ms},
		{"all fail, the first last", plan{{50 * ms, "", errA}, {5 * ms, "", errB}, {5 * ms, "", errC}}, 2, "", []error{errA, errB, errC}, 50 * ms},
		{"all fail, the first first", plan{{12 * ms, "", errA}, {5 * ms, "", errB}}, 1, "", []error{errA, errB}, 15 * ms},
		{"a permanent error is an answer", plan{{100 * ms, "1", nil}, {5 * ms, "", backstay.Permanent(errB)}}, 1, "", []error{errB}, 15 * ms},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				v, err := do(t.Context(), c.plan, c.extra)
				if took := time.Since(start); v != c.want || took != c.after {
					t.Errorf("got %q after %v, want %q after %v", v, took, c.want, c.after)
				}
				if (err != nil) != (c.errs != nil) {
					t.Fatalf("got error %v, want %v", err, c.errs)
				}
				for _, want := range c.errs {
					if !errors.Is(err, want) {
						t.Errorf("error %q does not match %q", err, want)
					}
				}
				if len(c.errs) > 0 && !strings.HasPrefix(err.Error(), c.errs[0].Error()) {
					t.Errorf("got error %q, want the first attempt's first: %q", err, c.errs[0])
				}
			})
		})
	}
}

// Only calls that may be repeated have two attempts at once.
func TestEligible(t *testing.T) {
	for _, c := range []struct {
		name   string
		opt    backstay.CallOption
		unsafe bool
		want   int
	}{
		{"unsaid", func(*backstay.CallInfo) {}, false, 1},
		{"idempotent", backstay.Idempotent(), false, 2},
		{"not to be repeated", backstay.NoRetry(), false, 1},
		{"unsaid, unsafe", func(*backstay.CallInfo) {}, true, 2},
		{"not to be repeated, unsafe", backstay.NoRetry(), true, 1},
	} {
		synctest.Test(t, func(t *testing.T) {
			made := atomic.Int32{}
			p := backstay.Chain(hedge.New(hedge.Config{Delay: ms, Unsafe: c.unsafe}))
			_ = backstay.Run(t.Context(), p, func(context.Context) error { made.Add(1); time.Sleep(10 * ms); return nil }, c.opt)
			time.Sleep(time.Second)
			if got := int(made.Load()); got != c.want {
				t.Errorf("%s: got %d attempts, want %d", c.name, got, c.want)
			}
		})
	}
}

// value is held until it is let go.
type value struct {
	attempt int
	ctx     context.Context
	closed  atomic.Int32
}

// Losers are cancelled, what they hold is let go, the winner's context lives until its value is, and no goroutine stays.
func TestLosers(t *testing.T) {
	for _, c := range []struct {
		name    string
		plan    plan
		ignores bool // attempts do not listen to their context
		want    int
	}{
		{"losers listen", plan{{50 * ms, "", nil}, {50 * ms, "", nil}, {5 * ms, "", nil}}, false, 3},
		{"losers ignore their context and answer late", plan{{50 * ms, "", nil}, {60 * ms, "", nil}, {5 * ms, "", nil}}, true, 3},
		{"all answer at once", plan{{30 * ms, "", nil}, {20 * ms, "", nil}, {10 * ms, "", nil}}, true, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var mu sync.Mutex
				var all []*value
				h := hedge.New(hedge.Config{Delay: 10 * ms, Extra: 2, Budget: plenty()})
				start := time.Now()
				v, release, err := backstay.DoHeld(t.Context(), backstay.Chain(h), func(ctx context.Context) (*value, error) {
					n := backstay.CallFrom(ctx).Attempt()
					v := &value{attempt: n, ctx: ctx}
					mu.Lock()
					all = append(all, v)
					mu.Unlock()
					if c.ignores {
						time.Sleep(c.plan[n-1].takes)
						return v, nil
					}
					_, err := c.plan.try(ctx)
					if err != nil {
						v.closed.Add(1)
					}
					return v, err
				}, func(v *value) { v.closed.Add(1) }, backstay.Idempotent())
				if err != nil {
					t.Fatal(err)
				}
				if c.want > 0 && (v.attempt != c.want || time.Since(start) != 25*ms) {
					t.Errorf("attempt %d won after %v, want %d after 25ms: nobody waits for a loser", v.attempt, time.Since(start), c.want)
				}
				time.Sleep(time.Second)
				if v.ctx.Err() != nil || v.closed.Load() != 0 {
					t.Errorf("a second later the winner's context says %v and its value was closed %d times, want both alive", v.ctx.Err(), v.closed.Load())
				}
				release()
				if v.ctx.Err() == nil {
					t.Error("the winner's context outlives its value")
				}
				mu.Lock()
				defer mu.Unlock()
				for _, v := range all {
					if got := v.closed.Load(); got != 1 {
						t.Errorf("value of attempt %d: closed %d times, want once", v.attempt, got)
					}
					if v.ctx.Err() == nil {
						t.Errorf("context of attempt %d is still alive", v.attempt)
					}
				}
			}) // which fails when a goroutine is left
		})
	}
}

// An outcome that fails may hold something too: an HTTP 503 has a body.
func TestFailuresThatHold(t *testing.T) {
	for _, c := range []struct {
		name string
		good int // the attempt that succeeds; 0: none
	}{{"the second wins", 2}, {"the first wins", 1}, {"none wins", 0}} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var closed [3]atomic.Int32
				boom := errors.New("503")
				failing := backstay.Classify(func(ctx context.Context, out backstay.Outcome) backstay.Outcome {
					if backstay.CallFrom(ctx).Attempt() != c.good {
						out.Err, out.Class = boom, backstay.Failure
					}
					return out
				})
				h := hedge.New(hedge.Config{Delay: 10 * ms, Budget: plenty()})
				var kept backstay.Outcome
				keep := backstay.PolicyFunc(func(next backstay.Handler) backstay.Handler {
					return func(ctx context.Context, call *backstay.Call) backstay.Outcome { kept = next(ctx, call); return kept }
				})
				_, release, err := backstay.DoHeld(t.Context(), backstay.Chain(keep, h, failing), func(ctx context.Context) (int, error) {
					n := backstay.CallFrom(ctx).Attempt()
					time.Sleep(time.Duration(20*n) * ms)
					return n, nil
				}, func(n int) { closed[n].Add(1) }, backstay.Idempotent())
				if (err == nil) != (c.good > 0) {
					t.Fatalf("got error %v", err)
				}
				if c.good == 0 && kept.Value != 1 {
					t.Errorf("all failed: got value %v, want the first attempt's", kept.Value)
				}
				release()
				time.Sleep(time.Second)
				for n := 1; n <= 2; n++ {
					if got := closed[n].Load(); got != 1 {
						t.Errorf("value of attempt %d: closed %d times, want once", n, got)
					}
				}
			})
		})
	}
}

// A refusal of an attempt by a policy inside is no attempt: it does not hide the real error, nor stop a retry outside.
func TestRefusedAttempt(t *testing.T) {
	reject := func(attempt int) backstay.Policy {
		return backstay.PolicyFunc(func(next backstay.Handler) backstay.Handler {
			return func(ctx context.Context, call *backstay.Call) backstay.Outcome {
				if attempt == 0 || call.Attempt() == attempt {
					time.Sleep(15 * ms)
					return backstay.Reject(&backstay.Rejected{Policy: "bulkhead", Reason: fmt.Sprint("full for ", call.Attempt())})
				}
				return next(ctx, call)
			}
		})
	}
	for _, c := range []struct {
		refused int
		plan    plan
		want    string
	}{
		{2, plan{{50 * ms, "", errA}}, "a"},
		{1, plan{{}, {50 * ms, "", errB}}, "b"},
		{0, nil, "bulkhead: full for 1"},
	} {
		synctest.Test(t, func(t *testing.T) {
			_, err := do(t.Context(), c.plan, 1, reject(c.refused))
			if err == nil || err.Error() != c.want || errors.Is(err, backstay.ErrRejected) != (c.refused == 0) {
				t.Errorf("attempt %d refused: got error %v, want %s alone", c.refused, err, c.want)
			}
		})
	}
}

func TestPanicAndGoexit(t *testing.T) {
	for _, attempt := range []int{1, 2} {
		synctest.Test(t, func(t *testing.T) {
			defer func() {
				if got := recover(); got != "boom" {
					t.Errorf("attempt %d: recovered %v, want the panic's own value", attempt, got)
				}
			}()
			p := backstay.Chain(hedge.New(hedge.Config{Delay: 10 * ms, Budget: plenty()}))
			_ = backstay.Run(t.Context(), p, func(ctx context.Context) error {
				if backstay.CallFrom(ctx).Attempt() == attempt {
					time.Sleep(20 * ms)
					panic("boom")
				}
				<-ctx.Done()
				return ctx.Err()
			}, backstay.Idempotent())
			t.Errorf("attempt %d: the call returned", attempt)
		})
	}
	synctest.Test(t, func(t *testing.T) {
		done := make(chan bool)
		go func() {
			defer close(done)
			p := backstay.Chain(hedge.New(hedge.Config{Delay: 10 * ms, Budget: plenty()}))
			_ = backstay.Run(context.Background(), p, func(ctx context.Context) error { runtime.Goexit(); return nil }, backstay.Idempotent())
			done <- true
		}()
		if <-done {
			t.Error("the caller's goroutine outlived the Goexit of the attempt")
		}
	})
}

// A loser's panic must not end the process, nor be lost without a word.
func TestLoserPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got backstay.Event
		h := hedge.New(hedge.Config{Delay: 10 * ms, Budget: plenty(), Observer: backstay.ObserverFunc(func(_ context.Context, e backstay.Event) {
			if e.Kind == backstay.EventAbandon {
				got = e
			}
		})})
		err := backstay.Run(t.Context(), backstay.Chain(h), func(ctx context.Context) error {
			if backstay.CallFrom(ctx).Attempt() == 1 {
				time.Sleep(time.Second)
				panic("late")
			}
			return nil
		}, backstay.Idempotent())
		if err != nil {
			t.Errorf("got %v, want the second attempt's success", err)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if got.Reason != "panic" || got.Attempt != 1 || got.Err == nil || !strings.Contains(got.Err.Error(), "late") {
			t.Errorf("got event %+v, want the panic of attempt 1", got)
		}
	})
}

// The caller's end reaches all attempts, and the call returns with what they say.
func TestCallerCancels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(15*ms, cancel)
		start := time.Now()
		told := atomic.Int32{}
		p := backstay.Chain(hedge.New(hedge.Config{Delay: 10 * ms, Extra: 2, Budget: plenty()}))
		err := backstay.Run(ctx, p, func(ctx context.Context) error {
			<-ctx.Done()
			told.Add(1)
			return context.Cause(ctx)
		}, backstay.Idempotent())
		if !errors.Is(err, context.Canceled) || told.Load() != 2 || time.Since(start) != 15*ms {
			t.Errorf("got %v after %v with %d attempts told, want Canceled after 15ms with 2", err, time.Since(start), told.Load())
		}
	})
}

// Without time for a further attempt none is prepared: the call runs on its caller's goroutine.
func TestDeadlineBeforeDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*ms)
		defer cancel()
		made := 0
		p := backstay.Chain(hedge.New(hedge.Config{Delay: 10 * ms, Budget: plenty()}))
		err := backstay.Run(ctx, p, func(ctx context.Context) error { made++; <-ctx.Done(); return ctx.Err() }, backstay.Idempotent())
		if made != 1 || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %d attempts and %v, want 1 and the deadline", made, err)
		}
	})
}

// A dependency that stands still must not get more than the budget allows.
func TestBudget(t *testing.T) {
	for _, c := range []struct {
		name   string
		config hedge.Config
		ratio  float64
	}{
		{"its own", hedge.Config{Delay: 10 * ms}, 0.1},
		{"shared", hedge.Config{Delay: 10 * ms, Budget: budget.New(budget.Config{Ratio: 0.05})}, 0.05},
	} {
		synctest.Test(t, func(t *testing.T) {
			const calls, floor = 1000, 2 + 1 // start tokens, and one each 10 s
			h := hedge.New(c.config)
			p := backstay.Chain(c.config.Budget, h) // whose Wrap deposits; nil wraps nothing
			made := atomic.Int32{}
			var all sync.WaitGroup
			for range calls {
				all.Go(func() {
					ctx, cancel := context.WithTimeout(t.Context(), time.Second)
					defer cancel()
					_ = backstay.Run(ctx, p, func(ctx context.Context) error { made.Add(1); <-ctx.Done(); return ctx.Err() }, backstay.Idempotent())
				})
				time.Sleep(10 * ms)
			}
			all.Wait()
			if extra := int(made.Load()) - calls; float64(extra) > c.ratio*calls+floor || extra < int(c.ratio*calls)/2 {
				t.Errorf("%s: %d extra attempts for %d calls, want about %v", c.name, extra, calls, c.ratio*calls)
			}
			if s := h.Snapshot(); s.Denied == 0 || s.Hedges != int64(made.Load())-calls {
				t.Errorf("%s: got %+v, want %d hedges and some denied", c.name, s, made.Load()-calls)
			}
		})
	}
}

func TestBudgetFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		empty := budget.New(budget.Config{Start: -1, Floor: -1})
		p := backstay.Chain(hedge.New(hedge.Config{Delay: 10 * ms, BudgetFor: func(key string) *budget.Budget {
			if key == "poor" {
				return empty
			}
			return plenty()
		}}))
		for key, want := range map[string]int32{"poor": 1, "rich": 2} {
			made := atomic.Int32{}
			_ = backstay.Run(t.Context(), p, func(context.Context) error { made.Add(1); time.Sleep(50 * ms); return nil }, backstay.Idempotent(), backstay.WithKey(key))
			if got := made.Load(); got != want {
				t.Errorf("key %s: got %d attempts, want %d", key, got, want)
			}
		}
		time.Sleep(time.Second)
	})
}

// The delay follows what calls take, once enough are known.
func TestQuantile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hedge.New(hedge.Config{MinSamples: 50, Budget: plenty()})
		p := backstay.Chain(h)
		n := 0
		call := func(takes time.Duration) {
			_ = backstay.Run(t.Context(), p, func(ctx context.Context) error {
				select {
				case <-time.After(takes):
				case <-ctx.Done():
				}
				return ctx.Err()
			}, backstay.Idempotent())
			n++
		}
		for range 49 {
			call(20 * ms)
		}
		if s := h.Snapshot(); s.Delay != -1 || s.Hedges != 0 {
			t.Errorf("after %d calls: got %+v, want no delay yet", n, s)
		}
		for range 300 {
			call(20 * ms)
		}
		if s := h.Snapshot(); s.Delay < 19*ms || s.Delay > 21*ms {
			t.Errorf("after %d calls of 20ms: got delay %v", n, s.Delay)
		}
		before := h.Snapshot().Hedges
		for i := range 300 {
			takes := 20 * ms
			if i%50 == 0 {
				takes = 5 * time.Second
			}
			call(takes - time.Duration(i%10)*ms/10)
		}
		if got := h.Snapshot().Hedges - before; got < 6 || got > 60 {
			t.Errorf("got %d hedges for 300 calls of which 6 were slow", got)
		}
		for range 300 {
			call(100 * ms) // slow for all: after a while that is no reason to hedge
		}
		if s := h.Snapshot(); s.Delay < 80*ms {
			t.Errorf("after 300 calls of 100ms: got delay %v, want it to follow", s.Delay)
		}
		time.Sleep(5 * time.Minute)
		if s := h.Snapshot(); s.Delay != -1 {
			t.Errorf("after 5 min without calls: got delay %v, want none", s.Delay)
		}
	})
}

// A first attempt that lost took at least as long as it had: left out, each hedge would lower the quantile and make for more.
func TestLosersTimeCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hedge.New(hedge.Config{Delay: 20 * ms, Quantile: 0.95, Budget: plenty()})
		p := backstay.Chain(h)
		for i := range 1000 {
			_ = backstay.Run(t.Context(), p, func(ctx context.Context) error {
				takes := time.Duration(10+i%10) * ms
				if i%10 == 0 && backstay.CallFrom(ctx).Attempt() == 1 {
					takes = time.Minute // one in ten: more than the quantile leaves
				}
				select {
				case <-time.After(takes):
				case <-ctx.Done():
				}
				return ctx.Err()
			}, backstay.Idempotent())
		}
		if s := h.Snapshot(); s.Delay < 20*ms || s.Wins < 50 {
			t.Errorf("got %+v, want a delay above the 20ms of the quick calls", s)
		}
	})
}

func TestDelays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := func(ctx context.Context) error {
			if backstay.CallFrom(ctx).Attempt() > 1 {
				return nil
			}
			<-ctx.Done()
			return ctx.Err()
		}
		for _, c := range []struct {
			config hedge.Config
			want   time.Duration
		}{
			{hedge.Config{Delay: -1}, 0},
			{hedge.Config{Delay: 30 * ms}, 30 * ms},
			{hedge.Config{Delay: 30 * ms, Quantile: 0.9}, 30 * ms}, // nothing seen yet
			{hedge.Config{DelayFor: func(_ context.Context, call *backstay.Call) time.Duration {
				return time.Duration(len(call.Name())) * time.Second
			}}, 4 * time.Second},
		} {
			start := time.Now()
			err := backstay.Run(t.Context(), backstay.Chain(hedge.New(c.config)), slow, backstay.Idempotent(), backstay.Named("four"))
			if got := time.Since(start); err != nil || got != c.want {
				t.Errorf("%+v: got %v after %v, want success after %v", c.config, err, got, c.want)
			}
		}
	})
}

func TestEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []string
		p := backstay.Chain(hedge.New(hedge.Config{Name: "h", Delay: 10 * ms})).Observe(backstay.ObserverFunc(func(_ context.Context, e backstay.Event) {
			if e.Policy == "hedge" {
				got = append(got, fmt.Sprint(e.Kind, " ", e.Name, " ", e.Attempt, " ", e.Reason, " ", e.Wait, " ", e.Elapsed))
			}
		}))
		_, _ = backstay.Do(t.Context(), p, plan{{100 * ms, "1", nil}, {5 * ms, "2", nil}}.try, backstay.Idempotent())
		want := []string{"hedge h 2  10ms 0s", "win h 2 hedge 0s 15ms"}
		if !slices.Equal(got, want) {
			t.Errorf("got events %q, want %q", got, want)
		}
	})
}

func TestConfig(t *testing.T) {
	for _, c := range []hedge.Config{
		{Quantile: 1}, {Quantile: -0.5}, {MinSamples: -1}, {Window: ms}, {Extra: -1}, {Extra: 10},
		{DelayFor: func(context.Context, *backstay.Call) time.Duration { return 0 }, Delay: 1}, {Budget: plenty(), BudgetFor: func(string) *budget.Budget { return nil }},
	} {
		err := c.Validate()
		if err == nil || !strings.HasPrefix(err.Error(), "hedge: Config.") {
			t.Errorf("%+v: got %v, want an error that names the field", c, err)
			continue
		}
		func() {
			defer func() {
				if got, _ := recover().(error); got == nil || got.Error() != err.Error() {
					t.Errorf("New panicked with %v, want %v", got, err)
				}
			}()
			hedge.New(c)
		}()
	}
	in := hedge.Config{Name: "h", Delay: 1500 * ms, Quantile: 0.9, Extra: 2, Unsafe: true}
	text, err := json.Marshal(in)
	if err != nil || !strings.Contains(string(text), `"delay":"1.5s"`) {
		t.Fatalf("got %s, %v", text, err)
	}
	var out hedge.Config
	if err := json.Unmarshal(text, &out); err != nil || !reflect.DeepEqual(in, out) {
		t.Errorf("got %+v, %v back, want %+v", out, err, in)
	}
	var h *hedge.Hedge
	if err := backstay.Run(t.Context(), backstay.Chain(h), func(context.Context) error { return nil }); err != nil {
		t.Errorf("a nil hedge: got %v, want the call", err)
	}
	if got, want := hedge.New(hedge.Config{Name: "h"}).Describe().String(), `hedge "h" (1 more after quantile 0.95)`; got != want {
		t.Errorf("Describe: got %s, want %s", got, want)
	}
}

// A call that cannot be hedged costs nothing.
func TestAllocations(t *testing.T) {
	p := backstay.Chain(hedge.New(hedge.Config{}))
	fn := func(context.Context) error { return nil }
	ctx := t.Context()
	bare := testing.AllocsPerRun(1000, func() { _ = backstay.Run(ctx, nil, fn) })
	if got := testing.AllocsPerRun(1000, func() { _ = backstay.Run(ctx, p, fn) }); got > bare {
		t.Errorf("not repeatable: got %v allocations a call, want %v as without the hedge", got, bare)
	}
}

// A retry inside the hedge marks the call while further attempts are derived from it.
func TestRetryInside(t *testing.T) {
	p := backstay.Chain(hedge.New(hedge.Config{Delay: -1, Budget: plenty()}), backstay.PolicyFunc(func(next backstay.Handler) backstay.Handler {
		return func(ctx context.Context, call *backstay.Call) backstay.Outcome {
			call.BeginRetry()
			return next(ctx, call)
		}
	}))
	for range 100 {
		if err := backstay.Run(t.Context(), p, func(context.Context) error { return nil }, backstay.Idempotent()); err != nil {
			t.Errorf("got %v, want success", err)
		}
	}
}

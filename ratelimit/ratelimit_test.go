package ratelimit_test

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/time/rate"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/ratelimit"
)

func ok(context.Context) error { return nil }

func TestRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := backstay.Chain(ratelimit.New(ratelimit.Config{Name: "quota", Rate: 10, Burst: 3}))
		made := 0
		for range 5 {
			_ = backstay.Run(t.Context(), p, func(context.Context) error { made++; return nil })
		}
		if made != 3 {
			t.Errorf("got %d calls at once, want the burst of 3", made)
		}
		time.Sleep(30 * time.Millisecond)
		err := backstay.Run(t.Context(), p, ok)
		r, is := errors.AsType[*backstay.Rejected](err)
		if !is || !errors.Is(err, ratelimit.ErrLimited) || !errors.Is(err, backstay.ErrRejected) {
			t.Fatalf("got %v, want a refusal", err)
		}
		if r.RetryAfter < 69*time.Millisecond || r.RetryAfter > 71*time.Millisecond {
			t.Errorf("got retry after %v, want 70ms", r.RetryAfter)
		}
		if got, want := err.Error(), `ratelimit "quota": no token, retry in 70ms`; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		time.Sleep(r.RetryAfter + 1)
		if err := backstay.Run(t.Context(), p, ok); err != nil {
			t.Errorf("after the time that the refusal gave: got %v", err)
		}
	})
}

func TestWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := ratelimit.New(ratelimit.Config{Rate: 10, Burst: 1, MaxWait: 250 * time.Millisecond})
		p := backstay.Chain(l)
		start := time.Now()
		var mu sync.Mutex
		var order []int
		var at []time.Duration
		refused := 0
		var all sync.WaitGroup
		for i := range 5 {
			all.Go(func() {
				err := backstay.Run(t.Context(), p, func(context.Context) error {
					mu.Lock()
					defer mu.Unlock()
					order, at = append(order, i), append(at, time.Since(start))
					return nil
				})
				if err != nil {
					mu.Lock()
					refused++
					mu.Unlock()
					if time.Since(start) != 0 {
						t.Errorf("call %d was refused after %v, want at once", i, time.Since(start))
					}
				}
			})
			synctest.Wait()
		}
		if s := l.Snapshot(); s.Waiting != 2 || s.Rejected != 2 || s.Tokens > -1.9 {
			t.Errorf("got %+v, want 2 waiting and 2 refused: the third would wait 300ms", s)
		}
		all.Wait()
		if !slices.Equal(order, []int{0, 1, 2}) || !slices.Equal(at, []time.Duration{0, 100 * time.Millisecond, 200 * time.Millisecond}) {
			t.Errorf("got calls %v at %v, want 0, 1, 2 in this order, 100ms apart", order, at)
		}
	})
}

// A call whose turn comes after its deadline is refused at once and takes nothing from the others.
func TestDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := backstay.Chain(ratelimit.New(ratelimit.Config{Rate: 10, Burst: 1, MaxWait: -1}))
		_ = backstay.Run(t.Context(), p, ok)
		start := time.Now()
		for range 10 {
			ctx, cancel := context.WithTimeout(t.Context(), 90*time.Millisecond)
			err := backstay.Run(ctx, p, ok)
			cancel()
			if !errors.Is(err, ratelimit.ErrLimited) || time.Since(start) != 0 {
				t.Errorf("got %v after %v, want a refusal at once", err, time.Since(start))
			}
		}
		if err := backstay.Run(t.Context(), p, ok); err != nil || time.Since(start) != 100*time.Millisecond {
			t.Errorf("got %v after %v, want the call after 100ms", err, time.Since(start))
		}
	})
}

func TestCancelledWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := backstay.Chain(ratelimit.New(ratelimit.Config{Rate: 10, Burst: 1, MaxWait: time.Second}))
		_ = backstay.Run(t.Context(), p, ok)
		cause := errors.New("shutting down")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(50*time.Millisecond, func() { cancel(cause) })
		start := time.Now()
		err := backstay.Run(ctx, p, ok)
		if !errors.Is(err, cause) || !errors.Is(err, context.Canceled) || !errors.Is(err, backstay.ErrRejected) || time.Since(start) != 50*time.Millisecond {
			t.Errorf("got %v after %v, want a refusal with the cause after 50ms", err, time.Since(start))
		}
		if err := backstay.Run(t.Context(), p, ok); err != nil || time.Since(start) != 100*time.Millisecond {
			t.Errorf("the next call: got %v after %v, want it to get the token given back, after 100ms", err, time.Since(start))
		}
		dead, end := context.WithCancel(t.Context())
		end()
		time.Sleep(100 * time.Millisecond)
		if err := backstay.Run(dead, p, ok); !errors.Is(err, context.Canceled) || errors.Is(err, backstay.ErrRejected) {
			t.Errorf("dead on arrival: got %v, want the context's error", err)
		}
		if start := time.Now(); backstay.Run(t.Context(), p, ok) != nil || time.Since(start) != 0 {
			t.Error("a call that was dead on arrival took a token")
		}
	})
}

func TestApply(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := ratelimit.New(ratelimit.Config{Rate: 1, Burst: 1})
		p := backstay.Chain(l)
		_ = backstay.Run(t.Context(), p, ok)
		if err := l.Apply(ratelimit.Config{Rate: 100, Burst: 10, MaxWait: time.Second}); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if err := backstay.Run(t.Context(), p, ok); err != nil || time.Since(start) != 10*time.Millisecond {
			t.Errorf("got %v after %v, want the call after 10ms", err, time.Since(start))
		}
		if s := l.Snapshot(); s.Rate != 100 || s.Burst != 10 {
			t.Errorf("got %+v, want the new settings", s)
		}
		if err := l.Apply(ratelimit.Config{Rate: -1}); err != nil {
			t.Fatal(err)
		}
		for range 1000 {
			if err := backstay.Run(t.Context(), p, ok); err != nil {
				t.Fatalf("no limit: got %v", err)
			}
		}
		if err := l.Apply(ratelimit.Config{Burst: -1}); err == nil {
			t.Error("a config that is not valid was applied")
		}
	})
}

func TestHandedOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		own := rate.NewLimiter(1, 2)
		l := ratelimit.New(ratelimit.Config{Limiter: own})
		p := backstay.Chain(l)
		own.Allow() // other code takes a token
		if err := backstay.Run(t.Context(), p, ok); err != nil {
			t.Errorf("got %v, want the second token", err)
		}
		if err := backstay.Run(t.Context(), p, ok); !errors.Is(err, ratelimit.ErrLimited) {
			t.Errorf("got %v, want a refusal", err)
		}
		if err := l.Apply(ratelimit.Config{MaxWait: time.Minute}); err != nil {
			t.Error(err)
		}
		if err := l.Apply(ratelimit.Config{Rate: 5}); err == nil {
			t.Error("the settings of somebody else's limiter were changed")
		}
		own.SetLimit(0)
		if err := backstay.Run(t.Context(), p, ok); !errors.Is(err, ratelimit.ErrLimited) {
			t.Errorf("rate 0: got %v, want a refusal, not a wait without end", err)
		}
	})
}

func TestCost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cost := map[string]int{"free": 0, "one": 1, "five": 5, "eleven": 11}
		p := backstay.Chain(ratelimit.New(ratelimit.Config{Rate: 10, Burst: 10, MaxWait: time.Hour, Cost: func(_ context.Context, c *backstay.Call) int { return cost[c.Name()] }}))
		start := time.Now()
		for _, c := range []struct {
			name string
			at   time.Duration
			ok   bool
		}{
			{"five", 0, true}, {"five", 0, true}, {"free", 0, true}, {"eleven", 0, false},
			{"five", 500 * time.Millisecond, true}, {"one", 600 * time.Millisecond, true},
		} {
			err := backstay.Run(t.Context(), p, ok, backstay.Named(c.name))
			if (err == nil) != c.ok || time.Since(start) != c.at {
				t.Errorf("%s: got %v at %v, want ok %v at %v", c.name, err, time.Since(start), c.ok, c.at)
			}
		}
	})
}

func TestEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []backstay.Event
		p := backstay.Chain(ratelimit.New(ratelimit.Config{Rate: 10, Burst: 1, MaxWait: 150 * time.Millisecond, Observer: backstay.ObserverFunc(func(_ context.Context, e backstay.Event) { got = append(got, e) })}))
		_ = backstay.Run(t.Context(), p, ok)
		_ = backstay.Run(t.Context(), p, ok)
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		_ = backstay.Run(ctx, p, ok)
		if len(got) != 2 || got[0].Kind != backstay.EventWait || got[0].Elapsed != 100*time.Millisecond || got[1].Kind != backstay.EventReject || got[1].Wait != 100*time.Millisecond {
			t.Errorf("got %+v, want a wait and a refusal of 100ms each", got)
		}
	})
}

func TestKeep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := ratelimit.New(ratelimit.Config{Rate: 10, Burst: 5})
		if busy, left := l.Keep(); busy || left != 0 {
			t.Errorf("new: got %v, %v, want nothing to remember", busy, left)
		}
		p := backstay.Chain(l)
		for range 5 {
			_ = backstay.Run(t.Context(), p, ok)
		}
		if _, left := l.Keep(); left != 500*time.Millisecond {
			t.Errorf("spent: got %v left, want 500ms", left)
		}
	})
}

func TestConfig(t *testing.T) {
	for _, c := range []ratelimit.Config{{Rate: math.NaN()}, {Rate: math.Inf(1)}, {Per: -1}, {Per: 25 * time.Hour}, {Burst: -1}, {Rate: 1, Limiter: rate.NewLimiter(1, 1)}} {
		err := c.Validate()
		if err == nil || !strings.HasPrefix(err.Error(), "ratelimit: Config.") {
			t.Errorf("%+v: got %v, want an error that names the field", c, err)
			continue
		}
		func() {
			defer func() {
				if got, _ := recover().(error); got == nil || got.Error() != err.Error() {
					t.Errorf("New panicked with %v, want %v", got, err)
				}
			}()
			ratelimit.New(c)
		}()
	}
	for _, c := range []struct {
		config ratelimit.Config
		want   string
	}{
		{ratelimit.Config{}, "ratelimit (100/s, burst 100)"},
		{ratelimit.Config{Name: "sms", Rate: 30, Per: time.Minute}, `ratelimit "sms" (0.5/s, burst 1)`},
		{ratelimit.Config{Rate: 2.5, MaxWait: time.Second}, "ratelimit (2.5/s, burst 3, waits ≤ 1s)"},
		{ratelimit.Config{Rate: 2.5, MaxWait: -1}, "ratelimit (2.5/s, burst 3, waits)"},
		{ratelimit.Config{Rate: -1}, "ratelimit (no limit)"},
	} {
		if got := ratelimit.New(c.config).Describe().String(); got != c.want {
			t.Errorf("got %s, want %s", got, c.want)
		}
	}
	in := ratelimit.Config{Name: "sms", Rate: 30, Per: time.Minute, MaxWait: 1500 * time.Millisecond}
	text, err := json.Marshal(in)
	if err != nil || !strings.Contains(string(text), `"maxWait":"1.5s"`) {
		t.Fatalf("got %s, %v", text, err)
	}
	var out ratelimit.Config
	if err := json.Unmarshal(text, &out); err != nil || !reflect.DeepEqual(in, out) {
		t.Errorf("got %+v, %v back, want %+v", out, err, in)
	}
	var l *ratelimit.Limit
	if err := backstay.Run(t.Context(), backstay.Chain(l), ok); err != nil {
		t.Errorf("a nil limit: got %v, want the call", err)
	}
}

func TestAllocations(t *testing.T) {
	p := backstay.Chain(ratelimit.New(ratelimit.Config{Rate: 1e9, Burst: 1e9}))
	ctx := t.Context()
	bare := testing.AllocsPerRun(1000, func() { _ = backstay.Run(ctx, nil, ok) })
	if got := testing.AllocsPerRun(1000, func() { _ = backstay.Run(ctx, p, ok) }); got > bare {
		t.Errorf("got %v allocations a call, want %v as without the limit", got, bare)
	}
}

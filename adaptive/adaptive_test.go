package adaptive_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/adaptive"
)

// rounds makes n calls at once through p, each of 10 ms, k times over.
func rounds(p *backstay.Pipeline, k, n int, fn func(ctx context.Context) error) {
	for range k {
		var all sync.WaitGroup
		for range n {
			all.Go(func() {
				_ = backstay.Run(context.Background(), p, func(ctx context.Context) error {
					time.Sleep(10 * time.Millisecond)
					return fn(ctx)
				})
			})
		}
		all.Wait()
	}
}

func well(context.Context) error { return nil }

// shed marks every failure as the server's word that it is overloaded.
var shed = backstay.Classify(func(_ context.Context, out backstay.Outcome) backstay.Outcome {
	out.Shed = out.Err != nil
	return out
})

func TestSamples(t *testing.T) {
	boom := errors.New("boom")
	rejected := &backstay.Rejected{Policy: "breaker", Reason: "open", Err: boom}
	for _, c := range []struct {
		name   string
		ending error
		inner  backstay.Policy
		want   string
	}{
		{"success", nil, nil, "grows"},
		{"timeout", context.DeadlineExceeded, nil, "shrinks"},
		{"timeout of the network", fmt.Errorf("dial: %w", netTimeout{}), nil, "shrinks"},
		{"shed", boom, shed, "shrinks"},
		{"failure", boom, nil, "stays"},
		{"refused by a policy inside", rejected, nil, "stays"},
		{"ignored", backstay.Ignore(boom), nil, "stays"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := adaptive.New(adaptive.Config{Initial: 40, Window: 10 * time.Millisecond})
				p := backstay.Chain(l, c.inner)
				if c.inner == nil {
					p = backstay.Chain(l)
				}
				rounds(p, 3, 10, well) // not enough in flight to move the limit
				before := l.Snapshot().Limit
				rounds(p, 20, 40, func(context.Context) error { return c.ending })
				after := l.Snapshot().Limit
				got := "stays"
				if after > before {
					got = "grows"
				} else if after < before {
					got = "shrinks"
				}
				if got != c.want {
					t.Errorf("limit went from %d to %d: it %s, want it to be one that %s", before, after, got, c.want)
				}
			})
		})
	}
}

type netTimeout struct{}

func (netTimeout) Error() string { return "i/o timeout" }
func (netTimeout) Timeout() bool { return true }

// A caller that cancels says nothing about the dependency, whatever error the function makes of it.
func TestCancelledIsIgnored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := adaptive.New(adaptive.Config{Initial: 40})
		p := backstay.Chain(l)
		for range 10 {
			ctx, cancel := context.WithCancel(t.Context())
			var all sync.WaitGroup
			for range 40 {
				all.Go(func() {
					_ = backstay.Run(ctx, p, func(ctx context.Context) error { <-ctx.Done(); return context.DeadlineExceeded })
				})
			}
			time.Sleep(time.Second)
			cancel()
			all.Wait()
		}
		if s := l.Snapshot(); s.Limit != 40 || s.Drops != 0 || s.RTT != 0 {
			t.Errorf("got %+v, want the limit of 40, no drops and no sample", s)
		}
	})
}

// The caller's own deadline is a drop only when the attempt had its time.
func TestDeadlineFromOutside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := adaptive.New(adaptive.Config{SlowCall: time.Second})
		p := backstay.Chain(l)
		for _, c := range []struct {
			limit time.Duration
			want  int64
		}{{900 * time.Millisecond, 0}, {1100 * time.Millisecond, 1}} {
			ctx, cancel := context.WithTimeout(t.Context(), c.limit)
			_ = backstay.Run(ctx, p, func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
			cancel()
			if got := l.Snapshot().Drops; got != c.want {
				t.Errorf("drops after a deadline of %v: got %d, want %d", c.limit, got, c.want)
			}
		}
	})
}

// One lost packet now and then is no overload, and no reason to grow either.
func TestFewDropsDoNotCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := adaptive.New(adaptive.Config{Initial: 40})
		p := backstay.Chain(l)
		n := 0
		var mu sync.Mutex
		rounds(p, 100, 40, func(context.Context) error {
			mu.Lock()
			defer mu.Unlock()
			if n++; n%100 == 0 {
				return context.DeadlineExceeded
			}
			return nil
		})
		if s := l.Snapshot(); s.Limit != 40 || s.Drops != 40 {
			t.Errorf("got %+v, want a limit of 40 after 40 drops in 4,000 calls, some in each window", s)
		}
	})
}

// Calls that were under way together tell of one overload, not of twenty.
func TestOneCutPerResponseTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := adaptive.New(adaptive.Config{Initial: 40})
		p := backstay.Chain(l)
		rounds(p, 1, 20, func(context.Context) error { return context.DeadlineExceeded })
		if got := l.Snapshot().Limit; got != 10 {
			t.Errorf("limit after 20 calls timed out together: got %d, want 10, half of what was tried", got)
		}
		rounds(p, 1, 10, func(context.Context) error { return context.DeadlineExceeded })
		if got := l.Snapshot().Limit; got != 5 {
			t.Errorf("limit after 10 more: got %d, want 5", got)
		}
	})
}

func TestMinAndMax(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := adaptive.New(adaptive.Config{Min: 5, Initial: 20, Max: 30})
		p := backstay.Chain(l)
		rounds(p, 100, 40, well)
		if got := l.Snapshot().Limit; got != 30 {
			t.Errorf("limit after 1 s without a queue: got %d, want Max of 30", got)
		}
		rounds(p, 50, 40, func(context.Context) error { return context.DeadlineExceeded })
		if got := l.Snapshot().Limit; got != 5 {
			t.Errorf("limit after nothing but timeouts: got %d, want Min of 5", got)
		}
		rounds(p, 100, 40, well)
		if got := l.Snapshot().Limit; got < 15 {
			t.Errorf("limit a second after the timeouts: got %d, want it well on its way up", got)
		}
	})
}

func TestUnusedLimitDoesNotGrow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := adaptive.New(adaptive.Config{})
		rounds(backstay.Chain(l), 200, 5, well)
		if got := l.Snapshot().Limit; got != 20 {
			t.Errorf("limit with 5 of 20 in flight: got %d, want 20", got)
		}
	})
}

func TestRefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var events []backstay.Event
		l := adaptive.New(adaptive.Config{Name: "inventory", Initial: 2, Observer: backstay.ObserverFunc(func(_ context.Context, e backstay.Event) { events = append(events, e) })})
		p := backstay.Chain(l)
		release := make(chan struct{})
		var all sync.WaitGroup
		for range 2 {
			all.Go(func() { _ = backstay.Run(t.Context(), p, func(context.Context) error { <-release; return nil }) })
		}
		synctest.Wait()
		err := backstay.Run(t.Context(), p, func(context.Context) error { t.Error("a refused call was made"); return nil })
		if !errors.Is(err, adaptive.ErrLimited) || !errors.Is(err, backstay.ErrRejected) {
			t.Errorf("got error %v, want one that is ErrLimited and ErrRejected", err)
		}
		if got, want := fmt.Sprint(err), `adaptive "inventory": limit reached`; got != want {
			t.Errorf("got error text %q, want %q", got, want)
		}
		if len(events) != 1 || events[0].Kind != backstay.EventReject || events[0].Policy != "adaptive" {
			t.Errorf("got events %+v, want one rejection", events)
		}
		close(release)
		all.Wait()
		if s := l.Snapshot(); s.InFlight != 0 || s.Rejected != 1 {
			t.Errorf("got %+v, want nothing in flight and one refusal", s)
		}
	})
}

func TestDeadOnArrival(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	l := adaptive.New(adaptive.Config{})
	err := backstay.Run(ctx, backstay.Chain(l), func(context.Context) error { t.Error("called"); return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
}

func TestPermitComesBack(t *testing.T) {
	l := adaptive.New(adaptive.Config{})
	p := backstay.Chain(l)
	func() {
		defer func() {
			if got := recover(); got != "boom" {
				t.Errorf("recovered %v, want the panic's own value", got)
			}
		}()
		_ = backstay.Run(t.Context(), p, func(context.Context) error { panic("boom") })
	}()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = backstay.Run(context.Background(), p, func(context.Context) error { runtime.Goexit(); return nil })
	}()
	<-done
	if got := l.Snapshot().InFlight; got != 0 {
		t.Errorf("in flight after a panic and a Goexit: got %d, want 0", got)
	}
}

func TestHeldUntilReleased(t *testing.T) {
	for _, early := range []bool{false, true} {
		l := adaptive.New(adaptive.Config{UntilReturn: early})
		_, release, err := backstay.DoHeld(t.Context(), backstay.Chain(l), func(context.Context) (int, error) { return 1, nil }, func(int) {})
		if err != nil {
			t.Fatal(err)
		}
		want := 1
		if early {
			want = 0
		}
		if got := l.Snapshot().InFlight; got != want {
			t.Errorf("UntilReturn %v: in flight while the value is held: got %d, want %d", early, got, want)
		}
		if busy, _ := l.Keep(); busy != (want == 1) {
			t.Errorf("UntilReturn %v: Keep says busy: %v", early, busy)
		}
		release()
		release()
		if got := l.Snapshot().InFlight; got != 0 {
			t.Errorf("UntilReturn %v: in flight after release: got %d, want 0", early, got)
		}
	}
}

func TestShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := adaptive.New(adaptive.Config{Initial: 10, Share: func(_ context.Context, c *backstay.Call) float64 {
			if c.Name() == "batch" {
				return 0.5
			}
			return 1
		}})
		p := backstay.Chain(l)
		release := make(chan struct{})
		var all sync.WaitGroup
		var mu sync.Mutex
		made := map[string]int{}
		start := func(name string) {
			all.Go(func() {
				_ = backstay.Run(t.Context(), p, func(context.Context) error {
					mu.Lock()
					made[name]++
					mu.Unlock()
					<-release
					return nil
				}, backstay.Named(name))
			})
			synctest.Wait()
		}
		for range 10 {
			start("batch")
		}
		for range 10 {
			start("checkout")
		}
		if made["batch"] != 5 || made["checkout"] != 5 {
			t.Errorf("got %v in flight, want 5 and 5: the important calls keep what the others may not fill", made)
		}
		close(release)
		all.Wait()
	})
}

func TestShadow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shadows := 0
		l := adaptive.New(adaptive.Config{Initial: 1, Min: 1, Shadow: true})
		p := backstay.Chain(l).Observe(backstay.ObserverFunc(func(_ context.Context, e backstay.Event) {
			if e.Kind == backstay.EventShadow {
				shadows++
			}
		}))
		release := make(chan struct{})
		var all sync.WaitGroup
		for range 3 {
			all.Go(func() {
				if err := backstay.Run(t.Context(), p, func(context.Context) error { <-release; return nil }); err != nil {
					t.Errorf("got %v, want no refusal in shadow mode", err)
				}
			})
			synctest.Wait()
		}
		close(release)
		all.Wait()
		if shadows != 2 {
			t.Errorf("got %d shadow events, want 2", shadows)
		}
	})
}

func TestLimitEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var last string
		n := 0
		p := backstay.Chain(adaptive.New(adaptive.Config{})).Observe(backstay.ObserverFunc(func(_ context.Context, e backstay.Event) {
			if e.Kind != backstay.EventLimit {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			if last != "" && e.From != last {
				t.Errorf("limit goes from %s, want from %s where the last event left it", e.From, last)
			}
			last = e.To
			n++
		}))
		rounds(p, 100, 50, well)
		if n < 2 || last == "" {
			t.Errorf("got %d events up to %q, want the limit's way up", n, last)
		}
	})
}

func TestPermit(t *testing.T) {
	l := adaptive.New(adaptive.Config{Initial: 1, Min: 1})
	p, err := l.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Acquire(t.Context()); !errors.Is(err, adaptive.ErrLimited) {
		t.Errorf("second permit of one: got error %v, want ErrLimited", err)
	}
	p.Done(t.Context(), backstay.Outcome{Class: backstay.Success})
	p.Done(t.Context(), backstay.Outcome{Class: backstay.Success})
	if got := l.Snapshot().InFlight; got != 0 {
		t.Errorf("in flight after two Done of one permit: got %d, want 0", got)
	}
}

func TestKeepRemembersACut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := adaptive.New(adaptive.Config{})
		p := backstay.Chain(l)
		if _, left := l.Keep(); left != 0 {
			t.Errorf("a new limit remembers for %v, want 0", left)
		}
		rounds(p, 2, 20, func(context.Context) error { return context.DeadlineExceeded })
		if busy, left := l.Keep(); busy || left <= 0 {
			t.Errorf("after a cut: busy %v, left %v; want idle with something to remember", busy, left)
		}
		time.Sleep(time.Minute)
		if _, left := l.Keep(); left != 0 {
			t.Errorf("a minute after a cut: left %v, want 0", left)
		}
	})
}

func TestNilAndDescribe(t *testing.T) {
	var l *adaptive.Limit
	if err := backstay.Run(t.Context(), chain(l), func(context.Context) error { return nil }); err != nil {
		t.Errorf("a nil limit: got %v, want the call", err)
	}
	if got, want := adaptive.New(adaptive.Config{Name: "a"}).Describe().String(), `adaptive "a" (2 to 1000 at once)`; got != want {
		t.Errorf("Describe: got %s, want %s", got, want)
	}
}

func TestConfig(t *testing.T) {
	for _, c := range []adaptive.Config{
		{Min: -1}, {Max: -1}, {Min: 10, Max: 5}, {Initial: 1, Min: 2}, {Initial: 9, Max: 8}, {Tolerance: 0.5}, {Tolerance: 11}, {Headroom: 11, Max: 10},
		{Window: -1}, {Window: time.Hour}, {DropRate: -1}, {DropRate: 1.1},
	} {
		err := c.Validate()
		if err == nil {
			t.Errorf("%+v: got no error", c)
			continue
		}
		v, _ := json.Marshal(c)
		for name := range map[string]bool{strings.Split(strings.TrimPrefix(err.Error(), "adaptive: Config."), " ")[0]: true} {
			if !reflect.ValueOf(c).FieldByName(name).IsValid() {
				t.Errorf("%s: error %q does not name a field", v, err)
			}
		}
		func() {
			defer func() {
				if got, _ := recover().(error); got == nil || got.Error() != err.Error() {
					t.Errorf("%s: New panicked with %v, want %v", v, got, err)
				}
			}()
			adaptive.New(c)
		}()
	}
	for _, c := range []adaptive.Config{{}, {Max: 1}, {Initial: 1}, {Min: 50}, {Initial: 5000}, {Baseline: -1, SlowCall: -1}} {
		if err := c.Validate(); err != nil {
			t.Errorf("%+v: got %v, want no error", c, err)
		}
	}
	in := adaptive.Config{Name: "a", Min: 3, Window: 1500 * time.Millisecond, DropRate: 0.2, Shadow: true}
	text, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	if want := `"window":"1.5s"`; !strings.Contains(string(text), want) {
		t.Errorf("got %s, want %s in it", text, want)
	}
	var out adaptive.Config
	if err := json.Unmarshal(text, &out); err != nil || !reflect.DeepEqual(in, out) {
		t.Errorf("got %+v, %v back, want %+v", out, err, in)
	}
	if err := json.Unmarshal([]byte(`{"windw":"1s"}`), &out); err == nil {
		t.Error("an unknown field was accepted")
	}
}

func TestAllocations(t *testing.T) {
	p := backstay.Chain(adaptive.New(adaptive.Config{}))
	fn := func(context.Context) error { return nil }
	ctx := t.Context()
	bare := testing.AllocsPerRun(1000, func() { _ = backstay.Run(ctx, nil, fn) })
	if got := testing.AllocsPerRun(1000, func() { _ = backstay.Run(ctx, p, fn) }); got > bare {
		t.Errorf("got %v allocations a call, want %v as without the limit", got, bare)
	}
}

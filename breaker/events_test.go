package breaker_test

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/breaker"
)

func TestStateEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &log{}
		c := plain(1)
		c.Observer = l
		b := breaker.New(c)
		times(b, 1, errDown)
		time.Sleep(time.Second)
		times(b, 1, errDown)
		time.Sleep(2 * time.Second)
		times(b, 1, nil)
		b.Trip()
		b.Reset()
		b.Reset()
		b.SetMode(breaker.ForcedOpen)
		b.SetMode(breaker.Shadow)
		want := []string{
			"closed>open failures in a row",
			"open>half-open due", "half-open>open probe failed",
			"open>half-open due", "half-open>closed probes succeeded",
			"closed>open trip", "open>closed reset",
			"closed>forced-open mode forced-open", "forced-open>closed mode shadow",
		}
		if got := l.states(); !slices.Equal(got, want) {
			t.Fatalf("got changes\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		first, third := l.kinds(backstay.EventState)[0], l.kinds(backstay.EventState)[2]
		if first.Wait != time.Second || third.Wait != 2*time.Second {
			t.Errorf("got open periods of %v and %v, want 1s and 2s", first.Wait, third.Wait)
		}
		if first.Policy != "breaker" || first.Name != "test" || !errors.Is(first.Err, errDown) || first.Attempt != 1 {
			t.Errorf("got event %+v, want the policy, its name, the failure and the attempt", first)
		}
	})
}

func TestRejectEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		own, calls := &log{}, &log{}
		c := plain(1)
		c.Observer = own
		b := breaker.New(c)
		b.Trip()
		p := backstay.Chain(b).Observe(calls)
		_ = backstay.Run(context.Background(), p, func(context.Context) error { return nil }, backstay.Named("GET item"), backstay.WithKey("host"))
		for name, l := range map[string]*log{"own": own, "call's": calls} {
			got := l.kinds(backstay.EventReject)
			if len(got) != 1 {
				t.Fatalf("%s observer: got %d refusals, want 1", name, len(got))
			}
			e := got[0]
			if e.Reason != "open" || e.Wait != time.Second || e.Call != "GET item" || e.Key != "host" || !errors.Is(e.Err, breaker.ErrOpen) {
				t.Errorf("%s observer: got %+v", name, e)
			}
		}
	})
}

// Those who watch the call that makes the change are told of it; those who watch other calls are not.
func TestObserverOfTheCallThatChangesTheState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(plain(2))
		first, second := &log{}, &log{}
		for _, l := range []*log{first, second} {
			_ = backstay.Run(context.Background(), backstay.Chain(b).Observe(l), func(context.Context) error { return errDown }, backstay.Named("op"))
		}
		if got := first.states(); len(got) != 0 {
			t.Errorf("first call: got %v, want nothing", got)
		}
		if got := second.states(); len(got) != 1 {
			t.Errorf("second call: got %v, want one change", got)
		} else if e := second.kinds(backstay.EventState)[0]; e.Call != "op" {
			t.Errorf("got call %q, want op", e.Call)
		}
	})
}

// An observer may use the breaker, and sees the state that it is told of.
func TestObserverMayCallTheBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b *breaker.Breaker
		var saw []string
		c := plain(1)
		c.Observer = backstay.ObserverFunc(func(_ context.Context, e backstay.Event) {
			if e.Kind != backstay.EventState {
				return
			}
			saw = append(saw, e.To+" "+b.State().String())
			b.Snapshot()
			b.Keep()
			_ = try(b, nil)
			if e.To == "open" {
				b.Reset()
			}
		})
		b = breaker.New(c)
		times(b, 1, errDown)
		if want := []string{"open open", "closed closed"}; !slices.Equal(saw, want) {
			t.Fatalf("got %v, want %v", saw, want)
		}
	})
}

// Every change is told once and in order, by however many goroutines it is made, however slow the observer, and although it panics.
func TestObserverOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &log{}
		n := 0
		c := plain(1)
		c.Observer = backstay.ObserverFunc(func(ctx context.Context, e backstay.Event) {
			if e.Kind != backstay.EventState {
				return
			}
			l.Observe(ctx, e)
			time.Sleep(time.Millisecond)
			if n++; n%3 == 0 {
				panic("observer")
			}
		})
		b := breaker.New(c)
		var all sync.WaitGroup
		for range 10 {
			all.Go(func() {
				for range 10 {
					b.Trip()
					b.Reset()
				}
			})
		}
		all.Wait()
		got := l.kinds(backstay.EventState)
		if len(got) < 2 || len(got)%2 != 0 {
			t.Fatalf("got %d changes, want an even number", len(got))
		}
		for i, e := range got {
			if want := []string{"closed", "open"}[i%2]; e.From != want {
				t.Fatalf("change %d: got from %q, want %q", i, e.From, want)
			}
		}
	})
}

func TestHundredChangesAreToldOnceEach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &log{}
		release := make(chan struct{})
		c := plain(1)
		c.Observer = backstay.ObserverFunc(func(ctx context.Context, e backstay.Event) {
			<-release
			l.Observe(ctx, e)
			panic("observer")
		})
		b := breaker.New(c)
		go b.Trip() // tells, and is held up
		synctest.Wait()
		for range 50 {
			b.Reset()
			b.Trip()
		}
		close(release)
		synctest.Wait()
		if got := len(l.states()); got != 101 {
			t.Fatalf("got %d changes told, want 101", got)
		}
	})
}

func TestObserverThatEndsItsGoroutine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &log{}
		c := plain(1)
		c.Observer = backstay.ObserverFunc(func(ctx context.Context, e backstay.Event) {
			l.Observe(ctx, e)
			if len(l.states()) == 1 {
				runtime.Goexit()
			}
		})
		b := breaker.New(c)
		go b.Trip()
		synctest.Wait()
		b.Reset()
		if got := len(l.states()); got != 2 {
			t.Fatalf("got %d changes told, want 2", got)
		}
	})
}

func TestPanicPassesAnObserver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &log{}
		c := plain(1)
		c.Observer = backstay.ObserverFunc(func(ctx context.Context, e backstay.Event) {
			l.Observe(ctx, e)
			panic("observer")
		})
		b := breaker.New(c)
		defer func() {
			if got := recover(); got != "call" {
				t.Errorf("got panic %v, want the call's", got)
			}
			if got := len(l.states()); got != 1 {
				t.Errorf("got %d changes told, want 1", got)
			}
		}()
		_ = backstay.Run(context.Background(), backstay.Chain(b), func(context.Context) error { panic("call") })
	})
}

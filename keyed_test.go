package backstay_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/breaker"
	"github.com/backstay-go/backstay/bulkhead"
	"github.com/backstay-go/backstay/hedge"
	"github.com/backstay-go/backstay/retry"
	"github.com/backstay-go/backstay/timeout"
)

func call(p *backstay.Pipeline, key string, err error) error {
	return backstay.Run(context.Background(), p, func(context.Context) error { return err }, backstay.WithKey(key))
}

// T24: many keys cost bounded memory and no goroutine.
func TestKeyedIsBounded(t *testing.T) {
	k := backstay.NewKeyed(backstay.KeyedConfig{Max: 100}, func(string) *breaker.Breaker { return breaker.New(breaker.Config{}) })
	p := backstay.Chain(k)
	before := runtime.NumGoroutine()
	for i := range 10_000 {
		if err := call(p, fmt.Sprint(i), nil); err != nil {
			t.Fatal(err)
		}
	}
	if s := k.Stats(); s.Keys != 100 || s.Evicted != 9900 || s.Unkeyed != 0 {
		t.Errorf("got %+v, want 100 keys, 9900 evicted, none without a policy", s)
	}
	if got := runtime.NumGoroutine(); got > before {
		t.Errorf("goroutines: got %d, want at most %d", got, before)
	}
}

// T24, the order of eviction: closed ones, then open ones past their period, then the open one nearest its end.
func TestKeyedEvictsInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		period := map[string]time.Duration{"due": time.Second, "soon": time.Minute, "late": time.Hour}
		var gone []string
		k := backstay.NewKeyed(backstay.KeyedConfig{Max: 4, Observer: backstay.ObserverFunc(func(_ context.Context, e backstay.Event) { gone = append(gone, e.Key) })},
			func(key string) *breaker.Breaker {
				open := max(period[key], time.Second)
				return breaker.New(breaker.Config{Consecutive: 1, Spread: -1, OpenFor: open, MaxOpenFor: open, NoJitter: true})
			})
		p := backstay.Chain(k)
		for _, key := range []string{"late", "due", "closed", "soon"} {
			var err error
			if key != "closed" {
				err = errBoom
			}
			_ = call(p, key, err)
		}
		time.Sleep(2 * time.Second)
		for _, key := range []string{"new1", "new2", "new3", "new4"} {
			_ = call(p, key, errBoom) // opens at once, for a second
		}
		if want := "[closed due "; !strings.HasPrefix(fmt.Sprint(gone), want) {
			t.Errorf("forgotten: got %v, want first the closed one, then the one that is due", gone)
		}
		if _, ok := k.Lookup("late"); !ok {
			t.Errorf("the breaker that is open for longest was forgotten: %v", gone)
		}
	})
}

// T24: what is in use is never forgotten; a new key's call then runs without the policy, and is counted.
func TestKeyedAllInUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := backstay.NewKeyed(backstay.KeyedConfig{Max: 2}, func(key string) *bulkhead.Bulkhead {
			return bulkhead.New(bulkhead.Config{Name: key, Limit: 1})
		})
		p := backstay.Chain(k)
		for _, key := range []string{"a", "b"} {
			go func() {
				_ = backstay.Run(context.Background(), p, func(context.Context) error { time.Sleep(time.Minute); return nil }, backstay.WithKey(key))
			}()
		}
		synctest.Wait()
		if err := call(p, "c", nil); err != nil {
			t.Errorf("the call of a third key: got %v, want it to run", err)
		}
		if err := call(p, "a", nil); !errors.Is(err, bulkhead.ErrFull) {
			t.Errorf("a second call of a key in use: got %v, want bulkhead.ErrFull", err)
		}
		if s := k.Stats(); s.Keys != 2 || s.Unkeyed != 1 || s.Evicted != 0 {
			t.Errorf("got %+v, want 2 keys, 1 call without a policy", s)
		}
		time.Sleep(2 * time.Minute)
		if err := call(p, "c", nil); err != nil || k.Stats().Evicted != 1 {
			t.Errorf("when one is free again: got %v, %+v", err, k.Stats())
		}
	})
}

// A permit that outlives its handler keeps its bulkhead.
func TestKeyedKeepsHeldPermits(t *testing.T) {
	k := backstay.NewKeyed(backstay.KeyedConfig{Max: 1}, func(string) *bulkhead.Bulkhead { return bulkhead.New(bulkhead.Config{Limit: 1}) })
	p := backstay.Chain(k)
	_, release, err := backstay.DoHeld(context.Background(), p, func(context.Context) (int, error) { return 1, nil }, nil, backstay.WithKey("a"))
	if err != nil {
		t.Fatal(err)
	}
	_ = call(p, "b", nil)
	if err := call(p, "a", nil); !errors.Is(err, bulkhead.ErrFull) {
		t.Errorf("while the first value is held: got %v, want bulkhead.ErrFull", err)
	}
	release()
	if err := call(p, "a", nil); err != nil {
		t.Errorf("after release: got %v", err)
	}
}

func TestKeyedForgetsIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := backstay.NewKeyed(backstay.KeyedConfig{Idle: time.Minute}, func(string) *bulkhead.Bulkhead { return bulkhead.New(bulkhead.Config{}) })
		p := backstay.Chain(k)
		for i := range 10 {
			_ = call(p, fmt.Sprint("old", i), nil)
		}
		time.Sleep(2 * time.Minute)
		for i := range 10 {
			_ = call(p, fmt.Sprint("new", i), nil)
		}
		if s := k.Stats(); s.Keys != 10 || s.Evicted != 10 {
			t.Errorf("got %+v, want the ten old keys forgotten", s)
		}
	})
}

// No two keys share an instance, and no call of one key runs beside another instance's, under churn.
func TestKeyedUnderChurn(t *testing.T) {
	k := backstay.NewKeyed(backstay.KeyedConfig{Max: 17}, func(key string) *bulkhead.Bulkhead {
		return bulkhead.New(bulkhead.Config{Name: key, Limit: 1})
	})
	p := backstay.Chain(k, backstay.PolicyFunc(func(next backstay.Handler) backstay.Handler { return next }))
	var mu sync.Mutex
	running := map[string]int{}
	var wg sync.WaitGroup
	for g := range 16 {
		wg.Go(func() {
			for i := range 2000 {
				key := fmt.Sprint((g*7 + i) % 32)
				err := backstay.Run(context.Background(), p, func(context.Context) error {
					mu.Lock()
					running[key]++
					n := running[key]
					mu.Unlock()
					runtime.Gosched()
					mu.Lock()
					running[key]--
					mu.Unlock()
					if n > 1 {
						return errors.New("two at once behind a limit of one")
					}
					return nil
				}, backstay.WithKey(key))
				if err != nil && !errors.Is(err, bulkhead.ErrFull) {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if s := k.Stats(); s.Unkeyed != 0 || s.Keys > 17 || s.Evicted == 0 {
		t.Errorf("got %+v, want room for 16 calls at once among 17 keys, and evictions", s)
	}
	for key, b := range k.All() {
		if got := b.Snapshot().InUse; got != 0 {
			t.Errorf("key %s: %d permits taken at the end", key, got)
		}
	}
}

func TestKeyedConfig(t *testing.T) {
	for name, f := range map[string]func(){
		"negative": func() {
			backstay.NewKeyed(backstay.KeyedConfig{Max: -1}, func(string) *bulkhead.Bulkhead { return nil })
		},
		"nil make": func() { backstay.NewKeyed[*bulkhead.Bulkhead](backstay.KeyedConfig{}, nil) },
	} {
		func() {
			defer func() {
				if err, ok := recover().(error); !ok || !strings.Contains(err.Error(), "Keyed") {
					t.Errorf("%s: got %v, want a panic with an error that names it", name, err)
				}
			}()
			f()
		}()
	}
}

// What each rule of Lint finds, and that a right order is left alone.
func TestLint(t *testing.T) {
	r, b, bh := retry.New(retry.Config{}), breaker.New(breaker.Config{}), bulkhead.New(bulkhead.Config{})
	total, attempt := timeout.New(30*time.Second), timeout.New(10*time.Second)
	for _, c := range []struct {
		p    *backstay.Pipeline
		want string
	}{
		{backstay.Chain(total, r, bh, b, attempt), ""},
		{backstay.Chain(timeout.New(time.Second), r, timeout.New(time.Second)), "attempt-timeout"},
		{backstay.Chain(b, r), "breaker-outside-retry"},
		{backstay.Chain(bh, r), "bulkhead-outside-retry"},
		{backstay.Chain(r, r), "nested-retry"},
		{backstay.Chain(r, breaker.New(breaker.Config{Window: 15 * time.Second}), attempt), "breaker-window"},
		{backstay.Chain(timeout.New(11*time.Second), retry.New(retry.Config{Attempts: 10}), attempt), "total-timeout"},
		{backstay.Chain(backstay.NewKeyed(backstay.KeyedConfig{}, func(string) *breaker.Breaker { return breaker.New(breaker.Config{}) }), r), "breaker-outside-retry"},
		{backstay.Chain(hedge.New(hedge.Config{Delay: time.Second}), r), "retry-inside-hedge"},
		{backstay.Chain(r, hedge.New(hedge.Config{Delay: time.Second})), ""},
		{backstay.Chain(hedge.New(hedge.Config{Delay: time.Second, Unsafe: true})), "hedge-unsafe"},
		{nil, ""},
	} {
		var rules []string
		for _, f := range c.p.Lint() {
			rules = append(rules, f.Rule)
		}
		if got := strings.Join(rules, " "); got != c.want {
			t.Errorf("%v: got %q, want %q", c.p, got, c.want)
		}
	}
}

// The slog observer says what happened, and nothing is logged without one.
func TestSlogObserver(t *testing.T) {
	var buf bytes.Buffer
	old := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&buf, &slog.HandlerOptions{Level: slog.LevelDebug})))
	defer slog.SetDefault(old)
	p := backstay.Chain(retry.New(retry.Config{Attempts: 2, Delay: -1}), breaker.New(breaker.Config{Name: "db", Consecutive: 1, Spread: -1}))
	_ = call(p, "k", errBoom)
	if buf.Len() != 0 {
		t.Errorf("logged without an observer: %s", buf.String())
	}
	log := slog.New(slog.NewTextHandler(&buf, &slog.HandlerOptions{Level: slog.LevelDebug}))
	_ = call(p.Observe(backstay.NewSlogObserver(log)), "k", errBoom)
	for _, want := range []string{"level=WARN msg=\"backstay reject\" policy=breaker name=db", "level=DEBUG msg=\"backstay call\"", "key=k"} {
		if !strings.Contains(buf.String(), want) {
			t.Errorf("%q is missing in\n%s", want, buf.String())
		}
	}
	backstay.NewSlogObserver(nil).Observe(context.Background(), backstay.Event{})
}

package bulkhead_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/breaker"
	"github.com/backstay-go/backstay/bulkhead"
	"github.com/backstay-go/backstay/retry"
)

var errBoom = errors.New("boom")

// take runs a call that holds its permit for d, in a goroutine, and returns when it has its permit or waits.
func take(p *backstay.Pipeline, d time.Duration, then func(error)) {
	go func() {
		err := backstay.Run(context.Background(), p, func(context.Context) error { time.Sleep(d); return nil })
		if then != nil {
			then(err)
		}
	}()
	synctest.Wait()
}

// T50: a permit comes back however the call ends.
func TestPermitComesBack(t *testing.T) {
	b := bulkhead.New(bulkhead.Config{Limit: 1})
	p := backstay.Chain(b)
	endings := map[string]func(){
		"error": func() { _ = backstay.Run(context.Background(), p, func(context.Context) error { return errBoom }) },
		"panic": func() { _ = backstay.Run(context.Background(), p, func(context.Context) error { panic(errBoom) }) },
		"goexit": func() {
			_ = backstay.Run(context.Background(), p, func(context.Context) error { runtime.Goexit(); return nil })
		},
	}
	for name, end := range endings {
		done := make(chan struct{})
		go func() {
			defer close(done)
			defer func() { _ = recover() }()
			end()
		}()
		<-done
		if got := b.Snapshot().InUse; got != 0 {
			t.Errorf("%s: %d permits taken afterwards", name, got)
		}
	}
}

// T52: first in, first out, and a newcomer does not overtake.
func TestFIFO(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bulkhead.New(bulkhead.Config{Limit: 1, Queue: 10, MaxWait: -1})
		p := backstay.Chain(b)
		var mu sync.Mutex
		var served []int
		serve := func(i int) func(error) {
			return func(error) { mu.Lock(); defer mu.Unlock(); served = append(served, i) }
		}
		take(p, time.Second, nil)
		for i := range 5 {
			take(p, time.Second, serve(i))
		}
		// A newcomer at each moment a permit comes back still goes last.
		time.Sleep(time.Second)
		take(p, time.Second, serve(5))
		time.Sleep(time.Minute)
		synctest.Wait()
		if got, want := fmt.Sprint(served), "[0 1 2 3 4 5]"; got != want {
			t.Errorf("served: got %s, want %s", got, want)
		}
	})
}

// T53: how many may wait and for how long are two bounds.
func TestQueueAndWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bulkhead.New(bulkhead.Config{Name: "db", Limit: 1, Queue: 2})
		p := backstay.Chain(b)
		start := time.Now()
		var mu sync.Mutex
		after := map[string]time.Duration{}
		fail := func(name string) func(error) {
			return func(err error) {
				if !errors.Is(err, bulkhead.ErrFull) || !errors.Is(err, backstay.ErrRejected) {
					t.Errorf("%s: got %v, want ErrFull", name, err)
				}
				mu.Lock()
				defer mu.Unlock()
				after[name] = time.Since(start)
			}
		}
		take(p, time.Hour, nil)
		take(p, 0, fail("first in the queue"))
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
			defer cancel()
			err := backstay.Run(ctx, p, func(context.Context) error { return nil })
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("a wait that its deadline ended: got %v", err)
			}
			fail("deadline")(err)
		}()
		synctest.Wait()
		take(p, 0, fail("third"))
		if s := b.Snapshot(); s != (bulkhead.Snapshot{InUse: 1, Queued: 2, Limit: 1}) {
			t.Errorf("snapshot: got %+v", s)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		want := map[string]time.Duration{"first in the queue": time.Second, "deadline": 300 * time.Millisecond, "third": 0}
		if fmt.Sprint(after) != fmt.Sprint(want) {
			t.Errorf("refused after: got %v, want %v", after, want)
		}
		if s := b.Snapshot(); s.Queued != 0 {
			t.Errorf("queue at the end: got %d, want 0", s.Queued)
		}
		time.Sleep(time.Hour)
	})
}

// T54: a context that is over takes no permit, even a free one.
func TestDeadOnArrival(t *testing.T) {
	b := bulkhead.New(bulkhead.Config{Limit: 1})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	seen := 0
	spy := backstay.PolicyFunc(func(next backstay.Handler) backstay.Handler {
		return func(ctx context.Context, call *backstay.Call) backstay.Outcome { seen++; return next(ctx, call) }
	})
	err := backstay.Run(ctx, backstay.Chain(b, spy), func(context.Context) error { return nil })
	if !errors.Is(err, context.Canceled) || seen != 0 {
		t.Errorf("got %v, and the inside was called %d times", err, seen)
	}
}

// T55: for a value that outlives its call the permit does too, unless the config says otherwise.
func TestHeldForTheValue(t *testing.T) {
	for _, early := range []bool{false, true} {
		b := bulkhead.New(bulkhead.Config{Limit: 1, UntilReturn: early})
		_, release, err := backstay.DoHeld(context.Background(), backstay.Chain(b), func(context.Context) (int, error) { return 1, nil }, nil)
		want := 1
		if early {
			want = 0
		}
		if got := b.Snapshot().InUse; err != nil || got != want {
			t.Errorf("until return %v: got %d permits in use, want %d (%v)", early, got, want, err)
		}
		release()
		release()
		if got := b.Snapshot().InUse; got != 0 {
			t.Errorf("after release: got %d", got)
		}
	}
}

// T56: inside a retry the permit is free while the retry waits.
func TestFreeDuringBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bulkhead.New(bulkhead.Config{Limit: 1})
		p := backstay.Chain(retry.New(retry.Config{Attempts: 2, Delay: time.Second, Jitter: retry.None}), b)
		go func() { _ = backstay.Run(context.Background(), p, func(context.Context) error { return errBoom }) }()
		time.Sleep(time.Second / 2)
		if got := b.Snapshot().InUse; got != 0 {
			t.Errorf("permits while the retry waits: got %d, want 0", got)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
	})
}

// T20: a refusal here is nothing to a breaker around it.
func TestBreakerAround(t *testing.T) {
	b := bulkhead.New(bulkhead.Config{Limit: 1})
	if err := b.Acquire(context.Background()); err != nil {
		t.Fatal(err)
	}
	around := breaker.New(breaker.Config{Consecutive: 1, Spread: -1})
	err := backstay.Run(context.Background(), backstay.Chain(around, b), func(context.Context) error { return nil })
	if s := around.Snapshot(); !errors.Is(err, bulkhead.ErrFull) || s.Failures != 0 || s.State != breaker.Closed {
		t.Errorf("got %v, breaker %+v; want ErrFull and nothing counted", err, s)
	}
	b.Release()
}

// A waiter that gives up in the moment in which it is granted loses no permit.
func TestGiveUpAsGranted(t *testing.T) {
	b := bulkhead.New(bulkhead.Config{Limit: 2, Queue: 100, MaxWait: -1})
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for range 500 {
				ctx, cancel := context.WithCancel(context.Background())
				go cancel()
				if b.Acquire(ctx) == nil {
					runtime.Gosched()
					b.Release()
				}
			}
		})
	}
	wg.Wait()
	if s := b.Snapshot(); s.InUse != 0 || s.Queued != 0 {
		t.Errorf("at the end: got %+v, want nothing in use and nobody waiting", s)
	}
}

// The same with one waiter whose context ends just before the permit comes: it wakes for its context, and finds that it has been granted.
func TestGrantedWhileGivingUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for range 200 {
			b := bulkhead.New(bulkhead.Config{Limit: 1, Queue: 1, MaxWait: -1})
			if err := b.Acquire(t.Context()); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			go func() {
				if b.Acquire(ctx) == nil {
					b.Release()
				}
			}()
			synctest.Wait() // it waits in the queue
			cancel()
			b.Release()
			synctest.Wait()
			if s := b.Snapshot(); s.InUse != 0 || s.Queued != 0 {
				t.Fatalf("got %+v after a waiter gave up as it was granted, want nothing in use and nobody waiting", s)
			}
		}
	})
}

// Never more than the limit run, whoever waits and gives up.
func TestLimitHolds(t *testing.T) {
	b := bulkhead.New(bulkhead.Config{Limit: 3, Queue: 1000, MaxWait: -1})
	p := backstay.Chain(b)
	var mu sync.Mutex
	running, most := 0, 0
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			for range 20 {
				_ = backstay.Run(context.Background(), p, func(context.Context) error {
					mu.Lock()
					running++
					most = max(most, running)
					mu.Unlock()
					runtime.Gosched()
					mu.Lock()
					running--
					mu.Unlock()
					return nil
				})
			}
		})
	}
	wg.Wait()
	if most > 3 {
		t.Errorf("ran at once: got %d, want at most 3", most)
	}
}

// A live bulkhead takes a new limit: a higher one admits who waits, a lower one lets run who runs.
func TestApply(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bulkhead.New(bulkhead.Config{Limit: 1, Queue: 10, MaxWait: -1})
		p := backstay.Chain(b)
		for range 4 {
			take(p, time.Minute, nil)
		}
		check := func(when string, inUse, queued int) {
			t.Helper()
			synctest.Wait()
			if s := b.Snapshot(); s.InUse != inUse || s.Queued != queued {
				t.Errorf("%s: got %+v, want %d in use, %d waiting", when, s, inUse, queued)
			}
		}
		check("at first", 1, 3)
		if err := b.Apply(bulkhead.Config{Limit: 3, Queue: 10, MaxWait: -1}); err != nil {
			t.Fatal(err)
		}
		check("raised to 3", 3, 1)
		if err := b.Apply(bulkhead.Config{Limit: 1, Queue: 10, MaxWait: -1}); err != nil {
			t.Fatal(err)
		}
		check("lowered to 1", 3, 1)
		time.Sleep(time.Minute)
		synctest.Wait()
		check("one minute later", 1, 0) // two of the three ended; the last waiter got the one permit
		if err := b.Apply(bulkhead.Config{Queue: -1}); err == nil {
			t.Error("a bad config was applied")
		}
		time.Sleep(time.Hour)
	})
}

func TestEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var got []string
		b := bulkhead.New(bulkhead.Config{Limit: 1, Queue: 1, Observer: backstay.ObserverFunc(func(_ context.Context, e backstay.Event) {
			mu.Lock()
			defer mu.Unlock()
			got = append(got, fmt.Sprint(e.Kind, " ", e.Elapsed))
		})})
		p := backstay.Chain(b)
		take(p, time.Second/2, nil)
		take(p, time.Second/2, nil)
		take(p, 0, nil)
		time.Sleep(time.Minute)
		synctest.Wait()
		if want := "[reject 0s wait 500ms]"; fmt.Sprint(got) != want {
			t.Errorf("events: got %v, want %s", got, want)
		}
	})
}

func TestConfig(t *testing.T) {
	bad := bulkhead.Config{Limit: -1, Queue: -1}
	for _, c := range []bulkhead.Config{bad, {Limit: -1, Queue: 1}} {
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), "Queue") {
			t.Errorf("Validate(%+v): got %v, want Queue named", c, err)
		}
	}
	func() {
		defer func() {
			if recover() == nil {
				t.Error("New took a bad config")
			}
		}()
		bulkhead.New(bad)
	}()
	text, err := json.Marshal(bulkhead.Config{Limit: 5, Queue: 2, MaxWait: 250 * time.Millisecond})
	if want := `{"limit":5,"queue":2,"maxWait":"250ms"}`; err != nil || string(text) != want {
		t.Errorf("JSON: got %s, %v; want %s", text, err, want)
	}
	var c bulkhead.Config
	if err := json.Unmarshal([]byte(`{"limits":1}`), &c); err == nil {
		t.Error("an unknown field was taken")
	}
	unlimited := backstay.Chain(bulkhead.New(bulkhead.Config{Limit: -1}))
	if err := backstay.Run(context.Background(), unlimited, func(context.Context) error { return nil }); err != nil {
		t.Errorf("without a limit: got %v", err)
	}
}

func TestReleaseWithoutAcquire(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("a Release too many went unnoticed")
		}
	}()
	bulkhead.New(bulkhead.Config{}).Release()
}

func ExampleNew() {
	b := bulkhead.New(bulkhead.Config{Name: "reports", Limit: 1})
	p := backstay.Chain(b)
	_ = backstay.Run(context.Background(), p, func(ctx context.Context) error {
		// While one report is made, another is refused.
		fmt.Println(backstay.Run(ctx, p, func(context.Context) error { return nil }))
		return nil
	})
	// Output: bulkhead "reports": full
}

package breaker_test

import (
	"context"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/breaker"
)

// Reading moves nothing: what is scraped every second must not send probes or end rounds.
func TestReadsArePure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &log{}
		c := plain(1)
		c.Observer = l
		b := breaker.New(c)
		read := func() {
			for range 3 {
				b.State()
				b.Snapshot()
				b.Keep()
				b.Describe()
			}
		}
		b.Trip()
		for range 100 {
			time.Sleep(time.Minute)
			read()
		}
		wantState(t, b, breaker.Due)
		if got := b.Snapshot(); got.Probes != 0 || got.RetryAfter != 0 || got.For != 100*time.Minute {
			t.Fatalf("got %+v, want nothing in flight and 100m", got)
		}
		acquire(t, b)
		time.Sleep(time.Hour)
		read()
		if got := b.Snapshot(); got.State != breaker.HalfOpen || got.Probes != 1 || got.Lost != 0 {
			t.Fatalf("got %+v, want half-open with the probe still in its place", got)
		}
		if got := len(l.all); got != 2 {
			t.Fatalf("got %d events, want those of Trip and of Acquire", got)
		}
	})
}

func TestSnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := plain(5)
		c.SlowCall, c.Ramp = time.Second, 4*time.Second
		b := breaker.New(c)
		times(b, 3, nil)
		times(b, 1, errDown)
		_ = last(b, time.Second, errDown)
		want := breaker.Snapshot{Name: "test", For: time.Second, Share: 1, Calls: 5, Failures: 2, Slow: 1, Consecutive: 2}
		if got := b.Snapshot(); got != want {
			t.Errorf("closed: got %+v, want %+v", got, want)
		}
		b.Trip()
		refused(t, b)
		want = breaker.Snapshot{Name: "test", State: breaker.Open, RetryAfter: time.Second, Calls: 5, Failures: 2, Slow: 1, Consecutive: 2, Opens: 1, Rejected: 1}
		if got := b.Snapshot(); got != want {
			t.Errorf("open: got %+v, want %+v", got, want)
		}
		time.Sleep(time.Second)
		p := acquire(t, b)
		want = breaker.Snapshot{Name: "test", State: breaker.HalfOpen, Calls: 5, Failures: 2, Slow: 1, Consecutive: 2, Opens: 1, Probes: 1, Held: 1, Rejected: 1}
		if got := b.Snapshot(); got != want {
			t.Errorf("half-open: got %+v, want %+v", got, want)
		}
		p.DoneErr(context.Background(), nil)
		time.Sleep(time.Second)
		want = breaker.Snapshot{Name: "test", For: time.Second, Share: 0.25, Rejected: 1}
		if got := b.Snapshot(); got != want {
			t.Errorf("ramping up: got %+v, want %+v", got, want)
		}
	})
}

func TestKeep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(plain(2))
		want := func(when string, busy bool, left time.Duration) {
			t.Helper()
			if gotBusy, gotLeft := b.Keep(); gotBusy != busy || gotLeft != left {
				t.Errorf("%s: got %v and %v, want %v and %v", when, gotBusy, gotLeft, busy, left)
			}
		}
		want("new", false, 0)
		times(b, 10, nil)
		want("only successes", false, 0)
		times(b, 1, errDown)
		want("a failure in the window", false, 1)
		time.Sleep(30 * time.Second)
		want("the failure has left the window", false, 0)
		p := acquire(t, b)
		want("a permit is held", true, 0)
		p.Cancel(context.Background())
		want("the permit is given back", false, 0)
		b.Trip()
		want("open", false, time.Second+time.Millisecond)
		time.Sleep(time.Second)
		want("due", false, time.Millisecond)
		p = acquire(t, b)
		want("half-open, a probe in flight", true, time.Millisecond)
		p.Cancel(context.Background())
		want("half-open", false, time.Millisecond)
		b.SetMode(breaker.ForcedClosed)
		want("a mode set by hand", false, math.MaxInt64)
	})
}

func TestKeyedBreakers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		k := backstay.NewKeyed(backstay.KeyedConfig{Max: 100}, func(string) *breaker.Breaker { return breaker.New(plain(1)) })
		p := backstay.Chain(k)
		call := func(key string, err error) error {
			return backstay.Run(ctx, p, func(context.Context) error { return err }, backstay.WithKey(key))
		}
		key := func(i int) string {
			return string(rune('a'+i/1000)) + string(rune('0'+i/100%10)) + string(rune('0'+i/10%10)) + string(rune('0'+i%10))
		}
		_ = call("bad", errDown)
		for i := range 10_000 {
			if err := call(key(i), nil); err != nil {
				t.Fatalf("key %d: got error %v: strangers share a breaker", i, err)
			}
			time.Sleep(time.Microsecond) // so that "bad" is the one used longest ago
		}
		if got := k.Stats(); got.Keys > 100 || got.Unkeyed != 0 {
			t.Fatalf("got %d keys and %d calls without a breaker, want at most 100 and 0", got.Keys, got.Unkeyed)
		}
		if err := call("bad", nil); err == nil {
			t.Fatal("the open breaker has been forgotten for closed ones")
		}

		// Now all are open: those that are due go first, then the one nearest its end.
		for i := range 99 {
			_ = call(key(i), nil)
		}
		for i := range 99 {
			_ = call(key(i), errDown)
		}
		time.Sleep(time.Second)
		_ = call("bad", errDown) // a probe: open for 2s more
		_ = call("new", errDown) // takes the place of one that is due
		if _, ok := k.Lookup("bad"); !ok {
			t.Fatal("an open breaker has been forgotten for ones that are due")
		}
		if got := k.Stats().Keys; got > 100 {
			t.Fatalf("got %d keys, want at most 100", got)
		}
	})
}

func TestDescribe(t *testing.T) {
	for _, c := range []struct {
		config breaker.Config
		want   string
		window time.Duration
	}{
		{breaker.Config{}, "breaker (50% of ≥ 20 in 30s or 10 in a row; open 1s to 5s)", 30 * time.Second},
		{
			breaker.Config{Name: "inventory", Count: 50, Consecutive: -1, SlowRate: 0.3, Mode: breaker.Shadow},
			`breaker "inventory" (shadow; 50% of ≥ 20 in the last 50 or 30% slower than 5s; open 1s to 5s)`, 0,
		},
	} {
		d := breaker.New(c.config).Describe()
		if got := d.String(); got != c.want || d.Window != c.window || d.Kind != "breaker" {
			t.Errorf("got %q with window %v, want %q with %v", got, d.Window, c.want, c.window)
		}
	}
}

func TestNames(t *testing.T) {
	for s, want := range map[breaker.State]string{
		breaker.Closed: "closed", breaker.Open: "open", breaker.HalfOpen: "half-open", breaker.Due: "due", 9: "unknown(9)",
	} {
		if text, err := s.MarshalText(); string(text) != want || err != nil {
			t.Errorf("got %q, want %q", text, want)
		}
	}
	for _, m := range []breaker.Mode{breaker.Auto, breaker.ForcedOpen, breaker.ForcedClosed, breaker.Disabled, breaker.Shadow} {
		text, _ := m.MarshalText()
		var got breaker.Mode
		if err := got.UnmarshalText(text); err != nil || got != m {
			t.Errorf("%s: got %v and error %v", text, got, err)
		}
	}
}

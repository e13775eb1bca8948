package breaker_test

import (
	"context"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backstay-go/backstay/breaker"
)

func TestOpenPeriodGrowsAndResets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := plain(1)
		c.OpenFor, c.MaxOpenFor = time.Second, 8*time.Second
		b := breaker.New(c)
		times(b, 1, errDown)
		for i, want := range []time.Duration{1, 2, 4, 8, 8} {
			want *= time.Second
			time.Sleep(want - 1)
			if r := refused(t, b); r == nil || r.RetryAfter != 1 {
				t.Fatalf("period %d: got %v a nanosecond before its end, want a refusal", i+1, r)
			}
			wantState(t, b, breaker.Open)
			time.Sleep(1)
			wantState(t, b, breaker.Due)
			times(b, 1, errDown)
			wantState(t, b, breaker.Open)
		}
		time.Sleep(8 * time.Second)
		times(b, 1, nil)
		wantState(t, b, breaker.Closed)
		times(b, 1, errDown)
		if got := b.Snapshot().RetryAfter; got != time.Second {
			t.Fatalf("after it has closed: got a period of %v, want 1s", got)
		}
	})
}

func TestJitterShortensByUpToHalf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := plain(1)
		c.NoJitter, c.OpenFor = false, time.Second
		least, most := time.Hour, time.Duration(0)
		for range 1000 {
			b := breaker.New(c)
			b.Trip()
			d := b.Snapshot().RetryAfter
			least, most = min(least, d), max(most, d)
		}
		if least < 500*time.Millisecond || most > time.Second {
			t.Errorf("got periods from %v to %v, want them in 500ms to 1s", least, most)
		}
		if least > 550*time.Millisecond || most < 950*time.Millisecond {
			t.Errorf("got periods from %v to %v, want them spread over 500ms to 1s", least, most)
		}
	})
}

func TestDefaultPeriodIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(breaker.Config{})
		b.Trip()
		for range 100 {
			d := b.Snapshot().RetryAfter
			if d < 500*time.Millisecond || d > 5*time.Second {
				t.Fatalf("got a period of %v, want 500ms to 5s", d)
			}
			time.Sleep(d)
			times(b, 1, errDown)
		}
	})
}

// Whatever the function says, the breaker is not open for ever.
func TestOpenFunc(t *testing.T) {
	for _, c := range []struct {
		name string
		f    func(opens int) time.Duration
		want time.Duration
	}{
		{"as it says", func(int) time.Duration { return 3 * time.Second }, 3 * time.Second},
		{"stop", func(int) time.Duration { return -1 }, time.Minute},
		{"very negative", func(int) time.Duration { return math.MinInt64 }, time.Minute},
		{"zero", func(int) time.Duration { return 0 }, time.Millisecond},
		{"huge", func(int) time.Duration { return math.MaxInt64 }, time.Minute},
		{"panic", func(int) time.Duration { panic("boom") }, time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := &log{}
				config := plain(1)
				config.OpenFunc, config.MaxOpenFor, config.Observer = c.f, time.Minute, l
				b := breaker.New(config)
				times(b, 1, errDown)
				if got := b.Snapshot().RetryAfter; got != c.want {
					t.Fatalf("got a period of %v, want %v", got, c.want)
				}
				if got := l.all[0].Wait; got != c.want {
					t.Errorf("the event says %v, want %v", got, c.want)
				}
				time.Sleep(c.want)
				times(b, 1, nil)
				wantState(t, b, breaker.Closed)
			})
		})
	}
}

func TestOpenFuncIsToldHowOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []int
		config := plain(1)
		var b *breaker.Breaker
		config.OpenFunc = func(opens int) time.Duration {
			got = append(got, opens)
			wantState(t, b, breaker.Open)
			b.Snapshot() // no lock is held
			return time.Second
		}
		b = breaker.New(config)
		for _, err := range []error{errDown, errDown, errDown, nil, errDown} {
			times(b, 1, err)
			time.Sleep(time.Second)
		}
		want := []int{1, 2, 3, 1}
		if len(got) != len(want) {
			t.Fatalf("got calls with %v, want %v", got, want)
		}
		for i := range want {
			if got[i] != want[i] {
				t.Fatalf("got calls with %v, want %v", got, want)
			}
		}
	})
}

func TestRefusalSaysHowLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := plain(1)
		c.Name, c.ProbeTimeout, c.OpenFor = "inventory", 900*time.Millisecond, time.Second
		b := breaker.New(c)
		times(b, 1, errDown)
		time.Sleep(300 * time.Millisecond)
		r := refused(t, b)
		if r == nil || r.RetryAfter != 700*time.Millisecond || r.Name != "inventory" || r.Policy != "breaker" {
			t.Fatalf("got %+v, want 700ms and the breaker's name", r)
		}
		if got, want := r.Error(), `breaker "inventory": open, retry in 700ms`; got != want {
			t.Errorf("got text %q, want %q", got, want)
		}

		time.Sleep(700 * time.Millisecond)
		probe := acquire(t, b)
		time.Sleep(500 * time.Millisecond)
		if r = refused(t, b); r == nil || r.RetryAfter != 400*time.Millisecond || r.Reason != "half-open" {
			t.Fatalf("half-open: got %+v, want what is left of the lease, 400ms", r)
		}
		probe.Cancel(context.Background())

		b.SetMode(breaker.ForcedOpen)
		if r = refused(t, b); r == nil || r.RetryAfter != 0 || !strings.Contains(r.Error(), "forced open") {
			t.Fatalf("forced open: got %+v, want no time", r)
		}
	})
}

// The lease is a bound, and usually a far one: a round is mostly decided in the time of a call.
func TestRefusalOfALongLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := due(plain(1))
		acquire(t, b)
		if r := refused(t, b); r == nil || r.RetryAfter != time.Second {
			t.Fatalf("got %+v, want OpenFor, 1s", r)
		}
	})
}

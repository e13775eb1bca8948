package retry_test

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/backstay-go/backstay/retry"
)

// first returns the first n waits of a call.
func first(r *retry.Retry, n int) (all []time.Duration) {
	for d := range r.Delays() {
		if len(all) == n {
			break
		}
		all = append(all, d)
	}
	return all
}

func TestSchedules(t *testing.T) {
	for _, tc := range []struct {
		c    retry.Config
		want string
	}{
		{retry.Config{}, "[100ms 200ms 400ms 800ms 1.6s 3.2s 5s 5s]"},
		{retry.Config{Delay: 10 * time.Millisecond, Factor: 10, MaxDelay: 2 * time.Second}, "[10ms 100ms 1s 2s 2s 2s 2s 2s]"},
		{retry.Config{Factor: 1}, "[100ms 100ms 100ms 100ms 100ms 100ms 100ms 100ms]"},
		{retry.Config{Delay: 7 * time.Second}, "[7s 7s 7s 7s 7s 7s 7s 7s]"}, // the default bound makes room
		{retry.Config{Delay: -1}, "[0s 0s 0s 0s 0s 0s 0s 0s]"},
		{retry.Config{Schedule: retry.Constant, Delay: time.Second}, "[1s 1s 1s 1s 1s 1s 1s 1s]"},
		{retry.Config{Schedule: retry.Linear, Delay: time.Second}, "[1s 2s 3s 4s 5s 5s 5s 5s]"},
		{retry.Config{Schedule: retry.Linear, Delay: 3 * time.Second}, "[3s 5s 5s 5s 5s 5s 5s 5s]"},
		{retry.Config{Schedule: retry.Linear, Delay: -1}, "[0s 0s 0s 0s 0s 0s 0s 0s]"},
	} {
		tc.c.Jitter = retry.None
		if got := fmt.Sprint(first(retry.New(tc.c), 8)); got != tc.want {
			t.Errorf("%+v: got %s, want %s", tc.c, got, tc.want)
		}
	}
}

func TestJitterBounds(t *testing.T) {
	for _, tc := range []struct {
		jitter retry.Jitter
		u      float64
		want   string
	}{
		{retry.Full, 0, "[0s 0s 0s 0s]"},
		{retry.Full, 0.5, "[500ms 1s 1.5s 1.5s]"},
		{retry.Full, 1, "[1s 2s 3s 3s]"},
		{retry.Equal, 0, "[500ms 1s 1.5s 1.5s]"},
		{retry.Equal, 0.5, "[750ms 1.5s 2.25s 2.25s]"},
		{retry.Equal, 1, "[1s 2s 3s 3s]"},
		{retry.Decorrelated, 0, "[1s 1s 1s 1s]"},
		{retry.Decorrelated, 0.5, "[2s 3s 3s 3s]"},
		{retry.Decorrelated, 1, "[3s 3s 3s 3s]"},
		{retry.Full, math.NaN(), "[0s 0s 0s 0s]"}, // a wrong Rand breaks no bound
		{retry.Full, -7, "[0s 0s 0s 0s]"},
		{retry.Full, 7, "[1s 2s 3s 3s]"},
		{retry.Decorrelated, math.Inf(1), "[3s 3s 3s 3s]"},
	} {
		r := retry.New(retry.Config{Delay: time.Second, MaxDelay: 3 * time.Second, Jitter: tc.jitter, Rand: func() float64 { return tc.u }})
		if got := fmt.Sprint(first(r, 4)); got != tc.want {
			t.Errorf("%s at %v: got %s, want %s", tc.jitter, tc.u, got, tc.want)
		}
	}
}

// T29: the bound holds after jitter, in a million draws of each kind.
func TestCapHoldsAfterJitter(t *testing.T) {
	const most = 2 * time.Second
	for _, c := range []retry.Config{
		{Jitter: retry.Full}, {Jitter: retry.Equal}, {Jitter: retry.Decorrelated}, {Jitter: retry.Full, Schedule: retry.Linear},
		{Backoff: func() retry.BackOff { // ± 50 %, applied after its own bound
			return backoff.NewExponentialBackOff(backoff.WithMaxInterval(most), backoff.WithMaxElapsedTime(0))
		}},
	} {
		c.MaxDelay = most
		n, sum, low, high := 0, time.Duration(0), most, time.Duration(0)
		for d := range retry.New(c).Delays() {
			if d < 0 || d > most {
				t.Fatalf("%s: got a wait of %v, want 0 to %v", c.Jitter, d, most)
			}
			if n++; n > 100 { // at the bound
				low, high, sum = min(low, d), max(high, d), sum+d
			}
			if n == 1_000_000 {
				break
			}
		}
		mean := sum / time.Duration(n-100)
		t.Logf("%s: %d waits from %v to %v, mean %v", c.Jitter, n, low, high, mean)
		wantLow, wantMean := 20*time.Millisecond, most/2
		switch {
		case c.Backoff != nil:
			continue
		case c.Jitter == retry.Equal:
			wantLow, wantMean = most/2+10*time.Millisecond, most*3/4
		case c.Jitter == retry.Decorrelated:
			continue
		}
		if low > wantLow || high < most-10*time.Millisecond || (mean-wantMean).Abs() > most/100 {
			t.Errorf("%s: got %v to %v, mean %v; want the whole range, mean %v", c.Jitter, low, high, mean, wantMean)
		}
	}
}

// T30: waits without a bound neither overflow nor shrink, however many there are.
func TestOverflow(t *testing.T) {
	for _, c := range []retry.Config{
		{Delay: time.Second, Factor: 10},
		{Delay: time.Second, Factor: 1.0000001},
		{Delay: 24 * time.Hour, Factor: 1000},
		{Delay: 24 * time.Hour, Schedule: retry.Linear},
	} {
		c.Jitter, c.MaxDelay = retry.None, -1
		last := time.Duration(0)
		for i, d := range first(retry.New(c), 200_000) {
			if d < last || d <= 0 {
				t.Fatalf("%+v: wait %d is %v after %v", c, i, d, last)
			}
			last = d
		}
	}
	for _, jitter := range []retry.Jitter{retry.Full, retry.Equal, retry.Decorrelated} {
		for _, d := range first(retry.New(retry.Config{Delay: time.Second, Factor: 10, MaxDelay: -1, Jitter: jitter}), 1000) {
			if d < 0 {
				t.Fatalf("%s: got a wait of %v", jitter, d)
			}
		}
	}
}

type backOffs []time.Duration

func (b *backOffs) NextBackOff() time.Duration {
	d := (*b)[0]
	*b = (*b)[1:]
	return d
}

func TestOwnBackoff(t *testing.T) {
	made := 0
	r := retry.New(retry.Config{MaxDelay: 3 * time.Second, Backoff: func() retry.BackOff {
		made++
		return &backOffs{time.Second, -2, math.MinInt64, time.Hour, 2 * time.Second, backoff.Stop}
	}})
	const want = "[1s 0s 0s 3s 2s]"
	for range 2 {
		if got := fmt.Sprint(first(r, 100)); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	if made != 2 {
		t.Errorf("got %d schedules for 2 calls, want 2", made)
	}
	r = retry.New(retry.Config{Backoff: func() retry.BackOff { return nil }, Jitter: retry.None})
	if got := fmt.Sprint(first(r, 2)); got != "[100ms 200ms]" {
		t.Errorf("no Backoff made: got %s, want the schedule of the Config", got)
	}
}

// Any valid settings keep the bounds; without jitter waits never shrink.
func FuzzSchedule(f *testing.F) {
	f.Add(int64(time.Second), 10.0, int64(-1), uint8(0), uint8(0), 0.5)
	f.Add(int64(1), 1.0, int64(1), uint8(1), uint8(1), 1.0)
	f.Add(int64(24*time.Hour), 1000.0, int64(math.MaxInt64), uint8(2), uint8(3), math.NaN())
	f.Fuzz(func(t *testing.T, delay int64, factor float64, most int64, schedule, jitter uint8, u float64) {
		c := retry.Config{
			Delay: time.Duration(delay), Factor: factor, MaxDelay: time.Duration(most), Rand: func() float64 { return u },
			Schedule: []retry.Schedule{"", retry.Exponential, retry.Constant, retry.Linear}[schedule%4],
			Jitter:   []retry.Jitter{"", retry.Full, retry.Equal, retry.Decorrelated, retry.None}[jitter%5],
		}
		if c.Validate() != nil {
			t.Skip()
		}
		bound := c.MaxDelay
		switch {
		case bound == 0:
			bound = max(c.Delay, 5*time.Second)
		case bound < 0:
			bound = math.MaxInt64
		}
		last := time.Duration(0)
		for i, d := range first(retry.New(c), 200) {
			if d < 0 || d > bound {
				t.Fatalf("%+v: wait %d is %v, want 0 to %v", c, i, d, bound)
			}
			if c.Jitter == retry.None && d < last {
				t.Fatalf("%+v: wait %d is %v after %v", c, i, d, last)
			}
			last = d
		}
	})
}

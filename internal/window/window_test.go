package window_test

import (
	"testing"
	"time"

	"github.com/backstay-go/backstay/internal/window"
)

type ending struct {
	at           time.Duration
	failed, slow bool
}

func count(all []ending) (c window.Counts) {
	for _, e := range all {
		c.Total++
		if e.failed {
			c.Failures++
		}
		if e.slow {
			c.Slow++
		}
	}
	return c
}

func TestRates(t *testing.T) {
	c := window.Counts{Total: 8, Failures: 2, Slow: 4}
	if got := c.FailureRate(); got != 0.25 {
		t.Errorf("failure rate: got %v, want 0.25", got)
	}
	if got := c.SlowRate(); got != 0.5 {
		t.Errorf("slow rate: got %v, want 0.5", got)
	}
	if got := (window.Counts{}).FailureRate(); got != 0 {
		t.Errorf("failure rate of nothing: got %v, want 0", got)
	}
}

func TestTimeForgetsWithinTheLastTenth(t *testing.T) {
	w := window.NewTime(10 * time.Second)
	w.Add(500*time.Millisecond, true, true)
	if got, want := w.Counts(9999*time.Millisecond), (window.Counts{Total: 1, Failures: 1, Slow: 1}); got != want {
		t.Errorf("after 9.5s: got %v, want %v", got, want)
	}
	if got, want := w.Counts(10*time.Second), (window.Counts{}); got != want {
		t.Errorf("when the window has passed: got %v, want %v", got, want)
	}
}

func TestTimeCountsIsAPureRead(t *testing.T) {
	w := window.NewTime(10 * time.Second)
	w.Add(0, true, false)
	for _, later := range []time.Duration{11 * time.Second, time.Hour, 1<<63 - 1} {
		w.Counts(later)
	}
	if got, want := w.Counts(time.Second), (window.Counts{Total: 1, Failures: 1}); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestTimeTakesAnEndingFromThePast(t *testing.T) {
	w := window.NewTime(10 * time.Second)
	w.Add(time.Minute, false, false)
	if got, want := w.Add(-time.Hour, true, false), (window.Counts{Total: 2, Failures: 1}); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestReset(t *testing.T) {
	for name, w := range map[string]interface {
		Add(time.Duration, bool, bool) window.Counts
		Counts(time.Duration) window.Counts
		Reset()
	}{"time": window.NewTime(time.Second), "last": window.NewLast(3)} {
		for range 5 {
			w.Add(0, true, true)
		}
		w.Reset()
		if got := w.Counts(0); got != (window.Counts{}) {
			t.Errorf("%s: got %v after Reset, want nothing", name, got)
		}
		if got, want := w.Add(0, false, true), (window.Counts{Total: 1, Slow: 1}); got != want {
			t.Errorf("%s: got %v for the first ending after Reset, want %v", name, got, want)
		}
	}
}

// FuzzTime compares the ring with a list of endings. Each two bytes are an ending: the first says how, the second how long
// after the one before it.
func FuzzTime(f *testing.F) {
	f.Add(uint16(100), []byte{1, 0, 2, 30, 3, 90, 0, 255, 1, 9})
	f.Add(uint16(1), []byte{1, 1, 1, 200, 3, 3})
	f.Fuzz(func(t *testing.T, length uint16, script []byte) {
		width := max(time.Duration(length)/window.Slots, 1)
		w := window.NewTime(time.Duration(length))
		var all []ending
		var now time.Duration
		for i := 0; i+1 < len(script); i += 2 {
			now += time.Duration(script[i+1])
			want := count(inside(all, now, width))
			if got := w.Counts(now); got != want {
				t.Fatalf("counts at %d: got %v, want %v", now, got, want)
			}
			e := ending{now, script[i]&1 != 0, script[i]&2 != 0}
			all = append(all, e)
			if got, want := w.Add(now, e.failed, e.slow), count(inside(all, now, width)); got != want {
				t.Fatalf("sums after %v: got %v, want %v", e, got, want)
			}
		}
	})
}

// inside returns those of all whose slot is not yet forgotten at now.
func inside(all []ending, now, width time.Duration) (in []ending) {
	for _, e := range all {
		if now/width-e.at/width < window.Slots {
			in = append(in, e)
		}
	}
	return in
}

// FuzzLast compares the ring with a list of endings, one for each byte.
func FuzzLast(f *testing.F) {
	f.Add(uint8(3), []byte{1, 2, 3, 0, 1, 1, 0})
	f.Add(uint8(33), make([]byte, 70))
	f.Fuzz(func(t *testing.T, n uint8, script []byte) {
		w := window.NewLast(int(n))
		var all []ending
		for _, b := range script {
			e := ending{failed: b&1 != 0, slow: b&2 != 0}
			all = append(all, e)
			want := count(all[max(len(all)-max(int(n), 1), 0):])
			if got := w.Add(0, e.failed, e.slow); got != want {
				t.Fatalf("sums after %v: got %v, want %v", e, got, want)
			}
			if got := w.Counts(0); got != want {
				t.Fatalf("counts: got %v, want %v", got, want)
			}
		}
	})
}

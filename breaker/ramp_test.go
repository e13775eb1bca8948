package breaker_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backstay-go/backstay/breaker"
)

// closing returns a breaker that has just closed after an outage, with a ramp of a second.
func closing() *breaker.Breaker {
	c := plain(3)
	c.Ramp, c.Probes, c.Successes = time.Second, 2, 2
	b := due(c)
	times(b, 2, nil)
	return b
}

func TestRampLetsAGrowingShareThrough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := closing()
		wantState(t, b, breaker.Closed)
		ctx := context.Background()
		busy := []*breaker.Permit{acquire(t, b), acquire(t, b)} // more than these few are held to the share
		const each = 1000
		for tenth := range 10 {
			through := 0
			for range each {
				if p, err := b.Acquire(ctx); err == nil {
					through++
					p.DoneErr(ctx, nil)
				}
				time.Sleep(100 * time.Millisecond / each)
			}
			want := each*tenth/10 + each/20
			if through < want-5 || through > want+5 {
				t.Errorf("tenth %d of the ramp: got %d of %d calls through, want about %d", tenth, through, each, want)
			}
		}
		times(b, 1, nil)
		for range 1000 {
			if r := refused(t, b); r != nil {
				t.Fatalf("after the ramp: got %v", r)
			}
		}
		for _, p := range busy {
			p.DoneErr(ctx, nil)
		}
	})
}

// A client with few calls would notice a ramp only as errors.
func TestRampLetsFewCallsPass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := closing()
		for range 500 {
			if err := last(b, time.Millisecond, nil); err != nil {
				t.Fatalf("got error %v, want none for one call at a time", err)
			}
		}
		first, second := acquire(t, b), acquire(t, b)
		credit := 0
		for credit < 100 && refused(t, b) == nil { // the share that has been saved up
			credit++
		}
		if credit > 2 {
			t.Errorf("got %d calls through beside those in flight, want 2 at most", credit)
		}
		if r := refused(t, b); r != nil && (r.Reason != "ramping up" || r.RetryAfter != 500*time.Millisecond) {
			t.Errorf("got %+v, want a refusal for what is left of the ramp", r)
		}
		first.Cancel(context.Background())
		second.Cancel(context.Background())
	})
}

func TestFailuresOpenDuringARamp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := closing()
		times(b, 3, errDown)
		wantState(t, b, breaker.Open)
		if got := b.Snapshot().RetryAfter; got != time.Second {
			t.Errorf("got a period of %v, want 1s", got)
		}
	})
}

func TestNoRamp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, b := range map[string]*breaker.Breaker{
			"off": func() *breaker.Breaker {
				b := due(plain(3))
				times(b, 1, nil)
				return b
			}(),
			"after Reset": func() *breaker.Breaker {
				c := plain(3)
				c.Ramp = time.Second
				b := due(c)
				b.Reset()
				return b
			}(),
		} {
			for range 100 {
				if _, err := b.Acquire(context.Background()); err != nil {
					t.Fatalf("%s: got error %v, want none", name, err)
				}
			}
		}
	})
}

package breaker_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/breaker"
)

func TestForcedOpenStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(plain(1))
		inFlight := acquire(t, b)
		b.SetMode(breaker.ForcedOpen)
		inFlight.DoneErr(context.Background(), nil)
		for range 10 {
			if refused(t, b) == nil {
				t.Fatal("a call was let through")
			}
			wantState(t, b, breaker.Open)
			time.Sleep(time.Hour)
		}
		b.Reset()
		b.Trip()
		if refused(t, b) == nil {
			t.Fatal("a call was let through after Reset, which leaves the mode")
		}
		b.SetMode(breaker.Auto)
		wantState(t, b, breaker.Closed)
		if r := refused(t, b); r != nil {
			t.Fatalf("released: got %v, want the call through", r)
		}
	})
}

func TestForcedClosedCountsButNeverOpens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(plain(1))
		b.Trip()
		b.SetMode(breaker.ForcedClosed)
		for range 50 {
			if err := try(b, errDown); err != errDown {
				t.Fatalf("got error %v, want the call's own", err)
			}
		}
		b.Trip()
		wantState(t, b, breaker.Closed)
		if got := b.Snapshot().Failures; got != 50 {
			t.Fatalf("got %d failures counted, want 50", got)
		}
		b.SetMode(breaker.Auto)
		wantState(t, b, breaker.Closed)
		times(b, 1, errDown)
		wantState(t, b, breaker.Open)
	})
}

func TestDisabledCountsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := plain(1)
		c.Mode = breaker.Disabled
		b := breaker.New(c)
		for range 50 {
			if err := try(b, errDown); err != errDown {
				t.Fatalf("got error %v, want the call's own", err)
			}
		}
		b.Record(backstay.Failure)
		wantState(t, b, breaker.Closed)
		if got := b.Snapshot(); got.Calls != 0 || got.Stale != 0 {
			t.Fatalf("got %d calls counted and %d stale, want none", got.Calls, got.Stale)
		}
	})
}

// A shadow judges as the breaker would, and refuses nothing. Calls that it would have refused would not have been made, so
// their results do not count.
func TestShadow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &log{}
		c := plain(2)
		c.Mode, c.Observer = breaker.Shadow, l
		b := breaker.New(c)
		for range 5 {
			if err := try(b, errDown); err != errDown {
				t.Fatalf("got error %v, want the call's own", err)
			}
		}
		wantState(t, b, breaker.Open)
		if got := l.kinds(backstay.EventShadow); len(got) != 3 || got[0].Reason != "open" || got[0].Wait != time.Second || got[0].Name != "test" {
			t.Fatalf("got shadow events %+v, want 3 of an open breaker", got)
		}
		if got := b.Snapshot(); got.Rejected != 3 || got.Stale != 0 {
			t.Fatalf("got %d rejected and %d stale, want 3 and 0", got.Rejected, got.Stale)
		}
		if got := l.kinds(backstay.EventReject); len(got) != 0 {
			t.Fatalf("got refusals %+v, want none", got)
		}
		time.Sleep(time.Second)
		probe := acquire(t, b)
		_ = try(b, errDown) // would have been refused: not a probe
		wantState(t, b, breaker.HalfOpen)
		probe.DoneErr(context.Background(), nil)
		wantState(t, b, breaker.Closed)

		times(b, 2, errDown)
		b.SetMode(breaker.Auto) // goes on with the judgement so far
		wantState(t, b, breaker.Open)
		if refused(t, b) == nil {
			t.Fatal("a call was let through once the shadow is the breaker")
		}
	})
}

func TestUnknownModeChangesNothing(t *testing.T) {
	b := breaker.New(breaker.Config{})
	b.SetMode(breaker.Shadow + 1)
	if got := b.Snapshot().Mode; got != breaker.Auto {
		t.Fatalf("got mode %v, want auto", got)
	}
}

func TestTripAndReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(plain(3))
		times(b, 2, errDown)
		b.Reset()
		times(b, 2, errDown)
		wantState(t, b, breaker.Closed) // Reset has ended the row
		b.Trip()
		wantState(t, b, breaker.Open)
		time.Sleep(400 * time.Millisecond)
		b.Trip() // is open already
		if got := b.Snapshot().RetryAfter; got != 600*time.Millisecond {
			t.Fatalf("got a rest of %v, want 600ms", got)
		}
		time.Sleep(600 * time.Millisecond)
		probe := acquire(t, b)
		wantState(t, b, breaker.HalfOpen)
		b.Trip() // although no probe has a place left
		wantState(t, b, breaker.Open)
		if got := b.Snapshot(); got.RetryAfter != 2*time.Second || got.Probes != 0 {
			t.Fatalf("got a period of %v and %d probes, want 2s and none", got.RetryAfter, got.Probes)
		}
		probe.Cancel(context.Background())
		b.Reset()
		wantState(t, b, breaker.Closed)
		times(b, 3, errDown)
		if got := b.Snapshot().RetryAfter; got != time.Second {
			t.Fatalf("after Reset: got a period of %v, want 1s", got)
		}
	})
}

func TestNilBreaker(t *testing.T) {
	var b *breaker.Breaker
	if err := backstay.Run(context.Background(), backstay.Chain(b), func(context.Context) error { return nil }); err != nil {
		t.Fatalf("got error %v, want none", err)
	}
	p, err := b.Acquire(context.Background())
	if err != nil {
		t.Fatalf("Acquire: got error %v, want none", err)
	}
	p.DoneErr(context.Background(), nil)
	p.Cancel(context.Background())
	b.Record(backstay.Failure)
	b.Trip()
	b.Reset()
	b.SetMode(breaker.ForcedOpen)
	if err := b.Apply(breaker.Config{}); err != nil {
		t.Errorf("Apply: got error %v, want none", err)
	}
	if got := b.State(); got != breaker.Closed {
		t.Errorf("got state %v, want closed", got)
	}
	if busy, left := b.Keep(); busy || left != 0 {
		t.Errorf("Keep: got %v and %v, want nothing to keep", busy, left)
	}
	if got := b.Snapshot().Share; got != 1 {
		t.Errorf("got a share of %v, want 1", got)
	}
	_ = backstay.Chain(b).String()
}

package adaptive_test

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/adaptive"
)

// steady makes one call each 10 ms for d and returns how many were made and how many were refused.
func steady(t *testing.T, p *backstay.Pipeline, d time.Duration, err error) (made, refused int) {
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if got := backstay.Run(t.Context(), p, func(context.Context) error { made++; return err }); errors.Is(got, adaptive.ErrThrottled) {
			refused++
		}
	}
	return made, refused
}

func TestThrottle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		th := adaptive.NewThrottle(adaptive.ThrottleConfig{Window: 10 * time.Second})
		p := backstay.Chain(th)
		down := errors.New("down")
		if _, refused := steady(t, p, 10*time.Second, nil); refused != 0 {
			t.Errorf("well: %d refused, want none", refused)
		}
		if _, refused := steady(t, p, 4*time.Second, down); refused != 0 {
			t.Errorf("less than half of the window down: %d refused, want none with K = 2", refused)
		}
		steady(t, p, 20*time.Second, down)
		made, refused := steady(t, p, 20*time.Second, down)
		if share := float64(refused) / float64(made+refused); share < 0.85 || share > 0.93 {
			t.Errorf("all down: %.2f refused, want the clamp of 0.9", share)
		}
		// No death spiral: what gets through is accepted, so the share of refusals must fall to nothing by itself.
		steady(t, p, 40*time.Second, nil)
		if _, refused := steady(t, p, 5*time.Second, nil); refused != 0 {
			t.Errorf("40 s after the fault: %d refused in 5 s, want none", refused)
		}
	})
}

// A client of few calls must not wait for its luck.
func TestThrottleProbes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		th := adaptive.NewThrottle(adaptive.ThrottleConfig{Rand: func() float64 { return 0 }}) // never lucky
		p := backstay.Chain(th)
		made := 0
		for range 100 {
			_ = backstay.Run(t.Context(), p, func(context.Context) error { made++; return errors.New("down") })
			time.Sleep(100 * time.Millisecond)
		}
		if made < 9 || made > 12 {
			t.Errorf("%d of 100 calls in 10 s made, want one a second", made)
		}
	})
}

func TestThrottleCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		th := adaptive.NewThrottle(adaptive.ThrottleConfig{})
		run := func(p backstay.Policy, fn func(context.Context) error) {
			_ = backstay.Run(t.Context(), backstay.Chain(th, backstay.PolicyFunc(p.Wrap)), fn)
		}
		none := backstay.PolicyFunc(nil)
		run(none, func(context.Context) error { return nil })
		run(none, func(context.Context) error { return backstay.Ignore(errors.New("no such user")) })
		run(shed, func(context.Context) error { return backstay.Ignore(errors.New("429")) })
		run(none, func(context.Context) error { return errors.New("down") })
		func() {
			defer func() { _ = recover() }()
			run(none, func(context.Context) error { panic("boom") })
		}()
		if s := th.Snapshot(); s.Requests != 4 || s.Accepts != 1 {
			t.Errorf("got %+v, want 4 requests and 1 accept: a success, a 429, a failure and a panic", s)
		}
		time.Sleep(3 * time.Minute)
		if s := th.Snapshot(); s.Requests != 0 || s.Accepts != 0 || s.Drop != 0 {
			t.Errorf("after the window: got %+v, want nothing", s)
		}
	})
}

func TestThrottleConfig(t *testing.T) {
	for _, c := range []adaptive.ThrottleConfig{{K: 1.1}, {K: -1}, {Window: time.Millisecond}, {MaxDrop: 1}, {MaxDrop: -0.1}} {
		if c.Validate() == nil {
			t.Errorf("%+v: got no error", c)
		}
	}
	text, err := json.Marshal(adaptive.ThrottleConfig{K: 3, Window: time.Minute})
	if got, want := string(text), `{"k":3,"window":"1m0s"}`; err != nil || got != want {
		t.Errorf("got %s, %v, want %s", got, err, want)
	}
	var th *adaptive.Throttle
	if err := backstay.Run(t.Context(), chain(th), func(context.Context) error { return nil }); err != nil {
		t.Errorf("a nil throttle: got %v, want the call", err)
	}
	if got, want := adaptive.NewThrottle(adaptive.ThrottleConfig{}).Describe().String(), "throttle (K 2 over 2m0s, drops ≤ 90%)"; got != want {
		t.Errorf("Describe: got %s, want %s", got, want)
	}
}

package chaos_test

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/chaos"
)

var errReset = errors.New("connection reset")

func ok(context.Context) error { return nil }

// The zero Config, rates without On, and On without rates inject nothing.
func TestNeverByAccident(t *testing.T) {
	var nothing *chaos.Chaos
	for _, c := range []*chaos.Chaos{nothing, chaos.New(chaos.Config{}), chaos.New(chaos.Config{FaultRate: 1, LostRate: 1}), chaos.New(chaos.Config{On: true})} {
		p := backstay.Chain(c)
		for range 100 {
			if err := backstay.Run(t.Context(), p, ok); err != nil {
				t.Fatalf("got %v, want nothing injected", err)
			}
		}
	}
}

func TestRates(t *testing.T) {
	c := chaos.New(chaos.Config{On: true, FaultRate: 0.1, Seed: 1})
	p := backstay.Chain(c)
	failed, made := 0, 0
	for range 10_000 {
		if err := backstay.Run(t.Context(), p, func(context.Context) error { made++; return nil }); errors.Is(err, chaos.ErrInjected) {
			failed++
		}
	}
	if failed < 900 || failed > 1100 || made != 10_000-failed || c.Hits() != int64(failed) {
		t.Errorf("got %d failed, %d made, %d hits of 10,000 at 10 %%", failed, made, c.Hits())
	}
}

func TestSeed(t *testing.T) {
	run := func(config chaos.Config) (hit []int) {
		p := backstay.Chain(chaos.New(config))
		for i := range 1000 {
			if backstay.Run(t.Context(), p, ok) != nil {
				hit = append(hit, i)
			}
		}
		return hit
	}
	a, b := run(chaos.Config{On: true, FaultRate: 0.1, Seed: 7}), run(chaos.Config{On: true, FaultRate: 0.1, Seed: 7})
	if !slices.Equal(a, b) {
		t.Errorf("the same seed hit %v and %v", a, b)
	}
	if c := run(chaos.Config{On: true, FaultRate: 0.1, Seed: 7, LostRate: 1e-9}); !slices.Equal(a, c) {
		t.Error("another rate shifted which calls are hit")
	}
	if c := run(chaos.Config{On: true, FaultRate: 0.1}); slices.Equal(a, c) {
		t.Error("no seed hit the same calls")
	}
}

func TestFaultAndLost(t *testing.T) {
	for _, c := range []struct {
		name string
		conf chaos.Config
		made int
	}{
		{"fault", chaos.Config{FaultRate: 1, Fault: errReset}, 0},
		{"lost", chaos.Config{LostRate: 1, Fault: errReset}, 1},
	} {
		c.conf.On = true
		made, closed := 0, 0
		_, _, err := backstay.DoHeld(t.Context(), backstay.Chain(chaos.New(c.conf)), func(context.Context) (int, error) { made++; return 1, nil }, func(int) { closed++ })
		if !errors.Is(err, errReset) || !errors.Is(err, chaos.ErrInjected) || err.Error() != errReset.Error() {
			t.Errorf("%s: got %v, want the fault, which is ErrInjected too", c.name, err)
		}
		if made != c.made || closed != c.made {
			t.Errorf("%s: made %d, closed %d, want %d", c.name, made, closed, c.made)
		}
	}
	own := errors.New("own")
	err := backstay.Run(t.Context(), backstay.Chain(chaos.New(chaos.Config{On: true, LostRate: 1})), func(context.Context) error { return own })
	if !errors.Is(err, own) {
		t.Errorf("a failure is lost as well: got %v, want it to stay what it is", err)
	}
}

func TestLatency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := backstay.Chain(chaos.New(chaos.Config{On: true, LatencyRate: 1, Latency: time.Second, Jitter: time.Second, Seed: 1}))
		start := time.Now()
		if err := backstay.Run(t.Context(), p, ok); err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took < time.Second || took > 2*time.Second {
			t.Errorf("took %v, want 1s to 2s", took)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		start = time.Now()
		err := backstay.Run(ctx, p, func(context.Context) error { t.Error("called"); return nil })
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 100*time.Millisecond {
			t.Errorf("got %v after %v, want the deadline after 100ms", err, time.Since(start))
		}
	})
}

func TestOutcomeAndBehavior(t *testing.T) {
	conf := chaos.Config{On: true, OutcomeRate: 1, Outcome: func(context.Context, *backstay.Call) backstay.Outcome { return backstay.Outcome{Value: 7} }}
	got, err := backstay.Do(t.Context(), backstay.Chain(chaos.New(conf)), func(context.Context) (int, error) { t.Error("called"); return 1, nil })
	if got != 7 || err != nil {
		t.Errorf("outcome: got %d and %v, want 7", got, err)
	}
	ran := 0
	conf = chaos.Config{On: true, BehaviorRate: 1, Behavior: func(context.Context, *backstay.Call) error { ran++; return nil }}
	if err := backstay.Run(t.Context(), backstay.Chain(chaos.New(conf)), ok); err != nil || ran != 1 {
		t.Errorf("behavior: got %v after %d runs, want the call after one", err, ran)
	}
	conf.Behavior = func(context.Context, *backstay.Call) error { return errReset }
	if err := backstay.Run(t.Context(), backstay.Chain(chaos.New(conf)), ok); !errors.Is(err, errReset) {
		t.Errorf("behavior that fails: got %v, want its error", err)
	}
}

func TestMatch(t *testing.T) {
	p := backstay.Chain(chaos.New(chaos.Config{On: true, FaultRate: 1, Match: func(c *backstay.Call) bool { return c.Name() == "victim" }}))
	if err := backstay.Run(t.Context(), p, ok, backstay.Named("bystander")); err != nil {
		t.Errorf("a call that does not match: got %v", err)
	}
	if err := backstay.Run(t.Context(), p, ok, backstay.Named("victim")); err == nil {
		t.Error("a call that matches was not hit")
	}
}

func TestSwitchAndApply(t *testing.T) {
	c := chaos.New(chaos.Config{FaultRate: 1})
	p := backstay.Chain(c)
	if c.Switch(true) || !c.On() {
		t.Error("it was on, or is not")
	}
	if backstay.Run(t.Context(), p, ok) == nil {
		t.Error("switched on: nothing was injected")
	}
	if !c.Switch(false) || backstay.Run(t.Context(), p, ok) != nil {
		t.Error("switched off: still injecting")
	}
	if err := c.Apply(chaos.Config{On: true, FaultRate: 1}); err != nil || backstay.Run(t.Context(), p, ok) == nil {
		t.Errorf("applied: got %v, want it injecting", err)
	}
	if c.Apply(chaos.Config{FaultRate: 2}) == nil || !c.On() {
		t.Error("a config that is not valid was applied")
	}
}

func TestConcurrent(t *testing.T) {
	c := chaos.New(chaos.Config{On: true, FaultRate: 0.5})
	p := backstay.Chain(c)
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for range 1000 {
				_ = backstay.Run(t.Context(), p, ok)
			}
			c.Switch(i%2 == 0)
			_ = c.Describe()
		})
	}
	all.Wait()
}

func TestEventsAndDescribe(t *testing.T) {
	var events []backstay.Event
	c := chaos.New(chaos.Config{Name: "c", On: true, FaultRate: 1, LatencyRate: 1, Latency: time.Microsecond, Observer: backstay.ObserverFunc(func(_ context.Context, e backstay.Event) { events = append(events, e) })})
	_ = backstay.Run(t.Context(), backstay.Chain(c), ok)
	if len(events) != 2 || events[0].Reason != "latency" || events[1].Reason != "fault" || events[1].Kind != backstay.EventChaos {
		t.Errorf("got %+v, want a latency and a fault", events)
	}
	if got, want := c.Describe().String(), `chaos "c" (ON, INJECTS 100% FAULTS, 100% LATE BY 1µs)`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	c.Switch(false)
	if got, want := c.Describe().String(), `chaos "c" (off)`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestConfig(t *testing.T) {
	for _, c := range []chaos.Config{
		{FaultRate: -0.1}, {LostRate: 1.1}, {LatencyRate: math.NaN(), Latency: 1}, {LatencyRate: 0.1}, {Latency: -1}, {Jitter: -1}, {OutcomeRate: 0.1}, {BehaviorRate: 0.1},
	} {
		err := c.Validate()
		if err == nil || !strings.HasPrefix(err.Error(), "chaos: Config.") {
			t.Errorf("%+v: got %v, want an error that names the field", c, err)
			continue
		}
		func() {
			defer func() {
				if got, _ := recover().(error); got == nil || got.Error() != err.Error() {
					t.Errorf("New panicked with %v, want %v", got, err)
				}
			}()
			chaos.New(c)
		}()
	}
	in := chaos.Config{Name: "c", On: true, LatencyRate: 0.25, Latency: 1500 * time.Millisecond, Seed: 9}
	text, err := json.Marshal(in)
	if err != nil || !strings.Contains(string(text), `"latency":"1.5s"`) {
		t.Fatalf("got %s, %v", text, err)
	}
	var out chaos.Config
	if err := json.Unmarshal(text, &out); err != nil || !reflect.DeepEqual(in, out) {
		t.Errorf("got %+v, %v back, want %+v", out, err, in)
	}
}

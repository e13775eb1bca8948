package breaker_test

import (
	"encoding/json"
	"math"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backstay-go/backstay/breaker"
)

func TestValidateNamesTheField(t *testing.T) {
	const long = 25 * time.Hour
	for _, c := range []struct {
		field  string
		config breaker.Config
	}{
		{"FailureRate", breaker.Config{FailureRate: 1.5}},
		{"FailureRate", breaker.Config{FailureRate: math.NaN()}},
		{"FailureRate", breaker.Config{FailureRate: math.Inf(1)}},
		{"SlowRate", breaker.Config{SlowRate: 50}},
		{"SlowRate", breaker.Config{SlowRate: math.NaN()}},
		{"SlowRate", breaker.Config{SlowRate: 0.5, SlowCall: -1}},
		{"Window", breaker.Config{Window: -1}},
		{"Window", breaker.Config{Window: 9 * time.Millisecond}},
		{"Window", breaker.Config{Window: long}},
		{"Count", breaker.Config{Count: -1}},
		{"Count", breaker.Config{Count: 1 << 20}},
		{"MinCalls", breaker.Config{Count: 10, MinCalls: 11}},
		{"SlowCall", breaker.Config{SlowCall: long}},
		{"Spread", breaker.Config{Spread: long}},
		{"OpenFor", breaker.Config{OpenFor: -1}},
		{"OpenFor", breaker.Config{OpenFor: long, MaxOpenFor: long}},
		{"MaxOpenFor", breaker.Config{OpenFor: 10 * time.Second, MaxOpenFor: 5 * time.Second}},
		{"MaxOpenFor", breaker.Config{MaxOpenFor: 500 * time.Millisecond}},
		{"MaxOpenFor", breaker.Config{MaxOpenFor: long}},
		{"Ramp", breaker.Config{Ramp: long}},
		{"Probes", breaker.Config{Probes: -1}},
		{"Probes", breaker.Config{Probes: 3, Successes: 2}},
		{"ProbeGap", breaker.Config{ProbeGap: long}},
		{"Successes", breaker.Config{Successes: -1}},
		{"Successes", breaker.Config{Successes: 2_000_000}},
		{"Probes", breaker.Config{Probes: 2_000_000}},
		{"ProbeTimeout", breaker.Config{ProbeTimeout: -1}},
		{"ProbeTimeout", breaker.Config{ProbeTimeout: time.Microsecond}},
		{"MaxHalfOpen", breaker.Config{MaxHalfOpen: long}},
		{"Mode", breaker.Config{Mode: 77}},
	} {
		err := c.config.Validate()
		if err == nil || !strings.Contains(err.Error(), "Config."+c.field+" ") && !strings.Contains(err.Error(), c.field) {
			t.Errorf("%+v: got error %v, want one that names %s", c.config, err, c.field)
		}
	}
}

func TestValidateJoinsAllFaults(t *testing.T) {
	c := breaker.Config{FailureRate: 2, Window: -1, Count: 5, MinCalls: 6, OpenFor: -1, Probes: 2, Successes: 1}
	err := c.Validate()
	for _, field := range []string{"FailureRate", "Window", "MinCalls", "OpenFor", "Probes"} {
		if err == nil || !strings.Contains(err.Error(), "Config."+field) {
			t.Errorf("got error %v, want it to name %s", err, field)
		}
	}
	defer func() {
		if got, ok := recover().(error); !ok || got.Error() != err.Error() {
			t.Errorf("New: got panic %v, want the error of Validate", got)
		}
	}()
	breaker.New(c)
}

func TestConfigsThatAreValid(t *testing.T) {
	for _, c := range []breaker.Config{
		{},
		{FailureRate: -1, SlowRate: -1, MinCalls: -1, SlowCall: -1, Consecutive: -1, Spread: -1, MaxOpenFor: -1, Ramp: -1, ProbeGap: -1, Tolerated: -1, MaxHalfOpen: -1},
		{OpenFor: time.Minute},
		{Count: 5},
		{Probes: 50},
		{Successes: 1},
		{FailureRate: 1, SlowRate: 1},
		{Window: 10 * time.Millisecond, OpenFor: time.Millisecond, ProbeTimeout: time.Millisecond},
	} {
		if err := c.Validate(); err != nil {
			t.Errorf("%+v: got error %v, want none", c, err)
		}
		breaker.New(c)
	}
}

func TestConfigAsJSON(t *testing.T) {
	want := breaker.Config{
		Name: "inventory", Window: time.Minute, Count: 100, FailureRate: 0.25, SlowRate: 0.75, MinCalls: 10, SlowCall: 1500 * time.Millisecond,
		Consecutive: -1, Spread: 2 * time.Second, OpenFor: time.Second, MaxOpenFor: 8 * time.Second, NoJitter: true, Ramp: -1, Probes: 1, ProbeGap: 3 * time.Second, Successes: 2,
		Tolerated: 3, ProbeTimeout: time.Second, MaxHalfOpen: time.Hour, Mode: breaker.Shadow,
	}
	text, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{`"slowCall":"1.5s"`, `"mode":"shadow"`, `"consecutive":-1`} {
		if !strings.Contains(string(text), part) {
			t.Errorf("got %s, want it to contain %s", text, part)
		}
	}
	var got breaker.Config
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if text, err = json.Marshal(breaker.Config{Observer: &log{}, OpenFunc: func(int) time.Duration { return 0 }}); err != nil || string(text) != "{}" {
		t.Errorf("got %s and error %v, want {}", text, err)
	}
	for _, bad := range []string{`{"windows":"1s"}`, `{"window":1}`, `{"mode":"on"}`, `{"failureRate":"half"}`} {
		if err := json.Unmarshal([]byte(bad), &got); err == nil {
			t.Errorf("%s: got no error", bad)
		}
	}
}

func TestApply(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &log{}
		c := plain(5)
		c.Observer = l
		b := breaker.New(c)
		times(b, 3, errDown)

		if err := b.Apply(breaker.Config{FailureRate: 7}); err == nil || !strings.Contains(err.Error(), "FailureRate") {
			t.Fatalf("got error %v, want one that names FailureRate", err)
		}
		times(b, 1, errDown)
		wantState(t, b, breaker.Closed) // the old one still holds

		next := plain(6)
		next.Name, next.OpenFor = "other", 3*time.Second
		if err := b.Apply(next); err != nil {
			t.Fatal(err)
		}
		times(b, 1, errDown)
		wantState(t, b, breaker.Closed)
		times(b, 1, errDown)
		wantState(t, b, breaker.Open)
		if s := b.Snapshot(); s.RetryAfter != 3*time.Second || s.Name != "test" {
			t.Fatalf("got a period of %v and name %q, want 3s and the name from New", s.RetryAfter, s.Name)
		}
		if len(l.states()) != 1 {
			t.Fatalf("got %v, want the observer from New to be told of one change", l.states())
		}

		next.OpenFor, next.MaxOpenFor = time.Second, time.Second
		if err := b.Apply(next); err != nil {
			t.Fatal(err)
		}
		if got := b.Snapshot().RetryAfter; got != time.Second {
			t.Fatalf("got a rest of %v, want the new bound, 1s", got)
		}
	})
}

func TestApplyKeepsCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(breaker.Config{})
		times(b, 10, nil)
		_ = b.Apply(breaker.Config{FailureRate: 0.9})
		if got := b.Snapshot().Calls; got != 10 {
			t.Errorf("got %d calls, want 10", got)
		}
		_ = b.Apply(breaker.Config{Count: 100})
		if got := b.Snapshot().Calls; got != 0 {
			t.Errorf("another window: got %d calls, want 0", got)
		}
	})
}

func TestApplyAndMode(t *testing.T) {
	b := breaker.New(breaker.Config{})
	b.SetMode(breaker.ForcedOpen)
	_ = b.Apply(breaker.Config{MinCalls: 5})
	if got := b.Snapshot().Mode; got != breaker.ForcedOpen {
		t.Errorf("got mode %v, want what SetMode has set", got)
	}
	_ = b.Apply(breaker.Config{MinCalls: 5, Mode: breaker.Disabled})
	if got := b.Snapshot().Mode; got != breaker.Disabled {
		t.Errorf("got mode %v, want the config's new one", got)
	}
	_ = b.Apply(breaker.Config{MinCalls: 5})
	if got := b.Snapshot().Mode; got != breaker.Auto {
		t.Errorf("got mode %v, want the config's new one", got)
	}
}

// A number of successes that changes must reach the state machine in whatever state it is.
func TestApplySuccesses(t *testing.T) {
	more := func(b *breaker.Breaker) {
		c := plain(1)
		c.Probes, c.Successes = 1, 3
		_ = b.Apply(c)
	}
	for _, c := range []struct {
		name string
		at   func(*breaker.Breaker)
	}{
		{"closed", func(b *breaker.Breaker) { more(b); b.Trip() }},
		{"closed after an outage", func(b *breaker.Breaker) { b.Trip(); time.Sleep(time.Second); times(b, 1, nil); more(b); b.Trip() }},
		{"open", func(b *breaker.Breaker) { b.Trip(); more(b) }},
		{"due", func(b *breaker.Breaker) { b.Trip(); time.Sleep(time.Second); more(b) }},
		{"half-open", func(b *breaker.Breaker) {
			b.Trip()
			time.Sleep(time.Second)
			times(b, 1, errDown)
			time.Sleep(2 * time.Second)
			_, _ = b.Acquire(t.Context())
			more(b)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := breaker.New(plain(1))
				c.at(b)
				if s := b.Snapshot(); s.State == breaker.Closed || c.name == "half-open" && s.Opens != 2 {
					t.Fatalf("got %v after %d openings", s.State, s.Opens)
				}
				time.Sleep(b.Snapshot().RetryAfter)
				for range 3 {
					if b.State() == breaker.Closed {
						t.Fatal("closed before the third success")
					}
					if r := refused(t, b); r != nil {
						t.Fatalf("got %v, want a probe", r)
					}
				}
				wantState(t, b, breaker.Closed)
			})
		})
	}
}

package retry_test

import (
	"context"
	"encoding/json"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/budget"
	"github.com/backstay-go/backstay/retry"
)

func TestValidateNamesEveryField(t *testing.T) {
	c := retry.Config{
		Schedule: "fibonacci", Jitter: "some", Delay: 25 * time.Hour, Factor: math.NaN(), MaxDelay: time.Second, MinAttempt: 25 * time.Hour,
		HintJitter: 2, Budget: budget.New(budget.Config{}), BudgetFor: func(string) *budget.Budget { return nil },
	}
	err := c.Validate()
	for _, field := range []string{"Schedule", "Jitter", "Delay", "Factor", "MaxDelay", "MinAttempt", "HintJitter", "BudgetFor"} {
		if err == nil || !strings.Contains(err.Error(), "Config."+field+" must") {
			t.Errorf("got %v, want a word on %s", err, field)
		}
	}
	defer func() {
		if got, _ := recover().(error); got == nil || got.Error() != err.Error() {
			t.Errorf("New: got panic %v, want that of Validate", got)
		}
	}()
	retry.New(c)
}

func TestValidateBounds(t *testing.T) {
	for _, tc := range []struct {
		c  retry.Config
		ok bool
	}{
		{retry.Config{}, true},
		{retry.Config{Attempts: -1, Delay: -1, MaxDelay: -1, MaxElapsed: -1, MinAttempt: -1, MaxHint: -1, HintJitter: -1}, true},
		{retry.Config{Factor: 0.99}, false},
		{retry.Config{Factor: -1}, false},
		{retry.Config{Factor: math.Inf(1)}, false},
		{retry.Config{Factor: 1}, true},
		{retry.Config{HintJitter: math.NaN()}, false},
		{retry.Config{Delay: time.Second, MaxDelay: time.Second - 1}, false},
		{retry.Config{Jitter: retry.Decorrelated, Schedule: retry.Linear}, false},
		{retry.Config{Jitter: retry.Decorrelated, Schedule: retry.Exponential}, true},
		{retry.Config{Jitter: retry.Decorrelated, Backoff: func() retry.BackOff { return nil }}, false},
		{retry.Config{Jitter: retry.Full, Backoff: func() retry.BackOff { return nil }}, true},
	} {
		if err := tc.c.Validate(); (err == nil) != tc.ok {
			t.Errorf("%+v: got %v, want ok %v", tc.c, err, tc.ok)
		}
	}
}

func TestJSON(t *testing.T) {
	const text = `{"name":"inventory","attempts":5,"schedule":"linear","delay":"250ms","factor":3,"maxDelay":"10s","jitter":"equal",` +
		`"maxElapsed":"1m0s","minAttempt":"20ms","maxHint":"15s","hintJitter":-1,"budget":{"ratio":0.2,"ttl":"20s"},"waitForBreaker":true,"nested":true}`
	var c retry.Config
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		t.Fatal(err)
	}
	if got := c.Budget.Config(); got != (budget.Config{Ratio: 0.2, TTL: 20 * time.Second}) {
		t.Errorf("got budget %+v", got)
	}
	back, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	if string(back) != text {
		t.Errorf("got  %s\nwant %s", back, text)
	}
	if got, err := json.Marshal(retry.Config{Rand: func() float64 { return 0 }, Backoff: func() retry.BackOff { return nil }, Observer: backstay.Observers()}); string(got) != "{}" || err != nil {
		t.Errorf("functions: got %s, %v, want {}", got, err)
	}
	for _, bad := range []string{`{"attempt":3}`, `{"delay":5}`, `{"delay":"5"}`, `{"budget":{"ratio":1e9}}`, `3`} {
		if err := json.Unmarshal([]byte(bad), &c); err == nil {
			t.Errorf("%s was accepted", bad)
		}
	}
}

// A field without a JSON name of its own would be one by accident.
func TestEveryFieldHasATag(t *testing.T) {
	for _, typ := range []reflect.Type{reflect.TypeFor[retry.Config](), reflect.TypeFor[budget.Config]()} {
		for f := range typ.Fields() {
			if f.Tag.Get("json") == "" {
				t.Errorf("%v.%s has no json tag", typ, f.Name)
			}
		}
	}
}

func TestDescribe(t *testing.T) {
	for _, tc := range []struct {
		c    retry.Config
		want string
	}{
		{retry.Config{}, "retry (3 attempts, full jitter 100ms ×2 ≤ 5s)"},
		{retry.Config{Name: "n", Attempts: 1, Jitter: retry.None, Schedule: retry.Constant}, `retry "n" (1 attempt, 100ms ≤ 5s)`},
		{retry.Config{Attempts: -1, Schedule: retry.Linear, MaxDelay: -1, MaxElapsed: time.Minute}, "retry (unlimited attempts, full jitter 100ms linear, within 1m0s)"},
		{retry.Config{Jitter: retry.Decorrelated, Budget: &budget.Budget{}}, "retry (3 attempts, decorrelated jitter 100ms ≤ 5s, budget)"},
		{retry.Config{Backoff: func() retry.BackOff { return nil }}, "retry (3 attempts, own backoff ≤ 5s)"},
	} {
		if got := retry.New(tc.c).Describe().String(); got != tc.want {
			t.Errorf("got %s, want %s", got, tc.want)
		}
	}
	d := retry.New(retry.Config{Attempts: -1}).Describe()
	if d.Attempts != -1 || d.MaxDelay != 5*time.Second {
		t.Errorf("got %+v, want -1 attempts and 5s", d)
	}
	if d := retry.New(retry.Config{MaxDelay: -1}).Describe(); d.MaxDelay != 0 {
		t.Errorf("without a bound: got MaxDelay %v, want 0", d.MaxDelay)
	}
}

// The success path adds nothing to allocate: Do alone allocates the same.
func TestNoAllocationsOnSuccess(t *testing.T) {
	fn := func(context.Context) error { return nil }
	measure := func(p *backstay.Pipeline) float64 {
		return testing.AllocsPerRun(1000, func() { _ = backstay.Run(context.Background(), p, fn) })
	}
	bare := measure(backstay.Chain())
	for name, c := range map[string]retry.Config{
		"default":    {},
		"budget":     {Budget: budget.New(budget.Config{})},
		"per key":    {BudgetFor: budget.PerKey(budget.Config{}, backstay.KeyedConfig{}).For},
		"everything": {MaxElapsed: time.Hour, WaitForBreaker: true, Attempts: -1},
	} {
		if got := measure(backstay.Chain(retry.New(c))); got != bare {
			t.Errorf("%s: got %v allocations, want the %v of a bare call", name, got, bare)
		}
	}
}

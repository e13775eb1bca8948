package standard_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/adaptive"
	"github.com/backstay-go/backstay/breaker"
	"github.com/backstay-go/backstay/budget"
	"github.com/backstay-go/backstay/bulkhead"
	"github.com/backstay-go/backstay/ratelimit"
	"github.com/backstay-go/backstay/retry"
	"github.com/backstay-go/backstay/standard"
	"github.com/backstay-go/backstay/timeout"
)

var errBoom = errors.New("boom")

// The order is that of the design, and Lint has nothing to say about any legal Config.
func TestOrder(t *testing.T) {
	want := []string{"timeout", "retry", "per key", "adaptive", "per key", "breaker", "timeout"}
	var got []string
	var walk func([]backstay.Description)
	walk = func(all []backstay.Description) {
		for _, d := range all {
			got = append(got, d.Kind)
			walk(d.Inner)
		}
	}
	walk(standard.New(standard.Config{}).Describe().Inner)
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("order: got %v, want %v", got, want)
	}
	for _, c := range []standard.Config{
		{}, {Total: time.Second}, {Attempt: time.Minute}, {Total: -1}, {Attempt: -1}, {Total: 2 * time.Minute, Attempt: 20 * time.Second},
	} {
		if err := c.Validate(); err != nil {
			t.Errorf("Validate(%+v): got %v", c, err)
		} else if found := standard.New(c).Lint(); found != nil {
			t.Errorf("Lint of %+v: got %v, want nothing", c, found)
		}
	}
}

// The numbers of the documentation are those in use.
func TestDefaults(t *testing.T) {
	printed := standard.New(standard.Config{}).String()
	for _, want := range []string{"30s", "3 attempts", "100ms", "5s", "50%", "20", "10s"} {
		if !strings.Contains(printed, want) {
			t.Errorf("%q is missing in\n%s", want, printed)
		}
	}
}

// Stages are changed one by one, and switched off.
func TestOverride(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		attempts := func(c standard.Config) (n int, err error) {
			p := standard.New(c)
			for range 8 {
				err = backstay.Run(context.Background(), p, func(context.Context) error { n++; return errBoom }, backstay.WithKey("k"))
				time.Sleep(200 * time.Millisecond)
			}
			return n, err
		}
		if n, err := attempts(standard.Config{Retry: retry.Config{Attempts: 1}}); n != 6 || !errors.Is(err, breaker.ErrOpen) {
			t.Errorf("8 failing calls in 1.4 s: got %d attempts and %v, want the breaker to open after a second of them", n, err)
		}
		if n, err := attempts(standard.Config{Retry: retry.Config{Attempts: 1}, Breaker: breaker.Config{Mode: breaker.Disabled}}); n != 8 || !errors.Is(err, errBoom) {
			t.Errorf("without a breaker: got %d attempts and %v, want 8 and boom", n, err)
		}
		own := budget.New(budget.Config{})
		if s := standard.Build(standard.Config{Retry: retry.Config{Budget: own}}); s.Budgets != nil {
			t.Error("a budget of one's own is not used")
		}
	})
}

// Each key has state of its own.
func TestKeys(t *testing.T) {
	s := standard.Build(standard.Config{Breaker: breaker.Config{Consecutive: 1, Spread: -1}, Retry: retry.Config{Attempts: 1}})
	run := func(key string, err error) error {
		return backstay.Run(context.Background(), s.Pipeline(), func(context.Context) error { return err }, backstay.WithKey(key))
	}
	_ = run("down", errBoom)
	if err := run("down", nil); !errors.Is(err, breaker.ErrOpen) || !strings.Contains(err.Error(), `"down"`) {
		t.Errorf("the key that is down: got %v, want its breaker's name", err)
	}
	if err := run("up", nil); err != nil {
		t.Errorf("another key: got %v", err)
	}
	if got := s.Breakers.Stats().Keys; got != 2 {
		t.Errorf("breakers: got %d, want 2", got)
	}
}

func TestAttemptTimeoutIsRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		start := time.Now()
		err := backstay.Run(context.Background(), standard.New(standard.Config{}), func(ctx context.Context) error { n++; <-ctx.Done(); return ctx.Err() })
		if !errors.Is(err, timeout.ErrExceeded) || n != 3 || time.Since(start) > 31*time.Second {
			t.Errorf("a call that hangs: got %v after %d attempts and %v; want a timeout, 3, at most 30s", err, n, time.Since(start))
		}
	})
}

func TestValidate(t *testing.T) {
	bad := standard.Config{
		Total: time.Second, Attempt: 2 * time.Second, MinAttempt: -1, Keys: -1,
		Retry: retry.Config{Factor: 0.5}, Budget: budget.Config{Ratio: math.NaN()}, Breaker: breaker.Config{FailureRate: 2}, Limit: adaptive.Config{DropRate: 3},
	}
	err := bad.Validate()
	for _, field := range []string{"Attempt", "MinAttempt", "Max", "Factor", "Ratio", "FailureRate", "DropRate"} {
		if err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("Validate: %s is not named in %v", field, err)
		}
	}
	defer func() {
		if recover() == nil {
			t.Error("New took a bad config")
		}
	}()
	standard.New(bad)
}

func TestJSON(t *testing.T) {
	in := standard.Config{Total: 5 * time.Second, Retry: retry.Config{Attempts: 4, Delay: 50 * time.Millisecond}, Breaker: breaker.Config{MinCalls: 50}}
	text, err := json.Marshal(in)
	if want := `{"total":"5s","retry":{"attempts":4,"delay":"50ms"},"breaker":{"minCalls":50}}`; err != nil || string(text) != want {
		t.Errorf("got %s, %v; want %s", text, err, want)
	}
	var out standard.Config
	if err := json.Unmarshal(text, &out); err != nil || out.Total != in.Total || out.Retry.Attempts != 4 || out.Retry.Delay != in.Retry.Delay || out.Breaker.MinCalls != 50 {
		t.Errorf("back: got %+v, %v", out, err)
	}
	for _, text := range []string{`{"totl":"5s"}`, `{"retry":{"attemps":4}}`, `{"breaker":{"window":30}}`} {
		if err := json.Unmarshal([]byte(text), &out); err == nil {
			t.Errorf("%s was taken", text)
		}
	}
}

func ExampleNew() {
	p := standard.New(standard.Config{Total: 5 * time.Second, Attempt: time.Second})
	n := 0
	err := backstay.Run(context.Background(), p, func(context.Context) error {
		if n++; n < 3 {
			return errors.New("connection reset")
		}
		return nil
	}, backstay.Named("load item"), backstay.WithKey("inventory"))
	fmt.Println(n, err)
	// Output: 3 <nil>
}

func ExampleBuild() {
	s := standard.Build(standard.Config{})
	_ = backstay.Run(context.Background(), s.Pipeline(), func(context.Context) error { return nil }, backstay.WithKey("inventory"))
	for key, b := range s.Breakers.All() {
		fmt.Println(key, b.State())
	}
	// Output: inventory closed
}

// Policies case T20: what a policy inside refuses is nothing that a breaker outside counts, whichever policy that is.
func TestRefusalsInsideAreNeutral(t *testing.T) {
	for _, inner := range []backstay.Policy{
		bulkhead.New(bulkhead.Config{Limit: 1}),
		adaptive.New(adaptive.Config{Initial: 1, Min: 1, Max: 1}),
		ratelimit.New(ratelimit.Config{Rate: 1, Per: time.Hour, Burst: 1}),
	} {
		synctest.Test(t, func(t *testing.T) {
			b := breaker.New(breaker.Config{Consecutive: 1, Spread: -1})
			p := backstay.Chain(b, inner)
			var second error
			first := backstay.Run(t.Context(), p, func(ctx context.Context) error {
				second = backstay.Run(ctx, p, func(context.Context) error { return nil })
				return nil
			})
			if first != nil || !errors.Is(second, backstay.ErrRejected) {
				t.Fatalf("%T: got %v and %v, want a call and a refusal beside it", inner, first, second)
			}
			if s := b.Snapshot(); s.State != breaker.Closed || s.Failures != 0 || s.Calls != 1 {
				t.Errorf("%T: the breaker is %v and counted %d calls, %d of them failures; want closed, 1, 0", inner, s.State, s.Calls, s.Failures)
			}
		})
	}
}

package backstay_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/breaker"
	"github.com/backstay-go/backstay/budget"
	"github.com/backstay-go/backstay/bulkhead"
	"github.com/backstay-go/backstay/internal/tap"
	"github.com/backstay-go/backstay/ratelimit"
	"github.com/backstay-go/backstay/retry"
	"github.com/backstay-go/backstay/standard"
)

// picky is an observer that can say whether it wants events.
type picky struct {
	on   bool
	seen []string
}

func (p *picky) Enabled(context.Context) bool { return p.on }

func (p *picky) Observe(_ context.Context, e backstay.Event) {
	p.seen = append(p.seen, e.Kind.String()+" "+e.Reason)
}

// An observer that wants no events gets none, and one beside it gets all the same.
func TestEnabler(t *testing.T) {
	run := func(p *backstay.Pipeline) {
		_ = backstay.Run(context.Background(), p, func(context.Context) error { return nil })
	}
	off, on, other := &picky{}, &picky{on: true}, 0
	run(backstay.Chain().Observe(off))
	run(backstay.Chain().Observe(on))
	if len(off.seen) != 0 || !slices.Equal(on.seen, []string{"attempt first", "call "}) {
		t.Errorf("got %q and %q; want nothing, and attempt and call", off.seen, on.seen)
	}
	both := backstay.Chain().Observe(off).Observe(backstay.ObserverFunc(func(context.Context, backstay.Event) { other++ }))
	if run(both); other != 2 {
		t.Errorf("beside one that wants none: got %d events, want 2", other)
	}
	off.seen = nil
	if run(backstay.Chain().Observe(off).Observe(&picky{})); len(off.seen) != 0 {
		t.Errorf("two that want none: got %q", off.seen)
	}
}

// Observers put on a context one after the other are all told.
func TestWithObserverTwice(t *testing.T) {
	ctx, report := backstay.WithReport(context.Background())
	n := 0
	ctx = backstay.WithObserver(ctx, backstay.ObserverFunc(func(context.Context, backstay.Event) { n++ }))
	_ = backstay.Run(ctx, nil, func(context.Context) error { return nil })
	if n != 2 || report.Info().Attempts != 1 {
		t.Errorf("got %d events and %d attempts, want 2 and 1", n, report.Info().Attempts)
	}
}

// What an attempt was started for.
func TestAttemptReasons(t *testing.T) {
	o := &picky{on: true}
	p := backstay.Chain(retry.New(retry.Config{Attempts: 2, Delay: -1})).Observe(o)
	_ = backstay.Run(context.Background(), p, func(context.Context) error { return errors.New("boom") })
	if got := strings.Join(o.seen, ", "); !strings.HasPrefix(got, "attempt first, retry schedule, attempt retry, stop attempts") {
		t.Errorf("got %s", got)
	}
}

// A pipeline tells the numbers of all its policies, each with its key.
func TestGauges(t *testing.T) {
	tell := func(g backstay.Gauged) (all []string) {
		g.Gauges(func(n backstay.Gauge) {
			all = append(all, strings.TrimSpace(fmt.Sprintf("%s %s %s %s %s %g", n.Policy, n.Kind, n.Name, n.Key, n.State, n.Value)))
		})
		return all
	}
	p := backstay.Chain(
		retry.New(retry.Config{Budget: budget.New(budget.Config{Start: 2})}),
		bulkhead.New(bulkhead.Config{Name: "b", Limit: 7}),
		ratelimit.New(ratelimit.Config{Name: "r", Rate: 1, Burst: 3}),
		breaker.New(breaker.Config{Name: "c", Mode: breaker.ForcedOpen}),
	)
	want := []string{
		"budget tokens    2",
		"bulkhead in use b   0", "bulkhead waiting b   0", "bulkhead limit b   7",
		"ratelimit waiting r   0", "ratelimit tokens r   3",
		"breaker state c  forced-open 1",
	}
	if got := tell(p); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	s := standard.New(standard.Config{})
	_ = backstay.Run(context.Background(), s, func(context.Context) error { return nil }, backstay.WithKey("k"))
	got := strings.Join(tell(s), ", ")
	for _, want := range []string{"budget tokens  k  2", "adaptive in use k k  0", "adaptive limit k k  1000", "breaker state k k closed 1"} {
		if !strings.Contains(got, want) {
			t.Errorf("the standard pipeline: %q is missing in %q", want, got)
		}
	}
	if got := tell((*backstay.Pipeline)(nil)); got != nil {
		t.Errorf("no pipeline: got %q", got)
	}
	if got := backstay.GaugeKind(99).String(); got != "gauge 99" {
		t.Errorf("an unknown kind: got %q", got)
	}
}

type timeless = tap.Timeless

// quick has no use for how long attempts took.
type quick struct {
	timeless
	timed
}

// timed notes how long attempts and calls took.
type timed struct{ attempts, calls []time.Duration }

func (o *timed) Observe(_ context.Context, e backstay.Event) {
	switch e.Kind {
	case backstay.EventAttempt:
		o.attempts = append(o.attempts, e.Elapsed)
	case backstay.EventCall:
		o.calls = append(o.calls, e.Elapsed)
	}
}

// The clock is not read for attempts where nobody wants to know; it is where somebody does, from wherever he watches.
func TestTimeless(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		second := func(context.Context) error { time.Sleep(time.Second); return nil }
		ctx := context.Background()
		alone, beside, below := &quick{}, &quick{}, &quick{}
		_ = backstay.Run(ctx, backstay.Chain().Observe(alone), second)
		if alone.attempts[0] != 0 || alone.calls[0] != time.Second {
			t.Errorf("alone: got %v and %v, want 0 and 1s", alone.attempts, alone.calls)
		}
		other, own := &timed{}, &timed{}
		_ = backstay.Run(ctx, backstay.Chain().Observe(beside).Observe(other), second)
		_ = backstay.Run(backstay.WithObserver(ctx, own), backstay.Chain().Observe(below), second)
		if other.attempts[0] != time.Second || own.attempts[0] != time.Second {
			t.Errorf("beside one that has no use for it: got %v and %v, want 1s", other.attempts, own.attempts)
		}
		p := backstay.Chain(retry.New(retry.Config{Attempts: 2, Delay: -1}))
		fail := func(context.Context) error { time.Sleep(time.Second); return errors.New("boom") }
		last, two := &quick{}, &timed{}
		_ = backstay.Run(ctx, p.Observe(last), fail)
		_ = backstay.Run(ctx, p.Observe(two), fail)
		if last.attempts[1] != 0 || two.attempts[1] != time.Second {
			t.Errorf("a second attempt: got %v, and timed %v", last.attempts, two.attempts)
		}
	})
}

package backstay_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/breaker"
	"github.com/backstay-go/backstay/bulkhead"
)

// heard notes changes of state.
type heard []string

func (h *heard) Observe(_ context.Context, e backstay.Event) {
	*h = append(*h, e.Key+" "+e.From+" "+e.To+" "+e.Reason)
}

func (h *heard) want(t *testing.T, what string, want ...string) {
	t.Helper()
	if !slices.Equal(*h, want) {
		t.Errorf("%s: got %q, want %q", what, *h, want)
	}
	*h = nil
}

// Who watches a pipeline hears what is done to its breakers by hand, those of keys included, until it stops; what a call does is told to the call's observer alone.
func TestWatch(t *testing.T) {
	plain := breaker.New(breaker.Config{Name: "plain", Consecutive: 1, Spread: -1})
	hosts := backstay.NewKeyed(backstay.KeyedConfig{}, func(key string) *breaker.Breaker { return breaker.New(breaker.Config{Name: key}) })
	early, _ := hosts.Get("early")
	var h, other, calls heard
	p := backstay.Chain(bulkhead.New(bulkhead.Config{}), hosts, plain)
	stop := p.Watch(&h)
	stopOther := backstay.Chain(p).Watch(&other)
	late, _ := hosts.Get("late")

	early.Trip()
	late.Trip()
	late.Reset()
	plain.SetMode(breaker.ForcedOpen)
	plain.SetMode(breaker.Auto)
	all := []string{"early closed open trip", "late closed open trip", "late open closed reset", " closed forced-open mode forced-open", " forced-open closed mode auto"}
	h.want(t, "by hand", all...)
	other.want(t, "a second one", all...)

	_ = backstay.Run(context.Background(), p.Observe(&calls), func(context.Context) error { return errors.New("boom") })
	if !slices.Contains(calls, " closed open failures in a row") {
		t.Errorf("the call's observer: got %q, want the change", calls)
	}
	h.want(t, "a call that is observed")
	other = nil

	stop()
	plain.Reset()
	early.Reset()
	h.want(t, "after stop")
	other.want(t, "the second one, after the first has stopped", " open closed reset", "early open closed reset")
	stopOther()
	stop() // again: nothing
}

// Nobody and nothing can be watched.
func TestWatchNothing(t *testing.T) {
	var k *backstay.Keyed[*breaker.Breaker]
	for _, w := range []backstay.Watchable{(*backstay.Pipeline)(nil), k, (*breaker.Breaker)(nil), &backstay.Watchers{}, backstay.Chain()} {
		w.Watch(&heard{})()
		w.Watch(nil)()
	}
	var none backstay.Watchers
	if none.Observe(context.Background(), backstay.Event{}); none.Any() {
		t.Error("the zero Watchers: got somebody")
	}
	stop := none.Watch(backstay.ObserverFunc(func(context.Context, backstay.Event) { panic("swallowed") }))
	none.Observe(context.Background(), backstay.Event{})
	if !none.Any() {
		t.Error("watched: got nobody")
	}
	if stop(); none.Any() {
		t.Error("stopped: got somebody")
	}
}

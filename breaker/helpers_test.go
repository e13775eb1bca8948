package breaker_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/breaker"
)

var errDown = errors.New("down")

// try makes one call through b that ends with err at once, and returns what its caller gets.
func try(b *breaker.Breaker, err error) error {
	return backstay.Run(context.Background(), backstay.Chain(b), func(context.Context) error { return err })
}

// last makes one call through b that takes d and ends with err.
func last(b *breaker.Breaker, d time.Duration, err error) error {
	return backstay.Run(context.Background(), backstay.Chain(b), func(context.Context) error {
		time.Sleep(d)
		return err
	})
}

// times makes n calls through b, one after the other, that end with err at once.
func times(b *breaker.Breaker, n int, err error) {
	for range n {
		_ = try(b, err)
	}
}

// refused returns the refusal of a call through b that would succeed; nil when it is let through.
func refused(t *testing.T, b *breaker.Breaker) *backstay.Rejected {
	t.Helper()
	err := try(b, nil)
	if err == nil {
		return nil
	}
	var r *backstay.Rejected
	if !errors.As(err, &r) || !errors.Is(err, breaker.ErrOpen) || !errors.Is(err, backstay.ErrRejected) {
		t.Fatalf("got error %v, want a refusal by the breaker", err)
	}
	return r
}

func wantState(t *testing.T, b *breaker.Breaker, want breaker.State) {
	t.Helper()
	if got := b.State(); got != want {
		t.Fatalf("got state %v, want %v", got, want)
	}
}

// acquire returns a permit, which there must be.
func acquire(t *testing.T, b *breaker.Breaker) *breaker.Permit {
	t.Helper()
	p, err := b.Acquire(context.Background())
	if err != nil {
		t.Fatalf("Acquire: got error %v, want a permit", err)
	}
	return p
}

// log keeps events.
type log struct {
	mu  sync.Mutex
	all []backstay.Event
}

func (l *log) Observe(_ context.Context, e backstay.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, e)
}

// kinds returns the events of a kind.
func (l *log) kinds(k backstay.EventKind) (of []backstay.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.all {
		if e.Kind == k {
			of = append(of, e)
		}
	}
	return of
}

// states returns the changes of state, as "closed>open failure rate".
func (l *log) states() (s []string) {
	for _, e := range l.kinds(backstay.EventState) {
		s = append(s, e.From+">"+e.To+" "+e.Reason)
	}
	return s
}

// plain is a config without chance and without a ramp, that opens on n failures in a row for a second.
func plain(n int) breaker.Config {
	return breaker.Config{
		Name: "test", Consecutive: n, Spread: -1, FailureRate: -1, NoJitter: true, Ramp: -1, Probes: 1, Successes: 1,
	}
}

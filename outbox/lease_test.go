package outbox_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/outboxmem"
)

// strange is a store behind a clock that is wrong, a connection that can be cut, and reads whose answers are slow.
type strange struct {
	outbox.Source
	skew time.Duration
	slow time.Duration
	cut  atomic.Bool
}

func (s *strange) Lease(ctx context.Context, r outbox.LeaseRequest) (outbox.Leases, error) {
	if s.cut.Load() {
		return outbox.Leases{}, errors.New("cut")
	}
	got, err := s.Source.Lease(ctx, r)
	got.Now = got.Now.Add(s.skew)
	return got, err
}

func (s *strange) Read(ctx context.Context, spans []outbox.Span, limit int, rows []outbox.Row) ([]outbox.Row, error) {
	rows, err := s.Source.Read(ctx, spans, limit, rows)
	time.Sleep(s.slow)
	return rows, err
}

// A relay that cannot renew its leases stops publishing before they end, whatever the database's clock says.
func TestRelayStopsWithoutLease(t *testing.T) {
	for _, skew := range []time.Duration{0, 5 * time.Minute, -5 * time.Minute} {
		t.Run(skew.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				box, broker := outboxmem.New(), &recorder{}
				src := &strange{Source: box.Source(), skew: skew}
				relay := outbox.NewRelay(src, broker, outbox.RelayConfig{})
				ended := make(chan error, 1)
				go func() { ended <- relay.Run(context.Background()) }()
				enqueue(t, box, message("a", 1))
				time.Sleep(time.Second)
				if got := broker.len(); got != 1 {
					t.Errorf("with a lease: %d published, want 1", got)
				}
				src.cut.Store(true)
				time.Sleep(10 * time.Second) // the term, counted from the last renewal at the latest
				enqueue(t, box, message("a", 2))
				time.Sleep(30 * time.Second)
				if got := broker.len(); got != 1 {
					t.Errorf("without a lease: %d published, want no more than the 1", got)
				}
				if relay.Health() == nil {
					t.Error("Health: got nil, want the renewals' failure")
				}
				src.cut.Store(false)
				time.Sleep(5 * time.Second)
				if got := broker.len(); got != 2 {
					t.Errorf("with a lease again: %d published, want 2", got)
				}
				relay.Shutdown(t.Context())
				<-ended
			})
		})
	}
}

// A message that is deleted while a read is under way is in the read's answer, and is not published again.
func TestReadUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box, broker := outboxmem.New(), &recorder{}
		src := &strange{Source: box.Source(), slow: 30 * time.Millisecond}
		relay := outbox.NewRelay(src, broker, outbox.RelayConfig{})
		ended := make(chan error, 1)
		go func() { ended <- relay.Run(context.Background()) }()
		for n := range 200 {
			enqueue(t, box, message("k0", n))
			time.Sleep(3 * time.Millisecond)
		}
		time.Sleep(time.Second)
		relay.Shutdown(t.Context())
		<-ended
		checkOrder(t, broker, 1, 200)
		if got := broker.len(); got != 200 {
			t.Errorf("published: got %d, want each of 200 once", got)
		}
	})
}

// patient is a client that gives up when its context ends, as clients do.
type patient struct {
	mu        sync.Mutex
	cancelled []error
	done      int
}

func (p *patient) Publish(ctx context.Context, batch []*outbox.Message, result []error) {
	select {
	case <-time.After(time.Second):
		p.mu.Lock()
		p.done += len(batch)
		p.mu.Unlock()
		clear(result)
	case <-ctx.Done():
		p.mu.Lock()
		p.cancelled = append(p.cancelled, ctx.Err())
		p.mu.Unlock()
		for i := range result {
			result[i] = outbox.UnknownOutcome(ctx.Err())
		}
	}
}

// The end of Run's context does not end a publication: its outcome would be unknown without need.
func TestShutdownCancelsNoPublication(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box, pub := outboxmem.New(), &patient{}
		enqueue(t, box, message("a", 1), message("b", 1))
		_, stop := start(t, box, pub, outbox.RelayConfig{})
		time.Sleep(500 * time.Millisecond)
		stop()
		if len(pub.cancelled) > 0 || pub.done != 2 || box.Len() != 0 {
			t.Errorf("got %d published, %v cancelled, %d left, want 2, none and 0", pub.done, pub.cancelled, box.Len())
		}
	})
}

// A deadline, which is the lease's at the latest, ends a publication that hangs.
func TestPublishTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box, pub := outboxmem.New(), &patient{}
		enqueue(t, box, message("a", 1))
		relay, stop := start(t, box, pub, outbox.RelayConfig{PublishTimeout: 100 * time.Millisecond, MaxBackoff: time.Second})
		time.Sleep(10 * time.Second)
		stop()
		pub.mu.Lock()
		defer pub.mu.Unlock()
		if len(pub.cancelled) < 5 || slices.ContainsFunc(pub.cancelled, func(err error) bool { return !errors.Is(err, context.DeadlineExceeded) }) {
			t.Errorf("got %v, want a row of deadlines", pub.cancelled)
		}
		if s := relay.Stats(); s.Unknown < 5 || s.Parked != 0 {
			t.Errorf("got %d unknown, %d parked, want 5 at least and none", s.Unknown, s.Parked)
		}
	})
}

// A partition changes hands when nothing of it is with the publisher: no key is published by two relays at once, and nothing twice.
func TestHandOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box, broker := outboxmem.New(), &recorder{delay: 9 * time.Second} // longer than two pauses between renewals
		_, stop1 := start(t, box, broker, outbox.RelayConfig{})
		for n := range 5 {
			for k := range 16 {
				enqueue(t, box, message(string(rune('a'+k)), n))
			}
		}
		time.Sleep(2 * time.Second)
		_, stop2 := start(t, box, broker, outbox.RelayConfig{})
		time.Sleep(3 * time.Minute)
		stop1()
		stop2()
		if broker.clash > 0 {
			t.Errorf("a key was published by two at once %d times", broker.clash)
		}
		if got := broker.len(); got != 80 {
			t.Errorf("published: got %d, want each of 80 once", got)
		}
	})
}

// slow answers Lease after d, with the clock as it then is.
type slow struct {
	outbox.Source
	d time.Duration
}

func (s slow) Lease(ctx context.Context, r outbox.LeaseRequest) (outbox.Leases, error) {
	time.Sleep(s.d)
	return s.Source.Lease(ctx, r)
}

// A store that takes two seconds for an answer makes no message expire two seconds early.
func TestExpiryAfterSlowLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box, broker := outboxmem.New(), &recorder{}
		relay, stop := startFrom(t, slow{box.Source(), 2 * time.Second}, broker, outbox.RelayConfig{MaxPoll: 20 * time.Millisecond})
		time.Sleep(3 * time.Second)
		m := message("a", 1)
		m.ExpiresAt = time.Now().Add(1500 * time.Millisecond)
		enqueue(t, box, m)
		time.Sleep(time.Second)
		if got := relay.Stats(); got.Expired != 0 || got.Published != 1 {
			t.Errorf("got %d expired, %d published, want 0 and 1", got.Expired, got.Published)
		}
		stop()
	})
}

// failsFirst is a source whose first leases fail.
type failsFirst struct {
	outbox.Source
	left *atomic.Int64
}

func (s failsFirst) Lease(ctx context.Context, r outbox.LeaseRequest) (outbox.Leases, error) {
	if s.left.Add(-1) >= 0 {
		return outbox.Leases{}, errors.New("connection reset")
	}
	return s.Source.Lease(ctx, r)
}

// A hitch at the start does not cost a tenth of a lease, since nobody publishes what waits.
func TestFirstLeaseFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box := outboxmem.New()
		left := new(atomic.Int64)
		left.Store(1)
		arrived := make(chan time.Duration, 1)
		if err := box.Enqueue(t.Context(), message("k", 0)); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		pub := outbox.PublisherFunc(func(_ context.Context, _ []*outbox.Message, result []error) {
			clear(result)
			arrived <- time.Since(began)
		})
		_, stop := startFrom(t, failsFirst{box.Source(), left}, pub, outbox.RelayConfig{Lease: time.Minute})
		if took := <-arrived; took > 300*time.Millisecond {
			t.Errorf("the first message took %v, want at most 300ms", took)
		}
		stop()
	})
}

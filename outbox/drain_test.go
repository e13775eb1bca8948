package outbox_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/outboxmem"
)

// stuck is a publisher that answers when it is told to give up.
type stuck struct{}

func (stuck) Publish(ctx context.Context, _ []*outbox.Message, result []error) {
	<-ctx.Done()
	for i := range result {
		result[i] = ctx.Err()
	}
}

var errLeave = errors.New("connection reset")

// keptLeases is a source that cannot be given its leases back.
type keptLeases struct{ outbox.Source }

func (s keptLeases) Lease(ctx context.Context, r outbox.LeaseRequest) (outbox.Leases, error) {
	if r.Leave {
		return outbox.Leases{}, errLeave
	}
	return s.Source.Lease(ctx, r)
}

// Run and Shutdown say so when the relay ended before it had drained, whoever ended it, and for whatever reason.
func TestDrainFails(t *testing.T) {
	for name, test := range map[string]struct {
		shutdown, drain time.Duration // 0: the context of Run ends
		leave           bool
		took            time.Duration
		run, shut       error // beside ErrDrain
	}{
		"context, DrainTimeout":       {drain: 2 * time.Second, took: 2 * time.Second},
		"Shutdown, DrainTimeout":      {shutdown: time.Minute, drain: 2 * time.Second, took: 2 * time.Second},
		"Shutdown, its own context":   {shutdown: time.Second, drain: time.Minute, took: time.Second, shut: context.DeadlineExceeded},
		"context, leases not given":   {leave: true, drain: time.Minute, run: errLeave},
		"Shutdown, leases not given":  {leave: true, shutdown: time.Minute, drain: time.Minute, run: errLeave, shut: errLeave},
		"Shutdown, both are too late": {shutdown: time.Second, drain: time.Second, took: time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				box := outboxmem.New()
				var source outbox.Source = box.Source()
				var pub outbox.Publisher = stuck{}
				if test.leave {
					source, pub = keptLeases{source}, &recorder{}
				}
				relay := outbox.NewRelay(source, pub, outbox.RelayConfig{DrainTimeout: test.drain, PublishTimeout: time.Hour, Lease: time.Hour})
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				ended := make(chan error, 1)
				go func() { ended <- relay.Run(ctx) }()
				box.Enqueue(t.Context(), message("a", 1))
				time.Sleep(time.Minute)
				began := time.Now()
				if test.shutdown > 0 {
					within, done := context.WithTimeout(t.Context(), test.shutdown)
					defer done()
					if err := relay.Shutdown(within); !errors.Is(err, outbox.ErrDrain) || test.shut != nil && !errors.Is(err, test.shut) {
						t.Errorf("Shutdown: got %v, want %v and %v", err, outbox.ErrDrain, test.shut)
					}
				}
				cancel()
				if err := <-ended; !errors.Is(err, outbox.ErrDrain) || test.run != nil && !errors.Is(err, test.run) {
					t.Errorf("Run: got %v, want %v and %v", err, outbox.ErrDrain, test.run)
				}
				if took := time.Since(began); took != test.took {
					t.Errorf("the end took %v, want %v", took, test.took)
				}
				if err := relay.Shutdown(t.Context()); !errors.Is(err, outbox.ErrDrain) {
					t.Errorf("Shutdown afterwards: got %v, want %v", err, outbox.ErrDrain)
				}
			})
		})
	}
}

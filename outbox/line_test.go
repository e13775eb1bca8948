package outbox_test

import (
	"context"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/outboxmem"
)

// client is a broker's client that needs some time for each call, for one at a time when turn is there.
type client struct {
	takes time.Duration
	turn  chan struct{} // of one place

	mu    sync.Mutex // guards the rest
	calls int
	taken int
	last  time.Time
}

func (c *client) Publish(_ context.Context, batch []*outbox.Message, result []error) {
	if c.turn != nil {
		c.turn <- struct{}{}
		defer func() { <-c.turn }()
	}
	time.Sleep(c.takes)
	clear(result)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls++
	c.taken += len(batch)
	c.last = time.Now()
}

// drainBacklog publishes each messages of each of 25 keys, 10 in a batch, and returns how long that took.
func drainBacklog(t *testing.T, c *client, each int) time.Duration {
	box := outboxmem.New()
	for i := range each {
		for key := range 25 {
			if err := box.Enqueue(t.Context(), message("k"+strconv.Itoa(key), i)); err != nil {
				t.Fatal(err)
			}
		}
	}
	began := time.Now()
	_, stop := startFrom(t, box.Source(), c, outbox.RelayConfig{Batch: 10})
	time.Sleep(time.Minute)
	stop()
	if c.taken != 25*each {
		t.Errorf("%d messages published, want %d", c.taken, 25*each)
	}
	return c.last.Sub(began)
}

// 25 keys and batches of 10 make two full ones and a half, in turn, unless the half waits for company. Whose calls wait for each other gains by it.
func TestHalfBatchesMergeWhereCallsQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const each = 200
		c := &client{takes: 5 * time.Millisecond, turn: make(chan struct{}, 1)}
		drainBacklog(t, c, each)
		if full := 25 * each / 10; c.calls > full*110/100 {
			t.Errorf("%d calls, want hardly more than %d full ones", c.calls, full)
		}
	})
}

// Where calls go side by side, all keys are published at once: to hold some back would be a loss.
func TestHalfBatchesGoWhereCallsDoNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const each = 200
		c := &client{takes: 5 * time.Millisecond}
		took := drainBacklog(t, c, each)
		if least := each * c.takes; took > least*112/100 {
			t.Errorf("took %v, want hardly more than %v", took, least)
		}
	})
}

// A message that is not part of a backlog goes at once, whatever is under way.
func TestLoneMessageIsNotHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box := outboxmem.New()
		c := &client{takes: 20 * time.Millisecond, turn: make(chan struct{}, 4)}
		var slowest time.Duration
		var mu sync.Mutex
		pub := outbox.PublisherFunc(func(ctx context.Context, batch []*outbox.Message, result []error) {
			mu.Lock()
			slowest = max(slowest, time.Since(batch[0].Created))
			mu.Unlock()
			c.Publish(ctx, batch, result)
		})
		_, stop := startFrom(t, box.Source(), pub, outbox.RelayConfig{Batch: 10})
		for i := range 1000 {
			if err := box.Enqueue(t.Context(), message("k"+strconv.Itoa(i), 0)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(7 * time.Millisecond) // three are under way at a time
		}
		stop()
		if slowest > 5*time.Millisecond {
			t.Errorf("a message waited %v for its call, want it gone at once", slowest)
		}
	})
}

package outbox_test

import (
	"context"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/outboxmem"
)

// countedReads is a source that takes a while for each read.
type countedReads struct {
	outbox.Source
	reads, rows *atomic.Int64
}

func (s countedReads) Read(ctx context.Context, spans []outbox.Span, limit int, rows []outbox.Row) ([]outbox.Row, error) {
	time.Sleep(time.Millisecond)
	rows, err := s.Source.Read(ctx, spans, limit, rows)
	if len(rows) > 0 {
		s.reads.Add(1)
		s.rows.Add(int64(len(rows)))
	}
	return rows, err
}

// Partitions are read together, not one after the other as each has a little room.
func TestBacklogIsReadTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box := outboxmem.New()
		const messages, batch = 20_000, 100
		for i := range messages {
			if err := box.Enqueue(t.Context(), message("k"+strconv.Itoa(i%1000), i)); err != nil {
				t.Fatal(err)
			}
		}
		source := countedReads{box.Source(), new(atomic.Int64), new(atomic.Int64)}
		c := &client{takes: 5 * time.Millisecond, turn: make(chan struct{}, 1)}
		_, stop := startFrom(t, source, c, outbox.RelayConfig{Batch: batch})
		time.Sleep(time.Minute)
		stop()
		t.Logf("%d messages by %d reads of %d rows", c.taken, source.reads.Load(), source.rows.Load())
		if each := messages / int(source.reads.Load()); each < 2*batch {
			t.Errorf("a read brought %d messages, want those of two batches", each)
		}
	})
}

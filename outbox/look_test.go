package outbox_test

import (
	"context"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/outboxmem"
)

// deadRows is a source that takes its time for each row between where a reading starts and the first that is left, as a table does whose deleted rows are
// still in its index.
type deadRows struct {
	outbox.Source
	newest *atomic.Int64
	each   time.Duration
	keeps  int64 // older ones are vacuumed
}

func (s deadRows) Read(ctx context.Context, spans []outbox.Span, limit int, rows []outbox.Row) ([]outbox.Row, error) {
	newest := s.newest.Load()
	rows, err := s.Source.Read(ctx, spans, limit, rows)
	first := map[int]int64{}
	for _, row := range slices.Backward(rows) {
		first[row.Part] = row.Message.Seq
	}
	dead := int64(0)
	for _, span := range spans {
		to, ok := first[span.Part]
		if !ok {
			to = newest
		}
		dead += max(to-max(span.From, newest-s.keeps), 0) / 16
	}
	time.Sleep(time.Millisecond + time.Duration(dead)*s.each)
	return rows, err
}

// A look thirty lags back that takes longer than a lag leaves time for the readings that bring the work in.
func TestSlowLooksLeaveTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const perSecond = 600
		box := outboxmem.New()
		var sent, published atomic.Int64
		pub := outbox.PublisherFunc(func(_ context.Context, batch []*outbox.Message, result []error) {
			clear(result)
			published.Add(int64(len(batch)))
		})
		_, stop := startFrom(t, deadRows{box.Source(), &sent, 85 * time.Microsecond, 60 * perSecond}, pub, outbox.RelayConfig{Batch: 50})
		for began := time.Now(); time.Since(began) < 2*time.Minute; time.Sleep(100 * time.Millisecond) {
			for range perSecond / 10 {
				if err := box.Enqueue(t.Context(), message("k"+strconv.FormatInt(sent.Add(1)%64, 10), 0)); err != nil {
					t.Fatal(err)
				}
			}
		}
		if behind := sent.Load() - published.Load(); behind > 10*perSecond {
			t.Errorf("%d messages behind after two minutes, want at most what comes in during a look", behind)
		}
		stop()
	})
}

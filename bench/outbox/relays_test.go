package outbox

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/backstay-go/backstay/outbox"
	"golang.org/x/sync/semaphore"
)

// slow is a broker's client that confirms after 5 ms and has at most 100 messages on their way.
type slow struct {
	*counter
	window *semaphore.Weighted // of 100
	open   chan struct{}       // closed when the broker begins to take messages
}

func (s slow) Publish(_ context.Context, batch []*outbox.Message, result []error) {
	<-s.open
	for first := 0; first < len(batch); first += 100 {
		n := min(100, len(batch)-first)
		if err := s.window.Acquire(context.Background(), int64(n)); err != nil {
			panic(err) // its context has no end
		}
		time.Sleep(5 * time.Millisecond)
		s.window.Release(int64(n))
		s.add(n)
	}
	clear(result)
}

// BenchmarkOutboxRelays drains the backlog by one relay and by four, each with a client of its own.
func BenchmarkOutboxRelays(b *testing.B) {
	for _, relays := range []int{1, 4} {
		b.Run(fmt.Sprint(relays), func(b *testing.B) {
			for range b.N {
				b.StopTimer()
				pool := connect(b, newDatabase(b))
				box := openBox(b, pool)
				c := newCounter(backlog)
				ctx, cancel := context.WithCancel(context.Background())
				ended := make(chan error, relays)
				broker := make(chan struct{})
				running := make([]*outbox.Relay, relays)
				for i := range running {
					running[i] = outbox.NewRelay(box.Source(pool), slow{c, semaphore.NewWeighted(100), broker}, outbox.RelayConfig{Batch: 100})
					go func() { ended <- running[i].Run(ctx) }()
				}
				for _, r := range running { // shared out before there is work
					for r.Stats().Owned != 16/relays {
						time.Sleep(10 * time.Millisecond)
					}
				}
				fill(b, box, pool)
				b.StartTimer()
				began := time.Now()
				close(broker)
				<-c.done
				b.ReportMetric(backlog/time.Since(began).Seconds(), "msgs/s")
				b.StopTimer()
				cancel()
				for range relays {
					if err := <-ended; err != nil {
						b.Error(err)
					}
				}
				pool.Close()
			}
		})
	}
}

package load

import (
	"sync"
	"time"

	"github.com/backstay-go/backstay/examples/shop/internal/gateway"
	"github.com/backstay-go/backstay/examples/shop/internal/meter"
)

// history is how many seconds are kept.
const history = 120

// Point is one second.
type Point struct {
	At      time.Time
	Offered int // came in that second
	Good    int // got a right answer in that second
	Failed  int // or none, or a wrong one
	P50     time.Duration
	P99     time.Duration
}

// Totals is all since the start.
type Totals struct {
	Offered, Good, Failed int
	Late                  int           // of those that failed: without an answer within the customer's patience
	P50, P99              time.Duration // of the good answers
}

type stats struct {
	mu      sync.Mutex
	seconds [history]second // by second, modulo; guarded by mu, as are the others
	total   second
}

type second struct {
	at                    int64
	offered, good, failed int
	late                  int
	took                  meter.Histogram // of good and failed, as the customers felt it
	tookGood              meter.Histogram
}

func (s *stats) now() *second {
	at := time.Now().Unix()
	b := &s.seconds[at%history]
	if b.at != at {
		*b = second{at: at}
	}
	return b
}

func (s *stats) offer() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now().offered++
	s.total.offered++
}

func (s *stats) end(good bool, took time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range [...]*second{s.now(), &s.total} {
		b.took.Add(took)
		if good {
			b.good++
			b.tookGood.Add(took)
		} else {
			b.failed++
			if took >= gateway.Patience {
				b.late++
			}
		}
	}
}

// Points returns the last two minutes without the second that is not over, oldest first.
func (g *Generator) Points() []Point {
	g.stats.mu.Lock()
	defer g.stats.mu.Unlock()
	now := time.Now().Unix()
	var all []Point
	for at := now - history + 1; at < now; at++ {
		b := &g.stats.seconds[at%history]
		if b.at == at {
			all = append(all, Point{time.Unix(at, 0), b.offered, b.good, b.failed, b.took.Quantile(0.5), b.took.Quantile(0.99)})
		} else if len(all) > 0 {
			all = append(all, Point{At: time.Unix(at, 0)})
		}
	}
	return all
}

// Totals returns all since the start.
func (g *Generator) Totals() Totals {
	g.stats.mu.Lock()
	defer g.stats.mu.Unlock()
	t := &g.stats.total
	return Totals{t.offered, t.good, t.failed, t.late, t.tookGood.Quantile(0.5), t.tookGood.Quantile(0.99)}
}

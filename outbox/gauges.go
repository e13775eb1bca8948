package outbox

import (
	"context"
	"sync"
	"time"
)

// Gauges is how full an outbox is, by its own tables and for all its partitions, whoever owns them. A number above 10,000 may be the
// database's estimate; −1 is one that the store cannot tell.
type Gauges struct {
	Waiting    int64         `json:"waiting"`    // messages that are due and not yet published and deleted
	Scheduled  int64         `json:"scheduled"`  // messages that have still to come due
	Dead       int64         `json:"dead"`       // dead letters
	DeadTuples int64         `json:"deadTuples"` // rows of messages deleted and not yet vacuumed; −1 on all but PostgreSQL
	Oldest     time.Duration `json:"oldestNs"`   // age of the oldest waiting message, by the database's clock; 0: none waits
	At         time.Time     `json:"at"`         // when this was asked, by our clock; zero: never yet
}

// Gauger is what a [Source] may also be. Gauges costs the same however much lies in the tables: it counts no further than 10,000 rows
// of a table. A relay asks every RelayConfig.Gauge and shows the answer in its [Stats].
type Gauger interface {
	Gauges(ctx context.Context) (Gauges, error)
}

// gaugeTimeout bounds one question: scheduled messages wait for it.
const gaugeTimeout = 2 * time.Second

// gauging asks a source for its gauges now and then and keeps the last answer.
type gauging struct {
	mu   sync.Mutex // guards last
	last Gauges
}

func (g *gauging) get() Gauges {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.last
}

// gauge asks once. An error leaves the last answer, whose At shows its age.
func (r *Relay) gauge(ctx context.Context, g Gauger) {
	call, cancel := context.WithTimeout(ctx, gaugeTimeout)
	defer cancel()
	at := time.Now()
	got, err := g.Gauges(call)
	if err != nil {
		if ctx.Err() == nil {
			r.log.WarnContext(ctx, "outbox: gauges", "err", err)
		}
		return
	}
	got.At = at
	r.gauges.mu.Lock()
	r.gauges.last = got
	r.gauges.mu.Unlock()
}

// InboxStats is what a consumer's inbox has seen since its box was made, in this process.
type InboxStats struct {
	Handled    int64 `json:"handled"`    // messages that Handle has handled and committed
	Duplicates int64 `json:"duplicates"` // messages that had been handled before
}

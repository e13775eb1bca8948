// Package desk is where the shop is watched and run from: it asks the services how they stand, makes of it what the page shows, checks the books, and does what
// the page's visitor wants done.
package desk

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/backstay-go/backstay/examples/shop/internal/books"
	"github.com/backstay-go/backstay/examples/shop/internal/broker"
	"github.com/backstay-go/backstay/examples/shop/internal/load"
	"github.com/backstay-go/backstay/examples/shop/internal/notifications"
	"github.com/backstay-go/backstay/examples/shop/internal/orders"
	"github.com/backstay-go/backstay/examples/shop/internal/service"
	"github.com/backstay-go/backstay/examples/shop/internal/supervisor"
)

// Config is what a desk runs.
type Config struct {
	Services  *supervisor.Supervisor
	Broker    *broker.Broker
	Load      *load.Generator
	Seed      uint64
	Database  string // "SQLite" or "PostgreSQL"
	Processes bool
	Protected bool
}

// Desk is the shop's desk. It may be used by many goroutines.
type Desk struct {
	cfg     Config
	began   time.Time
	feed    service.Feed
	checker *books.Checker // for the goroutine in checkBooks alone

	mu        sync.Mutex
	view      view            // guarded by mu, as are those below
	books     books.State     //
	active    map[string]bool // presets
	protected bool
	relayOff  bool
	notes     []service.Note // of all, newest first, at most keepNotes
	seen      map[string]seen
	trouble   time.Time // when something was last out of order
	outbox    [history]outboxAt
}

// seen says which notes of a service are known.
type seen struct{ pid, n int }

// outboxAt is how the outbox stood in a second.
type outboxAt struct {
	second int64
	age    time.Duration
	depth  int
}

// history is how many seconds of it are kept: those of the page's traffic.
const history = 120

// keepNotes is how many notes the page has.
const keepNotes = 100

// view is what the services said last.
type view struct {
	reports   map[string]service.Report // those that answered
	outbox    orders.Outbox
	timelines []orders.Timeline
	mail      notifications.Stats
}

// New returns a desk.
func New(cfg Config) *Desk {
	d := &Desk{cfg: cfg, began: time.Now(), active: map[string]bool{}, protected: cfg.Protected, seen: map[string]seen{}, trouble: time.Now()}
	d.checker = books.NewChecker(books.Services{
		Totals: func(ctx context.Context) (t books.Totals, err error) {
			return t, d.remote("orders").Get(ctx, "/totals", &t)
		},
		Closings: func(ctx context.Context, after int64, limit int) (c []books.Closing, err error) {
			return c, d.remote("orders").Ask(ctx, "/closings", orders.Page{After: after, Limit: limit}, &c)
		},
		Movements: func(ctx context.Context, service string, orders []string) (m books.Movements, err error) {
			return m, d.remote(service).Ask(ctx, "/movements", orders, &m)
		},
		Sums: func(ctx context.Context, service string) (s books.Sums, err error) {
			return s, d.remote(service).Get(ctx, "/sums", &s)
		},
		Shelf: func(ctx context.Context) (s books.Shelf, err error) {
			return s, d.remote("inventory").Get(ctx, "/shelf", &s)
		},
		Log: func(ctx context.Context, order string) (lines []string, err error) {
			return lines, d.remote("orders").Ask(ctx, "/history", order, &lines)
		},
		Calm: d.calm,
	})
	return d
}

func (d *Desk) remote(name string) service.Remote { return d.cfg.Services.Remote(name) }

// How often the services are asked, and the books are checked.
const (
	lookEvery  = 500 * time.Millisecond
	checkEvery = time.Second
)

// Run watches until ctx is over.
func (d *Desk) Run(ctx context.Context) {
	var group errgroup.Group
	every := func(d time.Duration, do func(context.Context)) {
		group.Go(func() error {
			tick := time.NewTicker(d)
			defer tick.Stop()
			for {
				do(ctx)
				select {
				case <-ctx.Done():
					return nil
				case <-tick.C:
				}
			}
		})
	}
	every(lookEvery, d.look)
	every(checkEvery, d.checkBooks)
	_ = group.Wait() // they have no errors
}

// checkBooks makes one round. When a service does not answer, the next one goes on where this one ended.
func (d *Desk) checkBooks(ctx context.Context) {
	_ = d.checker.Round(ctx)
	s := d.checker.State()
	d.mu.Lock()
	before := d.books.Violations
	d.books = s
	d.mu.Unlock()
	for _, fault := range s.Faults[max(0, len(s.Faults)-(s.Violations-before)):] {
		d.feed.Bad("the books do not balance: %s", fault)
	}
}

// Books returns what the checker has found.
func (d *Desk) Books() books.State {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.books
}

// calm returns for how long nothing has been out of order.
func (d *Desk) calm() time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	return time.Since(d.trouble)
}

// look asks all services how they stand.
func (d *Desk) look(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	var group errgroup.Group
	var mu sync.Mutex
	next := view{reports: map[string]service.Report{}}
	for _, name := range d.cfg.Services.Names() {
		group.Go(func() error {
			var r service.Report
			if d.remote(name).Get(ctx, d.since(name), &r) == nil {
				mu.Lock()
				defer mu.Unlock()
				next.reports[name] = r
			}
			return nil
		})
	}
	group.Go(func() error { return d.remote("orders").Get(ctx, "/outbox", &next.outbox) })
	group.Go(func() error { return d.remote("orders").Get(ctx, "/timelines", &next.timelines) })
	group.Go(func() error { return d.remote("notifications").Get(ctx, "/stats", &next.mail) })
	err := group.Wait()

	d.mu.Lock()
	defer d.mu.Unlock()
	if err != nil { // a service is away: the last that was known of the rest
		if next.timelines == nil {
			next.outbox, next.timelines = d.view.outbox, d.view.timelines
		}
		next.mail = d.view.mail
	}
	d.view = next
	now := time.Now().Unix()
	d.outbox[now%history] = outboxAt{now, next.outbox.Oldest, next.outbox.Depth}
	d.relayOff = next.outbox.Paused
	d.collect()
	disturbed := err != nil || !d.cfg.Broker.Up() || next.outbox.Paused
	for _, name := range d.cfg.Services.Names() {
		r, ok := next.reports[name]
		disturbed = disturbed || !ok || r.Faults.Any()
	}
	if disturbed {
		d.trouble = time.Now()
	}
}

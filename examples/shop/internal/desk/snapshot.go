package desk

import (
	"context"
	"fmt"
	"time"

	"github.com/backstay-go/backstay/examples/shop/internal/books"
	"github.com/backstay-go/backstay/examples/shop/internal/drill"
	"github.com/backstay-go/backstay/examples/shop/internal/link"
	"github.com/backstay-go/backstay/examples/shop/internal/orders"
	"github.com/backstay-go/backstay/examples/shop/internal/page"
	"github.com/backstay-go/backstay/examples/shop/internal/service"
)

type note = service.Note

// Snapshot returns what the page shows.
func (d *Desk) Snapshot() page.Snapshot {
	points := d.cfg.Load.Points()
	status := d.cfg.Services.Status()
	up := d.cfg.Broker.Up()
	d.mu.Lock()
	defer d.mu.Unlock()
	s := page.Snapshot{
		At: time.Now(), Uptime: time.Since(d.began), Seed: d.cfg.Seed, Database: d.cfg.Database, Processes: d.cfg.Processes, Protection: d.protected,
		Load: d.cfg.Load.Rate(), Books: d.bookkeeping(),
		Outbox: page.Outbox{
			Oldest: d.view.outbox.Oldest, Depth: d.view.outbox.Depth, Stored: int(d.books.Totals.Stored),
			Published:  int(d.books.Totals.Stored-d.books.Totals.Parked) - d.view.outbox.Depth,
			Handled:    int(d.books.Totals.Stored - d.books.Totals.Parked - d.books.OnTheirWay),
			Duplicates: int(d.view.mail.Duplicates), Parked: int(d.books.Totals.Parked), BrokerUp: up, Paused: d.view.outbox.Paused,
		},
	}
	for _, p := range points {
		o := d.outbox[p.At.Unix()%history]
		shown := page.Point{At: p.At, Offered: p.Offered, Good: p.Good, Failed: p.Failed, P50: p.P50, P99: p.P99}
		if o.second == p.At.Unix() {
			shown.OutboxAge, shown.OutboxDepth = o.age, o.depth
		}
		s.Traffic = append(s.Traffic, shown)
	}
	for _, name := range []string{"gateway", "orders", "payments", "inventory", "shipping", "notifications"} {
		for _, l := range d.view.reports[name].Links {
			s.Edges = append(s.Edges, edge(l))
		}
	}
	s.Edges = append(s.Edges, d.events(up))
	for _, st := range status {
		s.Services = append(s.Services, d.service(st.Name, st.Address, st.PID, st.Restarts, st.Process, s.Edges))
	}
	for _, t := range d.view.timelines {
		s.Orders = append(s.Orders, order(t))
	}
	for _, state := range []string{books.Open, books.Confirmed, books.Cancelled, books.Returning, books.Returned} {
		if n := d.books.Totals.ByState[state]; n > 0 {
			s.States = append(s.States, page.Count{Name: state, N: int(n)})
		}
	}
	for _, p := range drill.Presets() {
		shown := page.Preset{Name: p.Name, Title: p.Title, Watch: p.Watch, Active: d.active[p.Name]}
		if p.Killer && !d.cfg.Processes {
			shown.Off, shown.Why = true, "start the shop with -processes: then each service is a process that can be killed"
		}
		s.Presets = append(s.Presets, shown)
	}
	for _, n := range d.notes {
		s.Events = append(s.Events, page.Event{At: n.At, Service: n.Service, Level: n.Level, Text: n.Text})
	}
	return s
}

// bookkeeping is the state of the books; with mu held.
func (d *Desk) bookkeeping() page.Books {
	b := page.Books{Balanced: d.books.Balanced, Violations: d.books.Violations, Passed: d.books.Passed, At: d.books.At}
	for _, c := range d.books.Checks {
		b.Checks = append(b.Checks, page.Check(c))
	}
	return b
}

// slow is a response time that a customer would not put up with.
const slow = 1500 * time.Millisecond

// edge judges a link by what was seen on it.
func edge(l link.Reading) page.Edge {
	e := page.Edge{
		From: l.From, To: l.To, Health: page.OK, Why: l.Why, Calls: l.Calls, Attempts: l.Attempts, Failures: l.Failures, P99: l.P99,
		Breaker: l.Breaker, InFlight: l.InFlight, Limit: l.Limit,
	}
	switch {
	case l.Breaker == "open":
		e.Health, e.Why = page.Down, "breaker open: "+l.Why
	case l.Breaker == "half-open":
		e.Health, e.Why = page.Degraded, "breaker half-open: trying whether it is over ("+l.Why+")"
	case l.Failures > 0.5:
		e.Health, e.Why = page.Down, fmt.Sprintf("%.0f %% of the calls fail", 100*l.Failures)
	case l.Failures > 0.05:
		e.Health, e.Why = page.Degraded, fmt.Sprintf("%.0f %% of the calls fail", 100*l.Failures)
	case l.P99 > slow:
		e.Health, e.Why = page.Degraded, fmt.Sprintf("one call in a hundred takes more than %.1f s", l.P99.Seconds())
	case l.Attempts > 1.2:
		e.Health, e.Why = page.Degraded, fmt.Sprintf("%.2f attempts for each call", l.Attempts)
	}
	return e
}

// behind is an age of the outbox that is out of the ordinary.
const behind = 3 * time.Second

// events is the way from orders to notifications, by the broker; with mu held.
func (d *Desk) events(up bool) page.Edge {
	e := page.Edge{From: "orders", To: "notifications", Health: page.OK, Attempts: 1}
	o := d.view.outbox
	switch {
	case !up:
		e.Health, e.Why = page.Down, fmt.Sprintf("the broker is down: %d events wait in the outbox", o.Depth)
	case o.Paused:
		e.Health, e.Why = page.Degraded, fmt.Sprintf("the relay is paused: %d events wait in the outbox", o.Depth)
	case o.Oldest > behind:
		e.Health, e.Why = page.Degraded, fmt.Sprintf("the oldest event waits for %.0f s", o.Oldest.Seconds())
	case d.books.OnTheirWay > 200:
		e.Health, e.Why = page.Degraded, fmt.Sprintf("%d events are on their way", d.books.OnTheirWay)
	}
	return e
}

// service judges a service by the links to it; with mu held.
func (d *Desk) service(name, address string, pid, restarts int, process bool, edges []page.Edge) page.Service {
	s := page.Service{Name: name, Protocol: "HTTP", Address: address, PID: pid, Health: page.OK, CanKill: process, Spared: name == "gateway", Restarts: restarts}
	if name == "payments" || name == "inventory" {
		s.Protocol = "gRPC"
	}
	r, answers := d.view.reports[name]
	s.Chaos = page.Chaos(r.Faults)
	if !answers {
		s.Health, s.Why = page.Down, "the process does not answer; it is started again when it is gone"
		return s
	}
	for _, e := range edges {
		if e.To == name && e.Health != page.OK && s.Health != page.Down {
			s.Health, s.Why = e.Health, e.From+": "+e.Why
		}
	}
	return s
}

// findIn bounds the search for one order.
const findIn = 3 * time.Second

// Order finds one order, old ones as well.
func (d *Desk) Order(id string) (page.Order, bool) {
	ctx, cancel := context.WithTimeout(context.Background(), findIn)
	defer cancel()
	var t orders.Timeline
	if err := d.remote("orders").Ask(ctx, "/timeline", id, &t); err != nil {
		return page.Order{}, false
	}
	return order(t), true
}

// order is an order as the page shows it.
func order(t orders.Timeline) page.Order {
	o := page.Order{ID: t.Order, What: t.What, Total: t.Total, State: t.State, Saga: t.Saga, Started: t.Started, Ended: t.Ended}
	if t.Parked {
		o.State = "needs a human"
	}
	for _, s := range t.Steps {
		o.Steps = append(o.Steps, page.Step(s))
	}
	return o
}

package page_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/backstay-go/backstay/examples/shop/internal/page"
)

// fake is a shop that is only simulated, second by second, from a seed: it goes through every state that the page can show.
type fake struct {
	mu     sync.Mutex // guards all below
	random *rand.Rand
	began  time.Time
	at     time.Time
	s      page.Snapshot
	preset string
	number int
	open   int // seconds that the payments breaker has been open
	orders []page.Order
	counts map[string]int
	asked  []string // what Actions was asked for
}

var fakePresets = []page.Preset{
	{Name: "payments-brown-out", Title: "Payments brown-out", Watch: "Attempts a call rise and stop at the budget; the breaker opens and says why; orders are accepted with the payment pending, and no answer hangs."},
	{Name: "retry-storm", Title: "Retry storm", Watch: "With protection on the calls to inventory stay near 1.1 a call; switch it off and they triple."},
	{Name: "reply-lost", Title: "Reply lost after the effect", Watch: "A charge happens and its answer is lost. The saga asks again with the same key, and nobody pays twice: money stays equal."},
	{Name: "poison-event", Title: "Poison event", Watch: "One event cannot be handled. It is parked after its attempts, and the events of other orders go on."},
	{Name: "broker-down", Title: "Broker down", Watch: "The oldest event's age rises by a second a second while orders still succeed; when the broker is back it drains in order."},
	{Name: "slow-shipping", Title: "Slow shipping", Watch: "Shipping answers 429 and late. It stands after the pivot, so orders wait and are finished, never undone."},
	{Name: "kill-orders", Title: "kill −9 orders", Watch: "The process is gone at once and started again. Its sagas resume where the log says they were.", Off: true, Why: "needs a process for each service: start with -processes"},
}

func newFake(at time.Time, seed uint64) *fake {
	f := &fake{random: rand.New(rand.NewPCG(seed, 1)), began: at, at: at, counts: map[string]int{}}
	f.s = page.Snapshot{Seed: seed, Database: "SQLite", Protection: true, Load: 12, Presets: slices.Clone(fakePresets)}
	for i, name := range []string{"gateway", "orders", "payments", "inventory", "shipping", "notifications"} {
		protocol := "HTTP"
		if name == "payments" || name == "inventory" {
			protocol = "gRPC"
		}
		f.s.Services = append(f.s.Services, page.Service{Name: name, Protocol: protocol, Address: fmt.Sprintf("127.0.0.1:%d", 40101+i), PID: 4711, Health: page.OK, Spared: i == 0})
	}
	f.s.Outbox.BrokerUp = true
	f.event("gateway", "info", "the shop is open")
	return f
}

func (f *fake) event(service, level, text string) {
	f.s.Events = slices.Insert(f.s.Events, 0, page.Event{At: f.at, Service: service, Level: level, Text: text})
	f.s.Events = f.s.Events[:min(len(f.s.Events), 100)]
}

// advance simulates the seconds until then.
func (f *fake) advance(then time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for !f.at.Add(time.Second).After(then) {
		f.at = f.at.Add(time.Second)
		f.second()
	}
}

func (f *fake) chaos(service string) page.Chaos {
	for _, s := range f.s.Services {
		if s.Name == service {
			return s.Chaos
		}
	}
	return page.Chaos{}
}

func (f *fake) second() {
	wobble := func(x, by float64) float64 { return x * (1 + by*(f.random.Float64()*2-1)) }
	pay := f.chaos("payments")
	sick := pay.Down || pay.Hang || pay.Flap || pay.Errors > 0.2
	offered := int(math.Round(wobble(f.s.Load, 0.15)))
	failing := 0.0
	p50, p99 := wobble(38, 0.1), wobble(140, 0.3)
	breaker, why := "closed", ""
	switch {
	case sick && f.s.Protection:
		f.open++
		failing = 0.01
		breaker, why = "open", fmt.Sprintf("%d of the last 24 calls failed (%.0f %%, threshold 50 %%); tried again in %d ms", 13+f.random.IntN(6), 50+f.random.Float64()*30, 200+f.random.IntN(2500))
		if f.open == 1 {
			breaker, why = "closed", ""
			p99 *= 3
		}
		if f.open == 2 {
			f.event("orders", "warn", "breaker payments opened: 14 of the last 24 calls failed")
		}
		if f.open%7 == 6 {
			breaker, why = "half-open", "3 trial calls; one failure opens it again"
		}
		p50 *= 1.1
	case sick:
		failing = 0.55
		p50, p99 = wobble(2300, 0.3), wobble(9000, 0.2)
	default:
		if f.open > 0 {
			f.event("orders", "info", "breaker payments closed after 3 good trials")
		}
		f.open = 0
	}
	failed := min(int(math.Round(float64(offered)*failing)), offered)
	point := page.Point{At: f.at, Offered: offered, Good: offered - failed, Failed: failed, P50: time.Duration(p50 * 1e6), P99: time.Duration(p99 * 1e6)}
	for range offered {
		f.order(sick)
	}
	f.outbox(offered)
	point.OutboxAge, point.OutboxDepth = f.s.Outbox.Oldest, f.s.Outbox.Depth
	f.s.Traffic = append(f.s.Traffic, point)
	f.s.Traffic = f.s.Traffic[max(0, len(f.s.Traffic)-120):]
	f.edges(sick, breaker, why)
	f.health(sick)
}

func (f *fake) outbox(offered int) {
	b := &f.s.Outbox
	b.Stored += offered
	if b.BrokerUp && !b.Paused {
		sent := min(b.Depth+offered, 90)
		b.Published += sent
		b.Handled = b.Published - b.Parked
		b.Depth += offered - sent
		if b.Oldest -= 6 * time.Second; b.Depth == 0 {
			b.Oldest = time.Duration(f.random.IntN(30)) * time.Millisecond
		}
		b.Oldest = max(b.Oldest, 0)
		return
	}
	b.Depth += offered
	b.Oldest += time.Second
	b.Duplicates += f.random.IntN(2)
}

func (f *fake) edges(sick bool, breaker, why string) {
	load := f.s.Load
	edge := func(from, to string, calls, attempts float64, p99 time.Duration) page.Edge {
		return page.Edge{From: from, To: to, Health: page.OK, Calls: calls * (0.95 + f.random.Float64()/10), Attempts: attempts, P99: p99, Breaker: "closed", InFlight: 1 + f.random.IntN(4), Limit: 24}
	}
	f.s.Edges = []page.Edge{
		edge("gateway", "orders", load, 1, 60*time.Millisecond),
		edge("orders", "inventory", 2*load, 1.01, 12*time.Millisecond),
		edge("orders", "payments", 2*load, 1.02, 31*time.Millisecond),
		edge("orders", "shipping", load, 1.06, 410*time.Millisecond),
		{From: "orders", To: "notifications", Health: page.OK, Attempts: 1},
	}
	if e := &f.s.Edges[2]; sick {
		e.Health, e.Failures, e.Attempts, e.Breaker, e.Why = page.Degraded, 0.62, 1.09, breaker, why
		if !f.s.Protection {
			e.Failures, e.Attempts, e.Breaker, e.Why, e.P99, e.InFlight, e.Limit = 0.71, 2.94, "", "", 9*time.Second, 180, 0
			f.s.Edges[0].Health, f.s.Edges[0].P99, f.s.Edges[0].Failures = page.Degraded, 11*time.Second, 0.5
		}
		if breaker == "open" {
			e.Health = page.Down
		}
	}
}

func (f *fake) health(sick bool) {
	for i := range f.s.Services {
		s := &f.s.Services[i]
		s.Health, s.Why = page.OK, ""
		switch {
		case s.Chaos.Down:
			s.Health, s.Why = page.Down, "refuses connections"
		case s.Chaos.Hang:
			s.Health, s.Why = page.Down, "answers nothing"
		case s.Chaos != page.Chaos{}:
			s.Health, s.Why = page.Degraded, "answers wrong or late"
		case sick && !f.s.Protection && (s.Name == "orders" || s.Name == "gateway"):
			s.Health, s.Why = page.Degraded, "180 calls wait for payments"
		}
	}
}

// order makes an order with a history.
func (f *fake) order(sick bool) {
	f.number++
	goods := []string{"anchor", "shackle", "winch handle", "rope, 20 m", "chart of the Baltic"}
	n := 1 + f.random.IntN(3)
	o := page.Order{
		ID: fmt.Sprintf("o-%05d", f.number), What: fmt.Sprintf("%d × %s", n, goods[f.random.IntN(len(goods))]), Total: fmt.Sprintf("%d.00 €", n*21),
		State: "confirmed", Saga: "done", Started: f.at.Add(time.Duration(f.random.IntN(999)) * time.Millisecond),
	}
	at := o.Started
	step := func(name, state string, took time.Duration, attempts int, fault string) *page.Step {
		o.Steps = append(o.Steps, page.Step{Name: name, State: state, Started: at, Ended: at.Add(took), Attempts: attempts, Error: fault})
		at = at.Add(took + 2*time.Millisecond)
		return &o.Steps[len(o.Steps)-1]
	}
	ms := func(x int) time.Duration {
		return time.Duration(x+f.random.IntN(x+1)) * time.Millisecond / time.Duration(1)
	}
	step("reserve stock", "done", ms(6), 1, "")
	switch dice := f.random.Float64(); {
	case sick && dice < 0.5:
		s := step("authorise payment", "waiting", ms(400), 3, `breaker "payments": open, retry in 1.8s`)
		s.Ended = time.Time{}
		o.State, o.Saga = "open", "running"
	case dice < 0.06:
		step("authorise payment", "failed", ms(12), 1, "card declined")
		step("reserve stock", "done", ms(7), 1, "").Undo = true
		o.State, o.Saga, o.Ended = "cancelled", "compensated", at
	case dice < 0.0625:
		step("authorise payment", "done", ms(12), 1, "")
		step("capture payment", "in doubt", ms(2000), 4, "no answer within 2 s; the charge may have happened").Pivot = true
		o.State, o.Saga = "needs a human", "parked"
	default:
		step("authorise payment", "done", ms(11), 1, "")
		step("capture payment", "done", ms(9), 1, "").Pivot = true
		attempts, took := 1, ms(20)
		if f.random.IntN(8) == 0 {
			attempts, took = 2, ms(260)
		}
		step("book shipment", "done", took, attempts, "")
		step("confirm", "done", ms(2), 1, "")
		o.Ended = at
	}
	f.counts[o.State]++
	f.orders = append(f.orders, o)
	f.orders = f.orders[max(0, len(f.orders)-400):]
	if !sick { // what waited is done
		for i := range f.orders {
			if p := &f.orders[i]; p.State == "open" && f.random.IntN(4) == 0 {
				p.State, p.Saga, p.Ended = "confirmed", "done", f.at
				p.Steps[len(p.Steps)-1].State, p.Steps[len(p.Steps)-1].Ended = "done", f.at
				f.counts["open"]--
				f.counts["confirmed"]++
			}
		}
	}
}

// Snapshot returns the state after the last simulated second.
func (f *fake) Snapshot() page.Snapshot {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.s
	s.At, s.Uptime = f.at, f.at.Sub(f.began)
	s.Traffic, s.Services, s.Edges, s.Events, s.Presets = slices.Clone(s.Traffic), slices.Clone(s.Services), slices.Clone(s.Edges), slices.Clone(s.Events), slices.Clone(s.Presets)
	for i := range s.Presets {
		s.Presets[i].Active = s.Presets[i].Name == f.preset
	}
	picked := func(want func(page.Order) bool, n int) {
		for i := len(f.orders) - 1; i >= 0 && n > 0; i-- {
			if o := f.orders[i]; want(o) && !slices.ContainsFunc(s.Orders, func(p page.Order) bool { return p.ID == o.ID }) {
				s.Orders = append(s.Orders, o)
				n--
			}
		}
	}
	picked(func(o page.Order) bool { return o.State == "open" }, 15)
	picked(func(o page.Order) bool { return o.State == "cancelled" || o.State == "needs a human" }, 10)
	picked(func(page.Order) bool { return true }, 50-len(s.Orders))
	slices.SortFunc(s.Orders, func(a, b page.Order) int { return b.Started.Compare(a.Started) })
	for _, state := range []string{"open", "confirmed", "cancelled", "needs a human"} {
		s.States = append(s.States, page.Count{Name: state, N: f.counts[state]})
	}
	confirmed := f.counts["confirmed"]
	s.Books = page.Books{
		Balanced: true, Passed: len(s.Traffic), At: f.at,
		Checks: []page.Check{
			{Name: "stock", Left: fmt.Sprintf("in stock %d + reserved %d + shipped %d", 90000-confirmed-f.counts["open"], f.counts["open"], confirmed), Right: "initial 90000", OK: true, Note: "7 items"},
			{Name: "money", Left: fmt.Sprintf("captured %d.00 € − refunded 0.00 €", confirmed*42), Right: fmt.Sprintf("confirmed orders %d.00 €", confirmed*42), OK: true, Note: "no card charged twice"},
			{Name: "orders", Left: fmt.Sprintf("placed %d", f.number), Right: fmt.Sprintf("ended %d + in an open saga %d", f.number-f.counts["open"], f.counts["open"]), OK: true},
			{Name: "events", Left: fmt.Sprintf("stored %d", s.Outbox.Stored), Right: fmt.Sprintf("published %d + waiting %d", s.Outbox.Published, s.Outbox.Depth), OK: true},
		},
	}
	return s
}

// Order finds one order.
func (f *fake) Order(id string) (page.Order, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, o := range f.orders {
		if o.ID == id {
			return o, true
		}
	}
	return page.Order{}, false
}

// Preset implements page.Actions.
func (f *fake) Preset(_ context.Context, name string, on bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, fmt.Sprintf("preset %q %t", name, on))
	for i := range f.s.Services {
		f.s.Services[i].Chaos = page.Chaos{}
	}
	f.preset, f.s.Outbox.BrokerUp, f.s.Outbox.Paused = "", true, false
	if name == "" {
		f.s.Protection = true
	}
	if !on {
		return nil
	}
	if !slices.ContainsFunc(f.s.Presets, func(p page.Preset) bool { return p.Name == name && !p.Off }) {
		return fmt.Errorf("there is no preset %q that can be used now", name)
	}
	f.preset = name
	switch name {
	case "payments-brown-out":
		f.s.Services[2].Chaos = page.Chaos{Errors: 0.6, Latency: 200 * time.Millisecond}
	case "retry-storm":
		f.s.Services[3].Chaos = page.Chaos{Errors: 0.3}
	case "reply-lost":
		f.s.Services[2].Chaos = page.Chaos{LoseReply: 0.1}
	case "poison-event":
		f.s.Outbox.Parked++
		f.event("notifications", "bad", "event o-00012 parked after 5 attempts: unknown currency")
	case "broker-down":
		f.s.Outbox.BrokerUp = false
	case "slow-shipping":
		f.s.Services[4].Chaos = page.Chaos{Latency: 2 * time.Second}
	}
	f.event("gateway", "warn", "preset "+name+" on")
	return nil
}

// Chaos implements page.Actions.
func (f *fake) Chaos(_ context.Context, service string, chaos page.Chaos) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, fmt.Sprintf("chaos %s %+v", service, chaos))
	for i := range f.s.Services {
		if f.s.Services[i].Name == service {
			f.s.Services[i].Chaos = chaos
			f.health(false)
			return nil
		}
	}
	return errors.New("there is no such service")
}

// Set implements page.Actions.
func (f *fake) Set(_ context.Context, what, value string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, "set "+what+" "+value)
	on := value == "on"
	switch what {
	case "protection":
		f.s.Protection = on
		f.event("gateway", "warn", "protection "+value)
	case "broker":
		f.s.Outbox.BrokerUp = on
	case "relay":
		f.s.Outbox.Paused = !on
	case "load":
		f.s.Load, _ = strconv.ParseFloat(value, 64)
	}
	return nil
}

// Kill implements page.Actions.
func (f *fake) Kill(_ context.Context, service string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, "kill "+service)
	return errors.New("start with -processes to kill a service")
}

// did returns what was asked for so far.
func (f *fake) did() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.Join(f.asked, "; ")
}

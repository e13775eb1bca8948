package books

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// Services is what a checker asks.
type Services struct {
	Totals    func(ctx context.Context) (Totals, error)
	Closings  func(ctx context.Context, after int64, limit int) ([]Closing, error) // in the order of their numbers
	Movements func(ctx context.Context, service string, orders []string) (Movements, error)
	Sums      func(ctx context.Context, service string) (Sums, error)
	Shelf     func(ctx context.Context) (Shelf, error)
	// Log returns, in lines, what the sagas of an order have done.
	Log func(ctx context.Context, order string) ([]string, error)
	// Calm returns for how long nothing has kept events from flowing: neither broker nor relay nor a service was out of order.
	Calm func() time.Duration
}

// State is what the checker has found so far.
type State struct {
	Balanced   bool // no violation since the start
	Checks     []Check
	Violations int
	Passed     int // rounds that found nothing
	At         time.Time
	Compared   int64 // closings that were compared
	Told       int64 // closings whose events were all handled
	Totals     Totals
	OnTheirWay int64    // events that are stored and not handled
	Faults     []string // the newest violations in words, at most keepFaults
	Logs       []Log    // of the first orders with a violation, at most keepFaults
}

// Check is one equation.
type Check struct {
	Name, Left, Right string
	OK                bool
	Note              string
}

// Log is what the sagas of an order have done.
type Log struct {
	Order string
	Lines []string
}

const (
	keepFaults = 20
	batch      = 250              // closings compared at a time
	batches    = 8                // of them in a round
	lostAfter  = 60 * time.Second // of calm, an event that was not handled is lost
)

// Checker looks at the books. It keeps sums and two numbers, so it needs no more memory the longer the shop runs. It is for one goroutine.
type Checker struct {
	ask   Services
	state State

	captured, refunded int64 // cents, by the evidence, of the closings compared
	sold, takenBack    int64 // cents, by the orders

	waitsFor int64     // number of the closing whose events are awaited
	since    time.Time // since when
	seen     map[string]bool
}

// NewChecker returns a checker that begins with the first order.
func NewChecker(ask Services) *Checker {
	return &Checker{ask: ask, state: State{Balanced: true}, seen: map[string]bool{}}
}

// State returns what has been found.
func (c *Checker) State() State { return c.state }

// Round looks once at everything that is new. An error says that a service did not answer: what was not looked at will be in the next round.
func (c *Checker) Round(ctx context.Context) error {
	violations := c.state.Violations
	// Events first: what is handled was stored before.
	sent, err := c.ask.Sums(ctx, "notifications")
	if err != nil {
		return err
	}
	totals, err := c.ask.Totals(ctx)
	if err != nil {
		return err
	}
	shelf, err := c.ask.Shelf(ctx)
	if err != nil {
		return err
	}
	if err := c.compare(ctx); err != nil {
		return err
	}
	if err := c.told(ctx); err != nil {
		return err
	}
	if totals.Open == 0 {
		if err := c.still(ctx, totals); err != nil {
			return err
		}
	}
	for _, o := range totals.Orphans {
		c.violation(fmt.Sprintf("order %s is open, its saga is not", o))
		c.keepLog(ctx, o)
	}
	c.conclude(sent, totals, shelf)
	if c.state.Violations == violations {
		c.state.Passed++
	}
	c.state.At = time.Now()
	return nil
}

// compare looks at the closings since the last round.
func (c *Checker) compare(ctx context.Context) error {
	for range batches {
		closings, err := c.ask.Closings(ctx, c.state.Compared, batch)
		if err != nil || len(closings) == 0 {
			return err
		}
		names := Names(closings)
		var by [3]Movements
		for i, service := range []string{"payments", "inventory", "shipping"} {
			if by[i], err = c.ask.Movements(ctx, service, names); err != nil {
				return err
			}
		}
		for _, cl := range closings {
			if cl.No != c.state.Compared+1 {
				c.violation(fmt.Sprintf("closing %d follows closing %d", cl.No, c.state.Compared))
			}
			c.state.Compared = cl.No
			e := Evidence{by[0][cl.Order], by[1][cl.Order], by[2][cl.Order]}
			for _, fault := range Verify(cl, e) {
				c.violation(fault)
				c.keepLog(ctx, cl.Order)
			}
			switch cl.State {
			case Confirmed:
				c.sold += cl.Cents
				c.captured += e.Payments["capture"].Sum
			case Returned:
				c.takenBack += cl.Cents
				c.refunded += e.Payments["refund"].Sum
			case Cancelled:
				c.captured += e.Payments["capture"].Sum // 0, if all is well
			}
		}
	}
	return nil
}

// told follows the closings whose events were handled, as far as they all were.
func (c *Checker) told(ctx context.Context) error {
	closings, err := c.ask.Closings(ctx, c.state.Told, batch)
	if err != nil || len(closings) == 0 {
		return err
	}
	sent, err := c.ask.Movements(ctx, "notifications", Names(closings))
	if err != nil {
		return err
	}
	for _, cl := range closings {
		missing, twice := Told(cl, sent[cl.Order])
		for _, fault := range twice {
			c.violation(fault)
			c.keepLog(ctx, cl.Order)
		}
		if len(missing) == 0 {
			c.state.Told = cl.No
			continue
		}
		if c.waitsFor != cl.No {
			c.waitsFor, c.since = cl.No, time.Now()
		} else if time.Since(c.since) > lostAfter && c.ask.Calm() > lostAfter {
			c.violation(fmt.Sprintf("order %s: event %q is lost", cl.Order, missing[0]))
			c.keepLog(ctx, cl.Order)
		}
		break
	}
	return nil
}

// still compares everything with everything, if nothing has been under way since before.
func (c *Checker) still(ctx context.Context, before Totals) error {
	var sums [3]Sums
	var err error
	for i, service := range []string{"payments", "inventory", "shipping"} {
		if sums[i], err = c.ask.Sums(ctx, service); err != nil {
			return err
		}
	}
	after, err := c.ask.Totals(ctx)
	if err != nil || !before.Still(after) {
		return err
	}
	for _, fault := range VerifyStill(before, sums[0], sums[1], sums[2]) {
		c.violation(fault)
	}
	return nil
}

// violation counts a fault; the same one again is the same one.
func (c *Checker) violation(text string) {
	if c.seen[text] {
		return
	}
	if len(c.seen) < 10*keepFaults {
		c.seen[text] = true
	}
	c.state.Balanced = false
	c.state.Violations++
	c.state.Faults = append(c.state.Faults, text)
	if len(c.state.Faults) > keepFaults {
		c.state.Faults = c.state.Faults[1:]
	}
}

// keepLog asks for the log of an order with a violation, while it is there to be had.
func (c *Checker) keepLog(ctx context.Context, order string) {
	if len(c.state.Logs) >= keepFaults || slices.ContainsFunc(c.state.Logs, func(l Log) bool { return l.Order == order }) {
		return
	}
	lines, err := c.ask.Log(ctx, order)
	if err != nil {
		lines = []string{"the log is not to be had: " + err.Error()}
	}
	c.state.Logs = append(c.state.Logs, Log{order, lines})
}

// conclude makes the equations that the page shows.
func (c *Checker) conclude(sent Sums, t Totals, shelf Shelf) {
	var handled int64
	for _, s := range sent {
		handled += s.N
	}
	onTheirWay := t.Stored - handled - t.Parked
	if onTheirWay < 0 {
		c.violation(fmt.Sprintf("%d events are handled and %d parked, but %d were stored", handled, t.Parked, t.Stored))
	}
	if !shelf.Balanced() {
		c.violation(fmt.Sprintf("stock: %+v", shelf))
	}
	if c.captured-c.refunded != c.sold-c.takenBack {
		c.violation(fmt.Sprintf("money: captured less refunded is off by %s", Money(c.captured-c.refunded-c.sold+c.takenBack)))
	}
	var orders int64
	for _, n := range t.ByState {
		orders += n
	}
	c.state.Totals, c.state.OnTheirWay = t, onTheirWay
	c.state.Checks = []Check{
		{
			Name: "stock", OK: shelf.Balanced(),
			Left:  fmt.Sprintf("in stock %d + reserved %d + shipped %d", shelf.OnHand, shelf.Reserved, shelf.Shipped),
			Right: fmt.Sprintf("at first %d", shelf.AtFirst),
		},
		{
			Name: "money", OK: c.captured-c.refunded == c.sold-c.takenBack,
			Left:  fmt.Sprintf("captured %s − refunded %s", Money(c.captured), Money(c.refunded)),
			Right: fmt.Sprintf("confirmed %s − returned %s", Money(c.sold), Money(c.takenBack)),
			Note:  fmt.Sprintf("%d closed orders compared, movement by movement; %d to go", c.state.Compared, t.Closings-min(c.state.Compared, t.Closings)),
		},
		{
			Name: "orders", OK: len(t.Orphans) == 0,
			Left:  fmt.Sprintf("placed %d", orders),
			Right: fmt.Sprintf("closed %d + in an open saga %d", orders-t.Open, t.Open),
		},
		{
			Name: "events", OK: onTheirWay >= 0,
			Left:  fmt.Sprintf("stored %d", t.Stored),
			Right: fmt.Sprintf("handled once %d + on their way %d + dead letters %d", handled, onTheirWay, t.Parked),
		},
	}
}

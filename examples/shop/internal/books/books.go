// Package books checks that the shop's books balance: that nothing was sold, charged, shipped or told twice or halfway, whatever broke.
//
// The services have databases of their own, so there is no one moment at which all of them could be looked at. But an order that has closed is final: its saga
// has ended, and package guard refuses whatever of it comes late. So each closing is compared, once, movement by movement with what payments, inventory
// and shipping wrote down for that order, and the sums that the page shows are those of the orders compared. What is not closed is counted, and compared later.
package books

import (
	"fmt"
	"maps"
	"slices"
)

// The states of an order.
const (
	Open      = "open"
	Confirmed = "confirmed"
	Cancelled = "cancelled"
	Returning = "returning" // confirmed, and on its way back
	Returned  = "returned"
)

// Closing is the end of an order, or of its return. They are numbered from 1 without gaps, in the order of their commits.
type Closing struct {
	No       int64  `json:"no"`
	Order    string `json:"order"`
	State    string `json:"state"` // Confirmed, Cancelled or Returned
	SKU      string `json:"sku"`
	Quantity int64  `json:"quantity"`
	Cents    int64  `json:"cents"`
}

// Sum is what movements of one kind come to.
type Sum struct {
	N   int64 `json:"n"`
	Sum int64 `json:"sum"` // cents, pieces
}

// Sums are movements by kind.
type Sums map[string]Sum

// Movements are what a service has written down, by order.
type Movements map[string]Sums

// Evidence is what the services have written down for one order.
type Evidence struct{ Payments, Inventory, Shipping Sums }

// Verify compares a closing with the evidence and returns what is wrong, in words.
func Verify(c Closing, e Evidence) (faults []string) {
	want := func(service string, got Sums, kind string, n, sum int64) {
		if g := got[kind]; g.N != n || g.Sum != sum {
			faults = append(faults, fmt.Sprintf("order %s %s: %s has %q %d times for %d in all, want %d times for %d", c.Order, c.State, service, kind, g.N, g.Sum, n, sum))
		}
	}
	switch c.State {
	case Confirmed, Returned:
		want("payments", e.Payments, "authorise", 1, c.Cents)
		want("payments", e.Payments, "capture", 1, c.Cents)
		want("payments", e.Payments, "void", 0, 0)
		want("inventory", e.Inventory, "reserve", 1, c.Quantity)
		want("inventory", e.Inventory, "release", 0, 0)
		want("inventory", e.Inventory, "ship", 1, c.Quantity)
		want("shipping", e.Shipping, "book", 1, c.Quantity)
		if c.State == Returned { // of a confirmed order they may be under way
			want("payments", e.Payments, "refund", 1, c.Cents)
			want("inventory", e.Inventory, "restock", 1, c.Quantity)
		}
	case Cancelled: // each step that was made was undone, none past the pivot was made
		a, r := e.Payments["authorise"], e.Inventory["reserve"]
		if a.N > 1 || r.N > 1 {
			faults = append(faults, fmt.Sprintf("order %s: %d authorisations and %d reservations, want at most one", c.Order, a.N, r.N))
		}
		want("payments", e.Payments, "void", a.N, a.Sum)
		want("payments", e.Payments, "capture", 0, 0)
		want("payments", e.Payments, "refund", 0, 0)
		want("inventory", e.Inventory, "release", r.N, r.Sum)
		want("inventory", e.Inventory, "ship", 0, 0)
		want("inventory", e.Inventory, "restock", 0, 0)
		want("shipping", e.Shipping, "book", 0, 0)
	default:
		faults = append(faults, fmt.Sprintf("order %s closed as %q", c.Order, c.State))
	}
	return faults
}

// Told returns how often the events of a closing were handled, by kind; each is to be handled once, in the end.
func Told(c Closing, sent Sums) (missing, twice []string) {
	for _, kind := range []string{"placed", c.State} {
		switch n := sent[kind].N; {
		case n == 0:
			missing = append(missing, kind)
		case n > 1:
			twice = append(twice, fmt.Sprintf("order %s: event %q handled %d times", c.Order, kind, n))
		}
	}
	return missing, twice
}

// Money shows cents.
func Money(cents int64) string {
	sign := ""
	if cents < 0 {
		sign, cents = "−", -cents
	}
	return fmt.Sprintf("%s%d.%02d €", sign, cents/100, cents%100)
}

// Totals is how the orders stand, at one moment.
type Totals struct {
	ByState  map[string]int64 `json:"byState"`
	Open     int64            `json:"open"`     // not at rest: Open and Returning
	Kept     int64            `json:"kept"`     // cents of the orders that are Confirmed
	Closings int64            `json:"closings"` // also the highest number
	Stored   int64            `json:"stored"`   // events ever written to the outbox
	Parked   int64            `json:"parked"`   // of them, dead letters
	Orphans  []string         `json:"orphans"`  // orders that are open without an open saga
}

// Still reports whether nothing is under way, and nothing was between a and b.
func (a Totals) Still(b Totals) bool {
	return a.Open == 0 && b.Open == 0 && a.Closings == b.Closings && maps.Equal(a.ByState, b.ByState)
}

// VerifyStill compares all that the services have ever written down with the orders, at a moment when nothing is under way.
func VerifyStill(t Totals, payments, inventory, shipping Sums) (faults []string) {
	confirmed, returned := t.ByState[Confirmed], t.ByState[Returned]
	equal := func(what string, got, want int64) {
		if got != want {
			faults = append(faults, fmt.Sprintf("%s: off by %+d", what, got-want))
		}
	}
	equal("captured less refunded, in cents", payments["capture"].Sum-payments["refund"].Sum, t.Kept)
	equal("captures", payments["capture"].N, confirmed+returned)
	equal("refunds", payments["refund"].N, returned)
	equal("authorisations that are open", payments["authorise"].N-payments["capture"].N-payments["void"].N, 0)
	equal("reservations that are open", inventory["reserve"].Sum-inventory["release"].Sum-inventory["ship"].Sum, 0)
	equal("shipments", shipping["book"].N, confirmed+returned)
	return faults
}

// Names returns the orders of closings.
func Names(cs []Closing) []string {
	names := make([]string, len(cs))
	for i, c := range cs {
		names[i] = c.Order
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Shelf is what inventory holds, at one moment.
type Shelf struct {
	AtFirst  int64 `json:"atFirst"`
	OnHand   int64 `json:"onHand"`
	Reserved int64 `json:"reserved"`
	Shipped  int64 `json:"shipped"`
	Least    int64 `json:"least"` // on hand of the item with the least
}

// Balanced reports whether nothing has appeared or vanished.
func (s Shelf) Balanced() bool {
	return s.OnHand+s.Reserved+s.Shipped == s.AtFirst && s.Reserved >= 0 && s.Shipped >= 0 && s.Least >= 0
}

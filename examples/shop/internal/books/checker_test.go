package books_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backstay-go/backstay/examples/shop/internal/books"
)

// world is a shop that has only books.
type world struct {
	closings []books.Closing
	evidence map[string]books.Evidence
	sent     map[string]books.Sums
	open     int64
	orphans  []string
	shelf    books.Shelf
	calm     time.Duration
	away     string // service that does not answer
}

func newWorld() *world {
	return &world{evidence: map[string]books.Evidence{}, sent: map[string]books.Sums{}, shelf: books.Shelf{AtFirst: 100, OnHand: 100}}
}

// sell adds an order of 2 pieces for 42 € that went well.
func (w *world) sell() (order string) {
	order = fmt.Sprint("o", len(w.closings)+1)
	w.closings = append(w.closings, books.Closing{No: int64(len(w.closings) + 1), Order: order, State: books.Confirmed, Quantity: 2, Cents: 4200})
	w.evidence[order] = whole()
	w.sent[order] = books.Sums{"placed": {N: 1, Sum: 1}, "confirmed": {N: 1, Sum: 1}}
	w.shelf.OnHand, w.shelf.Shipped = w.shelf.OnHand-2, w.shelf.Shipped+2
	return order
}

var errAway = errors.New("connection refused")

func (w *world) services() books.Services {
	return books.Services{
		Totals: func(context.Context) (books.Totals, error) {
			n := int64(len(w.closings))
			t := books.Totals{ByState: map[string]int64{books.Confirmed: n, books.Open: w.open}, Open: w.open, Kept: 4200 * n, Closings: n, Stored: 2*n + w.open, Orphans: w.orphans}
			return t, nil
		},
		Closings: func(_ context.Context, after int64, limit int) ([]books.Closing, error) {
			rest := w.closings[min(after, int64(len(w.closings))):]
			return rest[:min(limit, len(rest))], nil
		},
		Movements: func(_ context.Context, service string, orders []string) (books.Movements, error) {
			if service == w.away {
				return nil, errAway
			}
			all := books.Movements{}
			for _, o := range orders {
				all[o] = w.of(service, o)
			}
			return all, nil
		},
		Log: func(_ context.Context, order string) ([]string, error) {
			if w.away == "orders" {
				return nil, errAway
			}
			return []string{"what " + order + " did"}, nil
		},
		Sums: func(_ context.Context, service string) (books.Sums, error) {
			if service == w.away {
				return nil, errAway
			}
			sum := books.Sums{}
			for _, c := range w.closings {
				for kind, s := range w.of(service, c.Order) {
					sum[kind] = books.Sum{N: sum[kind].N + s.N, Sum: sum[kind].Sum + s.Sum}
				}
			}
			return sum, nil
		},
		Shelf: func(context.Context) (books.Shelf, error) { return w.shelf, nil },
		Calm:  func() time.Duration { return w.calm },
	}
}

func (w *world) of(service, order string) books.Sums {
	switch service {
	case "payments":
		return w.evidence[order].Payments
	case "inventory":
		return w.evidence[order].Inventory
	case "shipping":
		return w.evidence[order].Shipping
	}
	return w.sent[order]
}

// round makes one and wants it to find faults that contain each of want, and no others.
func round(t *testing.T, c *books.Checker, want ...string) {
	t.Helper()
	before := c.State().Violations
	if err := c.Round(t.Context()); err != nil {
		t.Fatal(err)
	}
	s := c.State()
	faults := s.Faults[max(0, len(s.Faults)-(s.Violations-before)):]
	for _, w := range want {
		if !strings.Contains(strings.Join(faults, "\n"), w) {
			t.Errorf("got %q, want a fault about %q", faults, w)
		}
	}
	if len(want) == 0 && len(faults) > 0 {
		t.Errorf("got %q, want no fault", faults)
	}
}

// Books that balance do, more closings than one batch are compared in one round, and each once.
func TestBalanced(t *testing.T) {
	w := newWorld()
	w.shelf = books.Shelf{AtFirst: 2000, OnHand: 2000}
	c := books.NewChecker(w.services())
	round(t, c)
	for range 600 {
		w.sell()
	}
	round(t, c)
	s := c.State()
	if !s.Balanced || s.Passed != 2 || s.Compared != 600 {
		t.Errorf("got %+v, want balanced books of 600 closings", s)
	}
	if got, want := s.Checks[1].Left, "captured 25200.00 € − refunded 0.00 €"; got != want {
		t.Errorf("money: got %q, want %q", got, want)
	}
}

// Each kind of fault is found, and counted once.
func TestFaults(t *testing.T) {
	for _, tc := range []struct {
		name  string
		spoil func(w *world, order string)
		want  string
	}{
		{"charged twice", func(w *world, o string) { w.evidence[o].Payments["capture"] = books.Sum{N: 2, Sum: 8400} }, `"capture" 2 times`},
		{"money", func(w *world, o string) { w.evidence[o].Payments["capture"] = books.Sum{N: 2, Sum: 8400} }, "money: captured less refunded is off by 42.00 €"},
		{"stock vanished", func(w *world, _ string) { w.shelf.OnHand-- }, "stock"},
		{"stock sold that is not there", func(w *world, _ string) { w.shelf.Least = -1 }, "stock"},
		{"told twice", func(w *world, o string) { w.sent[o]["placed"] = books.Sum{N: 2, Sum: 2} }, "handled 2 times"},
		{"an event that nobody stored", func(w *world, o string) { w.sent[o]["placed"] = books.Sum{N: 2, Sum: 2} }, "3 events are handled"},
		{"orphan", func(w *world, _ string) { w.open, w.orphans = 1, []string{"x"} }, "order x is open"},
		{"a closing is missing", func(w *world, _ string) { w.closings[0].No = 2 }, "closing 2 follows closing 0"},
		{"a movement of no order", func(w *world, o string) {
			w.evidence[o].Payments["authorise"] = books.Sum{N: 2, Sum: 4200}
		}, "authorisations that are open"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld()
			tc.spoil(w, w.sell())
			c := books.NewChecker(w.services())
			round(t, c, tc.want)
			n := c.State().Violations
			if c.State().Balanced {
				t.Error("got balanced books")
			}
			round(t, c)
			if got := c.State().Violations; got != n {
				t.Errorf("got %d violations after another round, want %d", got, n)
			}
		})
	}
}

// With a violation of an order comes the log of its sagas, once.
func TestLogs(t *testing.T) {
	w := newWorld()
	w.sell()
	o := w.sell()
	w.evidence[o].Payments["capture"] = books.Sum{}
	w.sent[o]["placed"] = books.Sum{N: 2, Sum: 2}
	w.orphans, w.open = []string{"x"}, 1
	c := books.NewChecker(w.services())
	round(t, c, `"capture" 0 times`, "handled 2 times", "order x is open")
	round(t, c)
	if got, want := fmt.Sprint(c.State().Logs), fmt.Sprintf("[{%s [what %s did]} {x [what x did]}]", o, o); got != want {
		t.Errorf("got logs %s, want %s", got, want)
	}
}

// A service that is away is waited for, and nothing is left out.
func TestAway(t *testing.T) {
	w := newWorld()
	w.evidence[w.sell()].Payments["capture"] = books.Sum{}
	w.away = "shipping"
	c := books.NewChecker(w.services())
	if err := c.Round(t.Context()); !errors.Is(err, errAway) {
		t.Errorf("got %v, want the service's error", err)
	}
	if s := c.State(); s.Passed != 0 || s.Compared != 0 {
		t.Errorf("got %+v, want a round that does not count", s)
	}
	w.away = ""
	round(t, c, `"capture" 0 times`)
}

// An event may be late while something is out of order, and is lost when it has not come after a minute of calm.
func TestLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		delete(w.sent[w.sell()], "confirmed")
		c := books.NewChecker(w.services())
		round(t, c)
		time.Sleep(10 * time.Minute)
		round(t, c) // but the broker was down
		if got := c.State().OnTheirWay; got != 1 {
			t.Errorf("got %d events on their way, want 1", got)
		}
		w.calm = 2 * time.Minute
		round(t, c, `event "confirmed" is lost`)
	})
}

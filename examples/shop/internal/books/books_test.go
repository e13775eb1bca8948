package books_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/backstay-go/backstay/examples/shop/internal/books"
)

// whole is the evidence of an order that went well.
func whole() books.Evidence {
	return books.Evidence{
		Payments:  books.Sums{"authorise": {N: 1, Sum: 4200}, "capture": {N: 1, Sum: 4200}},
		Inventory: books.Sums{"reserve": {N: 1, Sum: 2}, "ship": {N: 1, Sum: 2}},
		Shipping:  books.Sums{"book": {N: 1, Sum: 2}},
	}
}

// undone is the evidence of an order that was cancelled after everything before the pivot.
func undone() books.Evidence {
	return books.Evidence{
		Payments:  books.Sums{"authorise": {N: 1, Sum: 4200}, "void": {N: 1, Sum: 4200}},
		Inventory: books.Sums{"reserve": {N: 1, Sum: 2}, "release": {N: 1, Sum: 2}},
	}
}

func TestVerify(t *testing.T) {
	closing := func(state string) books.Closing {
		return books.Closing{No: 1, Order: "o", State: state, SKU: "anchor", Quantity: 2, Cents: 4200}
	}
	with := func(e books.Evidence, part, kind string, s books.Sum) books.Evidence {
		of := map[string]*books.Sums{"payments": &e.Payments, "inventory": &e.Inventory, "shipping": &e.Shipping}[part]
		*of = maps.Clone(*of)
		if *of == nil {
			*of = books.Sums{}
		}
		(*of)[kind] = s
		return e
	}
	for _, tc := range []struct {
		name  string
		state string
		e     books.Evidence
		fault string // a part of it; empty: none
	}{
		{"confirmed", books.Confirmed, whole(), ""},
		{"captured twice", books.Confirmed, with(whole(), "payments", "capture", books.Sum{N: 2, Sum: 8400}), `"capture" 2 times`},
		{"captured another amount", books.Confirmed, with(whole(), "payments", "capture", books.Sum{N: 1, Sum: 4100}), "for 4100"},
		{"never captured", books.Confirmed, with(whole(), "payments", "capture", books.Sum{}), `"capture" 0 times`},
		{"captured and voided", books.Confirmed, with(whole(), "payments", "void", books.Sum{N: 1, Sum: 4200}), `"void" 1 times`},
		{"shipped twice", books.Confirmed, with(whole(), "inventory", "ship", books.Sum{N: 2, Sum: 4}), `"ship" 2 times`},
		{"booked twice", books.Confirmed, with(whole(), "shipping", "book", books.Sum{N: 2, Sum: 4}), `"book" 2 times`},
		{"confirmed, and on its way back", books.Confirmed, with(whole(), "payments", "refund", books.Sum{N: 1, Sum: 4200}), ""},
		{"returned without a refund", books.Returned, with(whole(), "inventory", "restock", books.Sum{N: 1, Sum: 2}), `"refund" 0 times`},
		{"refunded twice", books.Returned, with(with(whole(), "inventory", "restock", books.Sum{N: 1, Sum: 2}), "payments", "refund", books.Sum{N: 2, Sum: 8400}), `"refund" 2 times`},
		{"returned", books.Returned, with(with(whole(), "inventory", "restock", books.Sum{N: 1, Sum: 2}), "payments", "refund", books.Sum{N: 1, Sum: 4200}), ""},
		{"cancelled", books.Cancelled, undone(), ""},
		{"cancelled before anything", books.Cancelled, books.Evidence{}, ""},
		{"cancelled, never voided", books.Cancelled, with(undone(), "payments", "void", books.Sum{}), `"void" 0 times`},
		{"cancelled, never released", books.Cancelled, with(undone(), "inventory", "release", books.Sum{}), `"release" 0 times`},
		{"cancelled, and captured", books.Cancelled, with(undone(), "payments", "capture", books.Sum{N: 1, Sum: 4200}), `"capture" 1 times`},
		{"cancelled, and shipped", books.Cancelled, with(undone(), "shipping", "book", books.Sum{N: 1, Sum: 2}), `"book" 1 times`},
		{"reserved twice", books.Cancelled, with(with(undone(), "inventory", "reserve", books.Sum{N: 2, Sum: 4}), "inventory", "release", books.Sum{N: 2, Sum: 4}), "2 reservations"},
		{"closed as nothing", "lost", whole(), `closed as "lost"`},
	} {
		got := books.Verify(closing(tc.state), tc.e)
		switch {
		case tc.fault == "" && len(got) > 0:
			t.Errorf("%s: got %q, want no fault", tc.name, got)
		case tc.fault != "" && !strings.Contains(strings.Join(got, "\n"), tc.fault):
			t.Errorf("%s: got %q, want one about %q", tc.name, got, tc.fault)
		}
	}
}

func TestTold(t *testing.T) {
	c := books.Closing{Order: "o", State: books.Cancelled}
	for _, tc := range []struct {
		name           string
		sent           books.Sums
		missing, twice int
	}{
		{"both", books.Sums{"placed": {N: 1}, "cancelled": {N: 1}}, 0, 0},
		{"not yet", books.Sums{"placed": {N: 1}}, 1, 0},
		{"twice", books.Sums{"placed": {N: 2}, "cancelled": {N: 1}}, 0, 1},
		{"none", nil, 2, 0},
	} {
		missing, twice := books.Told(c, tc.sent)
		if len(missing) != tc.missing || len(twice) != tc.twice {
			t.Errorf("%s: got missing %q and twice %q, want %d and %d", tc.name, missing, twice, tc.missing, tc.twice)
		}
	}
}

func TestMoney(t *testing.T) {
	for cents, want := range map[int64]string{0: "0.00 €", 5: "0.05 €", 4200: "42.00 €", -1290: "−12.90 €"} {
		if got := books.Money(cents); got != want {
			t.Errorf("%d: got %q, want %q", cents, got, want)
		}
	}
}

func TestNames(t *testing.T) {
	got := books.Names([]books.Closing{{Order: "b"}, {Order: "a"}, {Order: "b"}})
	if want := []string{"a", "b"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

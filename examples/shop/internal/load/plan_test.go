package load

import (
	"math"
	"testing"
)

// The customers follow from the seed.
func TestPlan(t *testing.T) {
	a, b, other := newPlan(7, "x"), newPlan(7, "x"), newPlan(8, "x")
	same := true
	var gaps float64
	const n = 5000
	declined, returns := 0, 0
	for range n {
		ca, ga := a.next()
		cb, gb := b.next()
		co, _ := other.next()
		if ca != cb || ga != gb {
			t.Fatalf("got %+v after %g and %+v after %g of one seed", ca, ga, cb, gb)
		}
		same = same && ca.order.SKU == co.order.SKU
		gaps += ga
		if ca.order.Card == "4000-0000-0000-0002" {
			declined++
		}
		if ca.returns {
			returns++
		}
	}
	if same {
		t.Error("another seed has the same customers")
	}
	if mean := gaps / n; math.Abs(mean-1) > 0.05 {
		t.Errorf("got a mean gap of %g, want 1", mean)
	}
	// One in 50 and one in 25, by a fixed seed.
	if declined < n/75 || declined > n/35 || returns < n/35 || returns > n/18 {
		t.Errorf("got %d bad cards and %d returns of %d, want about 100 and 200", declined, returns, n)
	}
}

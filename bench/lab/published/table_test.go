package published_test

import (
	"fmt"
	"math"
	"strings"
	"testing"
)

// table compares what was published with what our code does.
type table struct {
	t      *testing.T
	source string
	lines  []string
}

// compare begins a table, which is printed when the test ends.
func compare(t *testing.T, source string) *table {
	t.Helper()
	tab := &table{t: t, source: source}
	t.Cleanup(func() {
		t.Logf("\n| source: %s | published | ours | tolerance | ok |\n|---|---|---|---|---|\n%s", tab.source, strings.Join(tab.lines, "\n"))
	})
	return tab
}

func (tab *table) add(what, published, ours, tolerance string, ok bool) {
	tab.t.Helper()
	verdict := "yes"
	if !ok {
		verdict = "NO"
		tab.t.Errorf("%s: got %s, want %s (%s)", what, ours, published, tolerance)
	}
	tab.lines = append(tab.lines, fmt.Sprintf("| %s | %s | %s | %s | %s |", what, published, ours, tolerance, verdict))
}

// note adds a figure that is compared with nothing.
func (tab *table) note(what, published, ours string) {
	tab.lines = append(tab.lines, fmt.Sprintf("| %s | %s | %s | – | – |", what, published, ours))
}

// near wants ours within the part rel of published.
func (tab *table) near(what string, published, ours, rel float64) {
	tab.t.Helper()
	tab.add(what, number(published), number(ours), fmt.Sprintf("±%g %%", 100*rel), math.Abs(ours-published) <= rel*math.Abs(published))
}

// within wants ours at most abs away from published.
func (tab *table) within(what string, published, ours, abs float64) {
	tab.t.Helper()
	tab.add(what, number(published), number(ours), fmt.Sprintf("±%g", abs), math.Abs(ours-published) <= abs+1e-9)
}

// atMost wants ours no greater than limit.
func (tab *table) atMost(what, published string, ours, limit float64) {
	tab.t.Helper()
	tab.add(what, published, number(ours), "≤ "+number(limit), ours <= limit)
}

func number(x float64) string {
	switch {
	case x == math.Trunc(x):
		return fmt.Sprintf("%.0f", x)
	case math.Abs(x) >= 100:
		return fmt.Sprintf("%.0f", x)
	}
	return fmt.Sprintf("%.3f", x)
}

package retry

import (
	"fmt"
	"math"
	"strings"

	"github.com/backstay-go/backstay"
)

// Describe implements [backstay.Describer].
func (r *Retry) Describe() backstay.Description {
	d := backstay.Description{Kind: "retry", Pends: true}
	if r == nil {
		d.Attempts, d.Detail = 1, "none"
		return d
	}
	c := &r.c
	d.Name, d.Attempts = c.Name, c.Attempts
	if c.MaxDelay < forever { // else none that a reader could reckon with
		d.MaxDelay = c.MaxDelay
	}
	var s strings.Builder
	switch c.Attempts {
	case math.MaxInt:
		d.Attempts = -1
		s.WriteString("unlimited attempts")
	case 1:
		s.WriteString("1 attempt")
	default:
		fmt.Fprintf(&s, "%d attempts", c.Attempts)
	}
	s.WriteString(", ")
	if c.Jitter != None {
		fmt.Fprintf(&s, "%s jitter ", c.Jitter)
	}
	switch {
	case c.Backoff != nil:
		s.WriteString("own backoff")
	case c.Schedule == Linear:
		fmt.Fprintf(&s, "%v linear", c.Delay)
	case c.Schedule == Exponential && c.Jitter != Decorrelated:
		fmt.Fprintf(&s, "%v ×%v", c.Delay, c.Factor)
	default:
		fmt.Fprintf(&s, "%v", c.Delay)
	}
	if c.MaxDelay < forever {
		fmt.Fprintf(&s, " ≤ %v", c.MaxDelay)
	}
	if c.MaxElapsed > 0 {
		fmt.Fprintf(&s, ", within %v", c.MaxElapsed)
	}
	if c.Budget != nil || c.BudgetFor != nil {
		s.WriteString(", budget")
	}
	d.Detail = s.String()
	return d
}

// Gauges implements [backstay.Gauged]: the tokens left of Config.Budget. Budgets that BudgetFor returns are for their owner to tell of, as
// budget.Table does.
func (r *Retry) Gauges(tell func(backstay.Gauge)) {
	if r != nil && r.c.BudgetFor == nil {
		r.c.Budget.Gauges(tell)
	}
}

// Package window counts the endings of calls that a circuit breaker looks at: those of the last while ([Time]) or the
// last so many ([Last]).
//
// Endings are filed when they come, not when their call began, so a call that takes longer than the window still counts. Both types keep
// running sums: an ending costs the same however long the window is. Neither is safe for concurrent use.
package window

// Counts are the endings in a window. Slow ones are among the others.
type Counts struct {
	Total    int
	Failures int
	Slow     int
}

// FailureRate returns the share of failures, from 0 to 1; 0 when nothing is counted.
func (c Counts) FailureRate() float64 { return rate(c.Failures, c.Total) }

// SlowRate returns the share of slow endings, from 0 to 1; 0 when nothing is counted.
func (c Counts) SlowRate() float64 { return rate(c.Slow, c.Total) }

func rate(n, total int) float64 {
	if total == 0 {
		return 0
	}
	return float64(n) / float64(total)
}

package published_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backstay-go/backstay/budget"
)

// finagle returns the settings that are Finagle's of these: a deposit of percent for each request, aged by ttl, and a reserve of ttl × perSecond tokens which refills at that rate.
func finagle(ttl time.Duration, perSecond int, percent float64) budget.Config {
	c := budget.Config{TTL: ttl, Ratio: percent, Cap: -1, Start: -1, Floor: -1}
	if percent == 0 {
		c.Ratio = -1
	}
	if perSecond > 0 {
		c.Start, c.Floor = ttl.Seconds()*float64(perSecond), time.Second/time.Duration(perSecond)
	}
	return c
}

// TestFinagleTable (R9) is the table of Finagle's own test of its budget, on ours.
func TestFinagleTable(t *testing.T) {
	tab := compare(t, "Finagle, RetryBudgetTest.scala")
	withdraw := func(b *budget.Budget, requests int) (retries int) {
		for range requests {
			b.Deposit()
			if b.Withdraw() {
				retries++
			}
		}
		return retries
	}
	synctest.Test(t, func(t *testing.T) { // in which no time passes, as in theirs
		empty, infinite := budget.New(finagle(10*time.Second, 0, 0)), (*budget.Budget)(nil)
		tab.within("empty, 100 requests: retries", 0, float64(withdraw(empty, 100)), 0)
		tab.within("infinite (nil), 100 requests: retries", 100, float64(withdraw(infinite, 100)), 0)

		const requests = 10_000
		for _, c := range []struct {
			ttl       time.Duration
			perSecond int
			percent   float64
		}{
			{time.Minute, 0, 0.1},
			{time.Minute, 0, 0.5},
			{time.Minute, 0, 0.25},
			{time.Minute, 0, 0.75},
			{time.Minute, 0, 0.99},
			{time.Minute, 0, 0.999},
			{time.Minute, 0, 0.9999},
			{time.Minute, 0, 0.01},
			{time.Minute, 0, 0.001},
			{time.Minute, 0, 0.0001},
			{time.Second, 10, 0},
			{2 * time.Second, 5, 0},
			{time.Second, 10, 0.1},
			{2 * time.Second, 5, 0.5},
		} {
			b := budget.New(finagle(c.ttl, c.perSecond, c.percent))
			reserve := c.ttl.Seconds() * float64(c.perSecond)
			if got := b.Snapshot().Tokens; got != reserve {
				t.Errorf("ttl %v, %d/s, %v: new budget has %v tokens, want %v", c.ttl, c.perSecond, c.percent, got, reserve)
			}
			what := fmt.Sprintf("ttl %v, %d/s, %g: retries of 10,000 requests", c.ttl, c.perSecond, c.percent)
			tab.within(what, float64(int(requests*c.percent))+reserve, float64(withdraw(b, requests)), 1)
		}

		twofold := budget.New(finagle(time.Minute, 0, 2))
		for range requests {
			twofold.Deposit()
		}
		tab.within("ttl 1m, 0/s, 2.0: tokens after 10,000 requests", 20_000, twofold.Snapshot().Tokens, 0)

		// What the reserve means where there are many clients: their floors add up, and their starts come at once.
		const clients, minute = 1000, 60
		atOnce, later := 0, 0
		budgets := make([]budget.Budget, clients) // zero: the defaults
		for i := range budgets {
			atOnce += idle(&budgets[i])
		}
		for range minute {
			time.Sleep(time.Second)
			for i := range budgets {
				later += idle(&budgets[i])
			}
		}
		tab.atMost("1,000 clients, defaults (theirs 10 s, 10/s, 20 %): retries beyond those that calls bring, at once", number(10*10*clients), float64(atOnce), 2*clients)
		tab.atMost("… and in each second after", number(10*clients), float64(later)/minute, 0.1*clients)
	})
}

// idle takes what a budget has.
func idle(b *budget.Budget) (taken int) {
	for b.Withdraw() {
		taken++
	}
	return taken
}

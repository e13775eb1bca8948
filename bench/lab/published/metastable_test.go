package published_test

import (
	"context"
	"fmt"
	"math"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/budget"
	"github.com/backstay-go/backstay/retry"
	"github.com/backstay-go/backstay/standard"
)

// primary is a database that takes requests in their order, as fast as its share of CPU lets it, and works on those whose caller has gone like on all others.
type primary struct {
	perSecond float64          // requests, with all of its CPU
	cut       [2]time.Duration // from when to when, since start, it has less
	share     float64          // of its CPU, then
	timeout   time.Duration    // of an attempt; the client's

	start time.Time
	mu    sync.Mutex
	taken float64 // when the last of the requests so far is done, in work; guarded by mu
}

// work is how many requests could have been done by the time t.
func (p *primary) work(t time.Duration) float64 {
	cut := min(t, p.cut[1]) - p.cut[0]
	return p.perSecond * (t.Seconds() - (1-p.share)*max(cut, 0).Seconds())
}

// when is the time by which so much work can have been done: the inverse of work.
func (p *primary) when(work float64) time.Duration {
	s, from, lost := work/p.perSecond, p.cut[0].Seconds(), (1-p.share)*(p.cut[1]-p.cut[0]).Seconds()
	switch {
	case s <= from:
	case s >= p.cut[1].Seconds()-lost:
		s += lost
	default:
		s = from + (s-from)/p.share
	}
	return time.Duration(s * float64(time.Second))
}

// insert makes one attempt.
func (p *primary) insert(context.Context) error {
	now := time.Since(p.start)
	p.mu.Lock()
	p.taken = max(p.taken, p.work(now)) + 1
	takes := p.when(p.taken) - now
	p.mu.Unlock()
	if takes > p.timeout {
		time.Sleep(p.timeout)
		return context.DeadlineExceeded
	}
	time.Sleep(takes)
	return nil
}

// cut is a cut of the primary's CPU, under a load.
type cut struct {
	cpu  float64 // of 2
	long time.Duration
	load float64 // of the nominal one
}

func (c cut) String() string {
	return fmt.Sprintf("%.2f CPU for %.4g s at %g %% of the load", c.cpu, c.long.Seconds(), 100*c.load)
}

const (
	nominal = 10_000.0 / 75 // requests a second: a hundredth of the paper's one each 75 µs
	before  = 5 * time.Second
	after   = time.Minute
)

// recovery runs one cut, and returns how many seconds after its end the first five in a row began in which nine calls in ten ended well, +Inf for none in a minute. used is
// the nominal load's part of what the primary can do.
func recovery(t *testing.T, c cut, used float64, policies ...backstay.Policy) float64 {
	t.Helper()
	seconds := int((before + c.long + after) / time.Second)
	offered, good := make([]int, seconds), make([]int, seconds)
	synctest.Test(t, func(*testing.T) {
		db := &primary{
			perSecond: nominal / used, cut: [2]time.Duration{before, before + c.long}, share: c.cpu / 2, timeout: 3 * time.Second, start: time.Now(),
		}
		p := backstay.Chain(policies...)
		var mu sync.Mutex // guards good
		var under sync.WaitGroup
		for {
			time.Sleep(time.Duration(float64(time.Second) / (nominal * c.load)))
			at := int(time.Since(db.start) / time.Second)
			if at >= seconds {
				break
			}
			offered[at]++
			under.Go(func() {
				start := time.Now()
				if backstay.Run(context.Background(), p, db.insert) == nil && time.Since(start) <= 3*time.Second {
					mu.Lock()
					good[at]++
					mu.Unlock()
				}
			})
		}
		under.Wait()
	})
	end := int(math.Ceil((before + c.long).Seconds()))
	row := 0
	for i := end; i < seconds; i++ {
		if 10*good[i] < 9*offered[i] {
			row = 0
		} else if row++; row == 5 {
			return float64(i - 4 - end)
		}
	}
	return math.Inf(1)
}

// resends is the paper's client: four times more, at once, whatever happens.
func resends() backstay.Policy {
	return retry.New(retry.Config{Attempts: 5, Delay: -1, Jitter: retry.None})
}

// edge returns where a cut begins to be metastable, between low, where it is not, and high, where it is, to within the part 2⁻⁸ of their distance.
func edge(low, high float64, metastable func(float64) bool) float64 {
	for range 8 {
		if mid := (low + high) / 2; metastable(mid) {
			high = mid
		} else {
			low = mid
		}
	}
	return (low + high) / 2
}

// TestFourOutcomes (R6) is the table of one client that makes a database metastable or not, by a second more or less.
func TestFourOutcomes(t *testing.T) {
	if testing.Short() {
		t.Skip("runs for seconds")
	}
	tab := compare(t, "L. Huang et al., Metastable Failures in the Wild, OSDI 2022, artifact Retry_Metastability, as a queue of a hundredth of its load. "+
		"Fitted: which part of its capacity the load is. R recovers, M is metastable")
	cuts := []struct {
		cut
		metastable bool
	}{
		{cut{0.45, 10 * time.Second, 1}, false},
		{cut{0.40, 10 * time.Second, 1}, true},
		{cut{0.40, 9 * time.Second, 1}, false},
		{cut{0.40, 10 * time.Second, 0.75}, false},
	}
	never := func(c cut, used float64, policies ...backstay.Policy) bool {
		return math.IsInf(recovery(t, c, used, policies...), 1)
	}
	// The edge of each row, in the part of the capacity that the load is: it has to be less in the second row than in the others.
	var edges [4]float64
	for i, c := range cuts {
		edges[i] = edge(0.1, 0.9, func(used float64) bool { return never(c.cut, used, resends()) })
		tab.note(c.String()+": metastable from what part of the capacity on", "–", number(edges[i]))
	}
	used := (edges[1] + min(edges[0], edges[2], edges[3])) / 2
	tab.add("room for the fit between the second row and the others", "–", number(min(edges[0], edges[2], edges[3])-edges[1]), "> 0", edges[1] < min(edges[0], edges[2], edges[3]))
	tab.note("fitted: load as a part of the capacity", "–", number(used))

	name := map[bool]string{false: "R", true: "M"}
	for _, c := range cuts {
		got := never(c.cut, used, resends())
		tab.add(c.String()+", four resends at once", name[c.metastable], name[got], "equal", got == c.metastable)
	}
	long := edge(9, 10, func(s float64) bool {
		return never(cut{0.40, time.Duration(s * float64(time.Second)), 1}, used, resends())
	})
	tab.add("0.40 CPU: metastable from how many seconds on, four resends at once", "9 to 10", number(long), "between", long > 9 && long < 10)

	for _, c := range append(cuts, struct {
		cut
		metastable bool
	}{cut{0.40, time.Minute, 1}, true}) {
		none := recovery(t, c.cut, used)
		budgeted := recovery(t, c.cut, used, retry.New(retry.Config{Budget: budget.New(budget.Config{})}))
		ours := recovery(t, c.cut, used, standard.New(standard.Config{}))
		tab.note(c.String()+": seconds to recover, no retries / a retry with a budget", name[c.metastable], number(none)+" / "+number(budgeted))
		tab.atMost(c.String()+": seconds to recover, Backstay's default", name[c.metastable], ours, none)
	}
}

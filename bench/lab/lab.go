// Package lab runs the retry storm of the field in virtual time: a server that stalls for ten seconds under load, and clients with the real packages of
// Backstay, failsafe-go, go-retryablehttp, backoff and grpc-go in front of it. Whether the service comes back is decided by their defaults.
package lab

import (
	"context"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// Scenario is a server, its fault and the load on it.
type Scenario struct {
	Name    string
	Workers int
	Work    time.Duration    // for one job
	Queue   int              // jobs that wait; one more is answered 503
	Stall   [2]time.Duration // nobody works from the first to the second
	Slow    float64          // in that time a job takes this many times as long, in place of nobody working; 0: nobody works
	Refuse  bool             // answers 503 after Work, always
	Attempt time.Duration    // the attempt timeout, the same for all
	Rate    float64          // calls a second, arriving at random
	Run     time.Duration
	Clients int // instances of the policies; each call goes through one of them at random
}

// V1 is a stall with a queue that holds more work than clients wait for: once full, the server works only for callers who have gone.
func V1(rate float64) Scenario {
	return Scenario{
		Name: "V1", Workers: 3, Work: 10 * time.Millisecond, Queue: 1000, Stall: [2]time.Duration{20 * time.Second, 30 * time.Second},
		Attempt: time.Second, Rate: rate, Run: 120 * time.Second, Clients: 20,
	}
}

// V2 is V1 with a queue for all that may come.
func V2(rate float64) Scenario { return V1(rate).with("V2", func(s *Scenario) { s.Queue = 100_000 }) }

// V3 is V1 with a queue that is shorter than clients wait: the control, which nobody finds hard.
func V3(rate float64) Scenario { return V1(rate).with("V3", func(s *Scenario) { s.Queue = 150 }) }

// V7 is V1 with half the capacity in place of none.
func V7(rate float64) Scenario { return V1(rate).with("V7", func(s *Scenario) { s.Slow = 2 }) }

func (s Scenario) with(name string, change func(*Scenario)) Scenario {
	s.Name = name
	change(&s)
	return s
}

// V4 is a server that answers 503 after a millisecond, always.
func V4(rate float64) Scenario {
	return Scenario{Name: "V4", Work: time.Millisecond, Refuse: true, Attempt: time.Second, Rate: rate, Run: 20 * time.Second, Clients: 20}
}

// Call makes one call as a strategy does, and reports whether it was answered well. ctx ends with the run, long after an answer could be good.
type Call func(ctx context.Context) bool

// Strategy is a way to call.
type Strategy struct {
	Name string
	// New makes a client of the server. count is called for each attempt that it makes. stop, which may be nil, ends what it has started.
	New func(s *Server, count func(), seed uint64) (call Call, stop func())
}

// Second is what became of the calls that began in one second of a run.
type Second struct{ Offered, Good, Attempts int }

// Result is a run by seconds.
type Result []Second

// good is how soon a good answer has to come.
const good = 3 * time.Second

// Run runs the scenario once. It is called inside a testing/synctest bubble.
func run(s Scenario, strategy Strategy, seed uint64) Result {
	rng := rand.New(rand.NewPCG(seed, 1))
	result := make(Result, int(s.Run/time.Second))
	var mu sync.Mutex // guards result
	server := s.start()
	at := func() int { return int(time.Since(server.start) / time.Second) }
	count := func() {
		mu.Lock()
		defer mu.Unlock()
		if now := at(); now < len(result) { // what is still under way after the run is no part of it
			result[now].Attempts++
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	calls := make([]Call, s.Clients)
	var stops []func()
	for i := range calls {
		var stop func()
		calls[i], stop = strategy.New(server, count, seed*1000+uint64(i))
		if stop != nil {
			stops = append(stops, stop)
		}
	}
	var under sync.WaitGroup
	for next := time.Duration(0); ; {
		next += time.Duration(-math.Log(1-rng.Float64()) / s.Rate * float64(time.Second))
		if next >= s.Run {
			break
		}
		time.Sleep(next - time.Since(server.start))
		call, begun := calls[rng.IntN(len(calls))], at()
		mu.Lock()
		result[begun].Offered++
		mu.Unlock()
		under.Go(func() {
			start := time.Now()
			if call(ctx) && time.Since(start) <= good {
				mu.Lock()
				result[begun].Good++
				mu.Unlock()
			}
		})
	}
	time.Sleep(good)
	cancel()
	under.Wait()
	for _, stop := range stops {
		stop()
	}
	server.stop()
	return result
}

// Run runs the scenario once, in virtual time.
func Run(t *testing.T, s Scenario, strategy Strategy, seed uint64) (r Result) {
	t.Helper()
	synctest.Test(t, func(*testing.T) { r = run(s, strategy, seed) })
	return r
}

func (r Result) sum(from, to int) (sum Second) {
	for _, s := range r[from:min(to, len(r))] {
		sum.Offered += s.Offered
		sum.Good += s.Good
		sum.Attempts += s.Attempts
	}
	return sum
}

// Share is the part of the calls of the seconds [from, to) that was good.
func (r Result) Share(from, to int) float64 {
	s := r.sum(from, to)
	return float64(s.Good) / float64(s.Offered)
}

// Amplification is the attempts for each call of the seconds [from, to).
func (r Result) Amplification(from, to int) float64 {
	s := r.sum(from, to)
	return float64(s.Attempts) / float64(s.Offered)
}

// Never is the recovery of a run that did not recover.
const Never = math.MaxInt32

// Recovery is how many seconds after the second from the first five in a row began in each of which at least 90 % of the calls were good.
func (r Result) Recovery(from int) int {
	row := 0
	for i := from; i < len(r); i++ {
		if float64(r[i].Good) < 0.9*float64(r[i].Offered) {
			row = 0
		} else if row++; row == 5 {
			return i - 4 - from
		}
	}
	return Never
}

// Peak is the most attempts in one second.
func (r Result) Peak() (most int) {
	for _, s := range r {
		most = max(most, s.Attempts)
	}
	return most
}

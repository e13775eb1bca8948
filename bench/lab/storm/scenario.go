// Package storm runs the retry storm of the field in virtual time: a server with a fault under load, and clients with the real packages of
// Backstay, failsafe-go, go-retryablehttp, backoff and grpc-go in front of it. Whether the service comes back is decided by their settings.
package storm

import (
	"fmt"
	"time"
)

// Scenario is a server, its fault and the load on it.
type Scenario struct {
	Name    string
	About   string
	Workers int              // of each replica
	Work    time.Duration    // for one job
	Queue   int              // jobs that wait at each replica; one more is answered 503
	Fault   [2]time.Duration // its first and its last moment
	Slow    float64          // in the fault a job takes this many times as long, in place of nobody working; 0: nobody works
	Refuse  bool             // answers 503 after Work, always
	Attempt time.Duration    // the attempt timeout, the same for all
	Rate    float64          // calls a second, arriving at random
	Run     time.Duration
	Clients int // instances of the policies; each call goes through one of them at random

	// Hops is how many services lie between the clients and the server. Each has as many instances as there are clients, with a client of
	// the same policies each, and is called with the same attempt timeout.
	Hops int
	// Deadline hands what is left of the caller's time to the next hop, so that it stops when nobody waits any more.
	Deadline bool

	// Replicas is how many servers there are; 0: one. In the fault the first half of them answers 503 at once, and the others go on.
	Replicas int
	// Balanced hides the replicas behind one name: each attempt comes to one of them at random. Otherwise each has a name of its own, and each call is for
	// one of them.
	Balanced bool
}

// String is the name with the load.
func (s Scenario) String() string { return fmt.Sprintf("%s %.0f/s", s.Name, s.Rate) }

// FaultEnd is the second in which the fault ends.
func (s Scenario) FaultEnd() int { return int((s.Fault[1] + time.Second - 1) / time.Second) }

// V1 is a stall with a queue that holds more work than clients wait for: once full, the server works only for callers who have gone.
func V1(rate float64) Scenario {
	return Scenario{
		Name: "V1", About: "all workers stall for 10 s; the queue holds 3.3 s of work", Workers: 3, Work: 10 * time.Millisecond, Queue: 1000,
		Fault: [2]time.Duration{20 * time.Second, 30 * time.Second}, Attempt: time.Second, Rate: rate, Run: 120 * time.Second, Clients: 20,
	}
}

// V2 is V1 with a queue for all that may come.
func V2(rate float64) Scenario {
	return V1(rate).with("V2", "as V1, with a queue for everything", func(s *Scenario) { s.Queue = 100_000 })
}

// V3 is V1 with a queue that is shorter than clients wait: the control, which nobody finds hard.
func V3(rate float64) Scenario {
	return V1(rate).with("V3", "as V1, with half a second of work in the queue", func(s *Scenario) { s.Queue = 150 })
}

// V4 is a server that answers 503 after a millisecond, always.
func V4(rate float64) Scenario {
	return Scenario{
		Name: "V4", About: "503 after a millisecond, always", Work: time.Millisecond, Refuse: true, Attempt: time.Second, Rate: rate,
		Run: 20 * time.Second, Clients: 20,
	}
}

// V5 is V1 behind three services, each with the same clients. With deadline the time that the caller has left travels with each request.
func V5(rate float64, deadline bool) Scenario {
	name, about := "V5", "as V1, behind three services with the same policies"
	if deadline {
		name, about = "V5 deadline", about+", which hand the caller's deadline on"
	}
	return V1(rate).with(name, about, func(s *Scenario) { s.Hops, s.Deadline = 3, deadline })
}

// V6 is two replicas of which one refuses everything for ten seconds: each under its own name, or both behind one.
func V6(rate float64, balanced bool) Scenario {
	name, about := "V6", "one of two replicas refuses everything for 10 s; each has a name of its own"
	if balanced {
		name, about = "V6 balanced", "one of two replicas refuses everything for 10 s; both are behind one name"
	}
	return V1(rate).with(name, about, func(s *Scenario) { s.Replicas, s.Balanced = 2, balanced })
}

// V7 is V1 with half the capacity in place of none.
func V7(rate float64) Scenario {
	return V1(rate).with("V7", "half the capacity for 10 s", func(s *Scenario) { s.Slow = 2 })
}

// V8 has the constants of "Metastable Failures in the Wild" (OSDI 2022) at a hundredth of their load: a request each 7.5 ms, 3 s to answer it, a fifth of
// the capacity for ten seconds. Of the capacity the load is 0.378, the middle of what bench/lab/published fits to the paper's four outcomes.
func V8(load float64) Scenario {
	const nominal = 10_000.0 / 75
	return Scenario{
		Name: "V8", About: "OSDI 2022: a fifth of the capacity for 10 s, attempts of 3 s", Workers: 1, Work: time.Duration(0.378 / nominal * float64(time.Second)),
		Queue: 100_000, Fault: [2]time.Duration{20 * time.Second, 30 * time.Second}, Slow: 5, Attempt: 3 * time.Second, Rate: nominal * load,
		Run: 120 * time.Second, Clients: 20,
	}
}

// Recovering are the variants that have a fault to recover from.
func Recovering() []Scenario {
	var all []Scenario
	for _, rate := range []float64{240, 280} {
		all = append(all, V1(rate), V2(rate), V3(rate), V5(rate, false), V5(rate, true), V6(rate, false), V6(rate, true), V7(rate))
	}
	return append(all, V8(1))
}

func (s Scenario) with(name, about string, change func(*Scenario)) Scenario {
	s.Name, s.About = name, about
	change(&s)
	return s
}

package retry

import (
	"iter"
	"time"

	"github.com/cenkalti/backoff/v4"
)

// Schedule is how the waits of a call grow.
type Schedule string

const (
	Exponential Schedule = "exponential" // Delay, Delay × Factor, Delay × Factor², …
	Constant    Schedule = "constant"    // always Delay
	Linear      Schedule = "linear"      // Delay, 2 × Delay, 3 × Delay, …
)

// Jitter is how waits are spread. The names are those of "Exponential Backoff and Jitter", M. Brooker, AWS 2015; in its simulation of 100
// clients that contend for one row, full jitter makes the fewest calls.
type Jitter string

const (
	Full         Jitter = "full"         // anything from 0 to the wait
	Equal        Jitter = "equal"        // anything from half of the wait to all of it
	Decorrelated Jitter = "decorrelated" // anything from Delay to three times the wait before; a schedule of its own
	None         Jitter = "none"         // the wait
)

// BackOff is the schedule of one call. The BackOff of github.com/cenkalti/backoff, of any version, is one.
type BackOff = interface {
	// NextBackOff returns the next wait, or -1 for no further attempt.
	NextBackOff() time.Duration
}

// forever is the bound of what has no bound: 146 years, and twice of it is still a Duration.
const forever = time.Duration(1 << 62)

// Delays yields the waits that one call would make between its attempts, hints apart, with the jitter drawn anew each time. It
// does not end, unless a Backoff does: the number of attempts is no part of the schedule.
func (r *Retry) Delays() iter.Seq[time.Duration] {
	return func(yield func(time.Duration) bool) {
		if r == nil {
			return
		}
		w := waits{c: &r.c}
		for {
			d, ok := w.next()
			if !ok || !yield(d) {
				return
			}
		}
	}
}

// waits is the schedule of one call. Each call has its own, so that all begin with Delay.
type waits struct {
	c    *Config // with defaults
	n    int     // how many were drawn
	own  BackOff
	exp  backoff.ExponentialBackOff
	last time.Duration // of Decorrelated
}

// next returns the next wait, from 0 to MaxDelay; ok is false when the schedule says that there is none.
func (w *waits) next() (d time.Duration, ok bool) {
	if w.n == 0 {
		w.begin()
	}
	w.n++
	if w.own != nil {
		if d = w.own.NextBackOff(); d == backoff.Stop {
			return 0, false
		}
		d = max(d, 0)
	} else {
		d = w.interval()
	}
	d = min(d, w.c.MaxDelay)
	if w.c.Jitter != None && d > 0 {
		d = w.jittered(d)
	}
	return min(max(d, 0), w.c.MaxDelay), true
}

func (w *waits) begin() {
	if w.c.Backoff != nil {
		w.own = w.c.Backoff()
	}
	w.exp = backoff.ExponentialBackOff{
		InitialInterval: w.c.Delay, Multiplier: w.c.Factor, MaxInterval: w.c.MaxDelay,
		Stop: backoff.Stop, Clock: backoff.SystemClock,
	}
	w.exp.Reset()
	w.last = w.c.Delay
}

// interval returns the wait before jitter.
func (w *waits) interval() time.Duration {
	switch w.c.Schedule {
	case Constant:
		return w.c.Delay
	case Linear:
		if w.c.Delay > 0 && w.n > int(w.c.MaxDelay/w.c.Delay) {
			return w.c.MaxDelay
		}
		return time.Duration(w.n) * w.c.Delay
	default:
		return w.exp.NextBackOff()
	}
}

// jittered spreads the wait d, which is above 0.
func (w *waits) jittered(d time.Duration) time.Duration {
	switch w.c.Jitter {
	case Equal:
		return d/2 + part(d-d/2, random(w.c))
	case Decorrelated:
		top := forever
		if w.last < forever/3 {
			top = 3 * w.last
		}
		w.last = min(w.c.Delay+part(top-w.c.Delay, random(w.c)), w.c.MaxDelay) // the bound comes last, as in the article
		return w.last
	default:
		return part(d, random(w.c))
	}
}

// hinted returns the wait for a server that asked for d, which is above 0.
func hinted(c *Config, d time.Duration) time.Duration {
	if c.HintJitter == 0 {
		return d
	}
	return d + part(min(d, forever-d), c.HintJitter*random(c))
}

// part returns the share u of d, with u from 0 to 1.
func part(d time.Duration, u float64) time.Duration {
	return min(time.Duration(float64(d)*u), d)
}

// random returns a number from 0 to 1, whatever Rand does.
func random(c *Config) float64 {
	u := c.Rand()
	if !(u > 0) {
		return 0
	}
	return min(u, 1)
}

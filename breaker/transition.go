package breaker

import (
	"math/rand/v2"
	"time"

	"github.com/backstay-go/backstay"
)

// cause is why the state changes, for the event of it.
type cause struct {
	call   *backstay.Call // whose ending or coming it was; nil: nobody's
	reason string
	err    error
}

// trip opens a breaker that is closed or half-open. Called with mu held.
func (b *Breaker) trip(now time.Duration, why cause) {
	if b.machine == nil || b.state == HalfOpen { // a half-open one may have no place left to fail in
		b.machine = newMachine(b.rules.Load().Successes)
	}
	b.machine.trip()
	b.enter(now, Open, why)
}

// enter makes to the state, and has observers told. Called with mu held.
func (b *Breaker) enter(now time.Duration, to State, why cause) {
	from, probed := b.label(), b.state == HalfOpen
	b.become(now, to, probed)
	b.announce(from, why)
}

// become makes to the state. Every result still to come is then one of an earlier state. probed says that probes led to it, so
// that closing begins a ramp. Called with mu held.
func (b *Breaker) become(now time.Duration, to State, probed bool) {
	r := b.rules.Load()
	b.state, b.since = to, now
	b.epoch++
	b.ask, b.ramping = false, false
	b.round = round{lost: b.round.lost}
	switch to {
	case Open:
		b.opens++
		b.ask = r.OpenFunc != nil
		b.until.Store(int64(now + openPeriod(r, b.opens)))
	case Closed:
		b.opens = 0
		b.streak = streak{}
		b.window.Reset()
		if probed && r.Ramp > 0 {
			b.ramping, b.ramp = true, ramp{}
			b.until.Store(int64(now + r.Ramp))
		}
	}
	b.publish()
}

// openPeriod returns how long the opens-th period in a row is.
func openPeriod(r *Config, opens int) time.Duration {
	d := r.OpenFor
	for ; opens > 1 && d < r.MaxOpenFor; opens-- {
		d *= 2
	}
	d = min(d, r.MaxOpenFor)
	if !r.NoJitter {
		d -= rand.N(d/2 + 1)
	}
	return d
}

// askOpenFunc lets the user's function say how long the period is that has just begun. It runs after the change, and outside the
// lock; the doubled period holds until it has answered. Called with mu held, and returns with it held.
func (b *Breaker) askOpenFunc() {
	b.ask = false
	r, opens, epoch := b.rules.Load(), b.opens, b.epoch
	b.mu.Unlock()
	d, ok := callOpenFunc(r.OpenFunc, opens)
	b.mu.Lock()
	if !ok || b.epoch != epoch {
		return
	}
	if d < 0 { // a backoff that says stop: for ever is not to be had
		d = r.MaxOpenFor
	}
	d = min(max(d, minOpenFor), r.MaxOpenFor)
	b.until.Store(int64(b.since + d))
	b.outbox.amend(epoch, d)
}

func callOpenFunc(f func(int) time.Duration, opens int) (d time.Duration, ok bool) {
	defer func() { _ = recover() }()
	return f(opens), true
}

// label is what the state is called in events. Called with mu held.
func (b *Breaker) label() string {
	switch b.mode {
	case Auto, Shadow:
		return b.state.String()
	default:
		return b.mode.String()
	}
}

package breaker

import (
	"slices"
	"time"

	"github.com/backstay-go/backstay"
)

// round is a half-open period.
//
// No state of it refuses for ever. Places are taken by probes in flight, and each of those gives its place back: when it reports, whatever it reports,
// or when its lease is over. Successes and failures end the round, neutral endings leave it as it was.
type round struct {
	probes    []*probe // in flight, oldest first
	succeeded int
	failed    int    // at most Tolerated, or else the round is over
	lost      uint64 // probes given up, since the breaker was made
}

// probe is a place in the half-open quota, told apart by its address.
type probe struct {
	start time.Duration
	done  func(error) // gives the place back to the machine
}

// firstProbe begins a round. The open period is over. Called with mu held.
func (b *Breaker) firstProbe(now time.Duration, call *backstay.Call) (ticket, refusal) {
	done := b.machine.allow()
	if done == nil { // the clock stands where it stood when the machine was tripped
		return ticket{}, refusal{"open", minOpenFor}
	}
	b.enter(now, HalfOpen, cause{call: call, reason: "due"})
	return b.begin(now, done), refusal{}
}

// nextProbe lets a call of a half-open breaker through, if there is a place. Called with mu held.
func (b *Breaker) nextProbe(now time.Duration) (ticket, refusal) {
	r := b.rules.Load()
	for len(b.round.probes) > 0 && now-b.round.probes[0].start >= r.ProbeTimeout {
		b.round.probes[0].done(errExcluded)
		b.round.probes = slices.Delete(b.round.probes, 0, 1)
		b.round.lost++
	}
	if len(b.round.probes) < r.Probes && b.gapLeft(now, r) <= 0 {
		// The machine's own quota is Successes less what has succeeded: it refuses when those in flight are enough to close it.
		if done := b.machine.allow(); done != nil {
			return b.begin(now, done), refusal{}
		}
	}
	return ticket{}, refusal{"half-open", b.placeIn(now, r)}
}

// gapLeft is for how long the youngest probe still keeps others from starting. Called with mu held.
func (b *Breaker) gapLeft(now time.Duration, r *Config) time.Duration {
	n := len(b.round.probes)
	if n == 0 || b.round.succeeded > 0 {
		return 0
	}
	return b.round.probes[n-1].start + r.ProbeGap - now
}

// placeIn returns after how long a call is likely to be let through: the round is then decided, or the oldest lease over. Called with mu held.
func (b *Breaker) placeIn(now time.Duration, r *Config) time.Duration {
	if len(b.round.probes) == 0 {
		return 0
	}
	left := min(r.ProbeTimeout-(now-b.round.probes[0].start), r.OpenFor)
	if gap := b.gapLeft(now, r); gap > 0 && len(b.round.probes) < r.Probes {
		left = min(left, gap)
	}
	return max(left, 0)
}

// begin notes a probe that has its place. Called with mu held.
func (b *Breaker) begin(now time.Duration, done func(error)) ticket {
	p := &probe{start: now, done: done}
	b.round.probes = append(b.round.probes, p)
	return ticket{kind: probing, epoch: b.epoch, start: now, probe: p}
}

// probed files how a probe of this round ended, and reports false when it had been given up. Called with mu held.
func (b *Breaker) probed(now time.Duration, p *probe, class backstay.Class, slow bool, why cause) bool {
	i := slices.Index(b.round.probes, p)
	if i < 0 {
		return false
	}
	b.round.probes = slices.Delete(b.round.probes, i, i+1)
	r := b.rules.Load()
	switch {
	case class == backstay.Failure, class == backstay.Success && slow && r.SlowRate > 0:
		if b.round.failed++; b.round.failed > r.Tolerated {
			p.done(errFailed)
		} else {
			p.done(errExcluded)
		}
	case class == backstay.Success:
		b.round.succeeded++
		p.done(nil)
	default:
		p.done(errExcluded)
	}
	switch b.machine.state {
	case Open:
		why.reason = "probe failed"
		b.enter(now, Open, why)
	case Closed:
		why.reason, why.err = "probes succeeded", nil
		b.enter(now, Closed, why)
	}
	return true
}

// endRound ends a round that has gone on for MaxHalfOpen by what it has seen. Called with mu held.
func (b *Breaker) endRound(now time.Duration, call *backstay.Call) {
	r := b.rules.Load()
	if r.MaxHalfOpen == 0 || now-b.since < r.MaxHalfOpen || b.round.succeeded+b.round.failed == 0 {
		return
	}
	why := cause{call: call, reason: "half-open time"}
	if b.round.succeeded > b.round.failed {
		b.machine = nil
		b.enter(now, Closed, why)
		return
	}
	b.trip(now, why)
}

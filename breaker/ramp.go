package breaker

import "time"

// ramp is the time after closing in which the share of calls let through grows from none to all. A server that has just
// recovered has a cold cache and a queue of everybody's waiting work; all calls at once would fell it again.
type ramp struct {
	credit float64 // share of a call saved up: at 1, the next one passes
	flight int     // calls let through since the breaker closed that have not ended
}

// rampUp decides about a call of a closed breaker. Called with mu held.
func (b *Breaker) rampUp(now time.Duration) (ticket, refusal) {
	t := ticket{kind: counted, epoch: b.epoch, start: now}
	if !b.ramping {
		return t, refusal{}
	}
	left := time.Duration(b.until.Load()) - now
	if left <= 0 {
		b.ramping = false
		b.publish()
		return t, refusal{}
	}
	r := b.rules.Load()
	b.ramp.credit += b.share(now)
	switch {
	case b.ramp.credit >= 1:
		b.ramp.credit--
	case b.ramp.flight >= r.Probes: // few enough would be no burden
		return ticket{}, refusal{"ramping up", left}
	}
	b.ramp.flight++
	t.kind = ramped
	return t, refusal{}
}

// share is how much of the calls is let through at now. Called with mu held.
func (b *Breaker) share(now time.Duration) float64 {
	if !b.ramping {
		return 1
	}
	length := time.Duration(b.until.Load()) - b.since
	return min(max(float64(now-b.since)/float64(length), 0), 1)
}

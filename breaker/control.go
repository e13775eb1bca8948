package breaker

import (
	"context"
	"time"
)

// Trip opens the breaker now, as if a rule had said so: it probes when its period is over. An open breaker stays as it is, and so does one
// whose mode is neither [Auto] nor [Shadow].
func (b *Breaker) Trip() {
	if b == nil {
		return
	}
	b.mu.Lock()
	if b.state != Open && b.mode.judges() {
		b.trip(b.now(), cause{reason: "trip"})
	}
	b.unlock(context.Background())
}

// Reset closes the breaker now, without a ramp, and forgets all that it has counted. Results of calls in flight no longer matter. The mode stays.
func (b *Breaker) Reset() {
	if b == nil {
		return
	}
	b.mu.Lock()
	from := b.label()
	b.machine = nil
	b.become(b.now(), Closed, false)
	if b.label() != from {
		b.announce(from, cause{reason: "reset"})
	}
	b.unlock(context.Background())
}

// SetMode overrides the breaker's own judgement, or with [Auto] gives it back, until SetMode is called again. [Auto] and [Shadow] share
// one judgement, which goes on between them; any other change begins afresh, closed and with nothing counted. An unknown mode changes nothing.
func (b *Breaker) SetMode(m Mode) {
	if b == nil {
		return
	}
	b.mu.Lock()
	b.setMode(m)
	b.unlock(context.Background())
}

// setMode is SetMode with mu held.
func (b *Breaker) setMode(m Mode) {
	if m == b.mode || m > Shadow {
		return
	}
	from, judged := b.label(), b.mode.judges()
	b.mode = m
	if judged && m.judges() {
		b.publish()
	} else {
		b.machine = nil
		b.become(b.now(), Closed, false)
	}
	b.announce(from, cause{reason: "mode " + m.String()})
}

// judges reports whether the state is the breaker's own decision.
func (m Mode) judges() bool { return m == Auto || m == Shadow }

// Apply changes the config of a live breaker. The state stays, an open period that has begun keeps its length unless it is now above
// MaxOpenFor, and the window keeps its counts unless Window or Count change. A half-open breaker whose Successes change begins its probes anew. Name
// and Observer stay as they were in New. The mode changes only when c.Mode is not that of the config before, so that applying new
// thresholds does not undo a SetMode.
//
// An error is that of [Config.Validate], and nothing has changed then.
func (b *Breaker) Apply(c Config) error {
	if err := c.Validate(); err != nil || b == nil {
		return err
	}
	c = c.filled()
	b.mu.Lock()
	defer b.unlock(context.Background())
	old, now := b.rules.Load(), b.now()
	c.Name, c.Observer = old.Name, old.Observer
	b.rules.Store(&c)
	if c.Count != old.Count || c.Count == 0 && c.Window != old.Window {
		b.window = newWindow(&c)
	}
	if b.state == Open {
		b.until.Store(min(b.until.Load(), int64(now+c.MaxOpenFor)))
	}
	if c.Successes != old.Successes {
		b.remake(now, c.Successes)
	}
	if c.Mode != old.Mode {
		b.setMode(c.Mode)
	}
	return nil
}

// remake gives the breaker a machine of another quota, in the same state; in the half-open one as good as: it is open, and due. Called with mu held.
func (b *Breaker) remake(now time.Duration, successes int) {
	b.machine = nil
	if b.state == Closed {
		return
	}
	b.machine = newMachine(successes)
	b.machine.trip()
	least := int64(now + minOpenFor) // the machine needs its clock to move
	if b.state == Open {
		b.until.Store(max(b.until.Load(), least))
		return
	}
	opens := b.opens
	b.enter(now, Open, cause{reason: "config"})
	b.opens, b.ask = opens, false
	b.until.Store(least)
	b.outbox.amend(b.epoch, minOpenFor)
}

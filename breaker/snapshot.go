package breaker

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/backstay-go/backstay"
)

// State returns what the breaker does with the next call, [Due] included. It changes nothing. In the modes that override the breaker's
// judgement it is [Open] or [Closed], by what they do.
func (b *Breaker) State() State {
	if b == nil {
		return Closed
	}
	g := gate(b.gate.Load())
	switch {
	case g.mode() == ForcedOpen:
		return Open
	case g.state() == Open && b.now() >= time.Duration(b.until.Load()):
		return Due
	}
	return g.state()
}

// Snapshot is what a breaker was like at one moment.
type Snapshot struct {
	Name       string
	State      State
	Mode       Mode
	For        time.Duration // how long it has been in this state; one that is due still counts as open
	RetryAfter time.Duration // how long it refuses; 0 when it does not, or until the mode is changed
	Share      float64       // of the calls are let through: 1 closed, less in a ramp, 0 open and half-open

	Calls       int // endings in the window
	Failures    int // of them
	Slow        int // of them
	Consecutive int // failures since the last success
	Opens       int // how often it has opened since it was last closed

	Probes    int // in flight
	Succeeded int // probes of this half-open period
	Failed    int // probes of this half-open period

	Held     int    // permits of Acquire that have not reported
	Lost     uint64 // probes given up since New
	Rejected uint64 // calls refused since New; in Shadow, those that would have been
	Stale    uint64 // results dropped since New, as they came from an earlier state
}

// Snapshot returns what the breaker is like now. It changes nothing, and takes a lock that calls take as well.
func (b *Breaker) Snapshot() Snapshot {
	if b == nil {
		return Snapshot{Share: 1}
	}
	s := Snapshot{
		Name: b.rules.Load().Name, State: b.State(), Held: int(b.held.Load()), Rejected: b.rejected.Load(), Stale: b.stale.Load(),
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	sum := b.window.Counts(now)
	s.Mode, s.For = b.mode, now-b.since
	s.Calls, s.Failures, s.Slow = sum.Total, sum.Failures, sum.Slow
	s.Consecutive, s.Opens = b.streak.n, b.opens
	s.Probes, s.Succeeded, s.Failed, s.Lost = len(b.round.probes), b.round.succeeded, b.round.failed, b.round.lost
	switch {
	case s.State == Closed:
		s.Share = b.share(now)
	case b.mode.judges() && b.state == Open:
		s.RetryAfter = max(time.Duration(b.until.Load())-now, 0)
	}
	return s
}

// Keep implements [backstay.Keeper]. Closed without a failure in the window, there is nothing to remember. A mode set by hand is.
func (b *Breaker) Keep() (busy bool, left time.Duration) {
	if b == nil {
		return false, 0
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	now, r := b.now(), b.rules.Load()
	busy = b.held.Load() > 0
	switch {
	case b.mode != r.Mode:
		return busy, math.MaxInt64
	case b.mode == ForcedOpen || b.mode == Disabled:
		return busy, 0
	case b.state == Open:
		return busy, max(time.Duration(b.until.Load())-now, 0) + minOpenFor
	case b.state == HalfOpen:
		return busy || len(b.round.probes) > 0, minOpenFor
	case b.ramping && now < time.Duration(b.until.Load()) || b.window.Counts(now).Failures > 0:
		return busy, 1 // less than one that is due
	}
	return busy, 0
}

// Describe implements [backstay.Describer].
func (b *Breaker) Describe() backstay.Description {
	if b == nil {
		return backstay.Description{Kind: kindName, Detail: "none", Pends: true}
	}
	r := b.rules.Load()
	d := backstay.Description{Kind: kindName, Name: r.Name, Pends: true}
	in := fmt.Sprintf("in %v", r.Window)
	if r.Count > 0 {
		in = fmt.Sprintf("in the last %d", r.Count)
	} else {
		d.Window = r.Window
	}
	var rules []string
	if r.FailureRate > 0 {
		rules = append(rules, fmt.Sprintf("%.3g%% of ≥ %d %s", r.FailureRate*100, r.MinCalls, in))
	}
	if r.Consecutive > 0 {
		rules = append(rules, fmt.Sprintf("%d in a row", r.Consecutive))
	}
	if r.SlowRate > 0 {
		rules = append(rules, fmt.Sprintf("%.3g%% slower than %v", r.SlowRate*100, r.SlowCall))
	}
	d.Detail = strings.Join(rules, " or ") + fmt.Sprintf("; open %v to %v", r.OpenFor, r.MaxOpenFor)
	if m := gate(b.gate.Load()).mode(); m != Auto {
		d.Detail = m.String() + "; " + d.Detail
	}
	return d
}

// Gauges implements [backstay.Gauged]: one breaker in its present state, or in its mode where that overrides its judgement.
func (b *Breaker) Gauges(tell func(backstay.Gauge)) {
	if b == nil {
		return
	}
	s := b.Snapshot()
	state := s.State.String()
	if !s.Mode.judges() {
		state = s.Mode.String()
	}
	tell(backstay.Gauge{Kind: backstay.GaugeState, Policy: kindName, Name: s.Name, State: state, Value: 1})
}

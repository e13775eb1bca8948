package breaker

import (
	"errors"

	"github.com/sony/gobreaker/v2"
)

// machine keeps the state, the generation and the half-open quota, in gobreaker's two-step breaker. Nothing of gobreaker's counting or
// timing is used: its windows forget calls that outlast them, calls in flight dilute its rates, and its open period is one constant.
//
// Its settings turn it into a bare state machine. No Interval: the generation changes with the state and at no other time. ReadyToTrip always says
// yes: we report a failure only when we have decided to open. A Timeout of a nanosecond: we ask it for a probe only when our own period is over, and
// the asking moves it to half-open. Its State method is never called, as that may move it as well.
//
// Guarded by the breaker's mu.
type machine struct {
	cb    *gobreaker.TwoStepCircuitBreaker[struct{}]
	state State // the one it moved to last
}

var (
	errFailed   = errors.New("failed")   // what the machine is told of an ending that decides against the dependency
	errExcluded = errors.New("excluded") // and of one that decides nothing: its place is free again
)

// newMachine returns a closed one that needs so many successful probes to close.
func newMachine(successes int) *machine {
	m := &machine{}
	m.cb = gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
		MaxRequests:   uint32(successes),
		Timeout:       1,
		ReadyToTrip:   func(gobreaker.Counts) bool { return true },
		IsExcluded:    func(err error) bool { return err == errExcluded },
		OnStateChange: func(_ string, _, to gobreaker.State) { m.state = stateOf(to) },
	})
	return m
}

// trip moves a closed machine to open.
func (m *machine) trip() {
	if done, err := m.cb.Allow(); err == nil {
		done(errFailed)
	}
}

// allow asks for a probe; an open machine moves to half-open. done is nil when there is none to be had.
func (m *machine) allow() (done func(error)) {
	done, _ = m.cb.Allow()
	return done
}

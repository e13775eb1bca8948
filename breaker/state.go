package breaker

import (
	"fmt"

	"github.com/sony/gobreaker/v2"
)

// State is what a breaker does with the next call.
type State uint8

const (
	Closed   State = iota // lets calls through and counts how they end
	Open                  // refuses calls until its period is over
	HalfOpen              // lets a few calls through as probes
	Due                   // open, with its period over: the next call is a probe. Only [Breaker.State] and [Snapshot] say so
)

var stateNames = [...]string{"closed", "open", "half-open", "due"}

// String returns "closed", "open", "half-open" or "due".
func (s State) String() string { return name(stateNames[:], s) }

// MarshalText returns what String returns.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Mode is whose judgement a breaker follows.
type Mode uint8

const (
	Auto         Mode = iota // its own
	ForcedOpen               // refuses every call, until the mode is changed
	ForcedClosed             // lets every call through and counts it, but never opens
	Disabled                 // lets every call through and counts nothing
	Shadow                   // judges as in Auto but refuses nothing: what it would have refused is told as an event and counted
)

var modeNames = [...]string{"auto", "forced-open", "forced-closed", "disabled", "shadow"}

// String returns "auto", "forced-open", "forced-closed", "disabled" or "shadow".
func (m Mode) String() string { return name(modeNames[:], m) }

// MarshalText returns what String returns.
func (m Mode) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText accepts what String returns.
func (m *Mode) UnmarshalText(text []byte) error {
	for i, s := range modeNames {
		if s == string(text) {
			*m = Mode(i)
			return nil
		}
	}
	return fmt.Errorf("breaker: unknown mode %q, want one of %q", text, modeNames)
}

func name[T State | Mode](names []string, v T) string {
	if int(v) < len(names) {
		return names[v]
	}
	return fmt.Sprintf("unknown(%d)", uint8(v))
}

// stateOf translates gobreaker's state.
func stateOf(s gobreaker.State) State {
	switch s {
	case gobreaker.StateOpen:
		return Open
	case gobreaker.StateHalfOpen:
		return HalfOpen
	default:
		return Closed
	}
}

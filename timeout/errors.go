package timeout

import (
	"context"
	"fmt"
	"time"
)

// ErrExceeded matches, by errors.Is, every timeout of this package, and is itself a context.DeadlineExceeded with a Timeout method. The call was
// made and may have had effect.
var ErrExceeded error = exceeded{}

// ErrNoTime is why a call is refused when less than the minimum is left of its deadline. The call was not made. It
// is a context.DeadlineExceeded too, and the refusal is a backstay.ErrRejected.
var ErrNoTime error = noTime{}

type exceeded struct{}

func (exceeded) Error() string        { return "timeout exceeded" }
func (exceeded) Timeout() bool        { return true }
func (exceeded) Is(target error) bool { return target == context.DeadlineExceeded }

type noTime struct{}

func (noTime) Error() string        { return "no time left" }
func (noTime) Timeout() bool        { return true }
func (noTime) Is(target error) bool { return target == context.DeadlineExceeded }

// Error says which timeout fired. It is also the context's cause inside the call, then without Err. The call was made and may have had effect.
type Error struct {
	Name  string        // as the Config gave it; may be empty
	Limit time.Duration // how long the call was allowed
	Err   error         // what the call returned when it was told; nil: nothing, or a value that came too late
}

// Error returns, for example, `timeout "attempt": exceeded 2s`.
func (e *Error) Error() string {
	s := "timeout"
	if e.Name != "" {
		s += fmt.Sprintf(" %q", e.Name)
	}
	return s + ": exceeded " + e.Limit.String()
}

// Is reports whether target is ErrExceeded or context.DeadlineExceeded.
func (e *Error) Is(target error) bool {
	return target == ErrExceeded || target == context.DeadlineExceeded
}

// Timeout returns true. Code such as net/url asserts this method without unwrapping.
func (e *Error) Timeout() bool { return true }

// Unwrap returns Err.
func (e *Error) Unwrap() error { return e.Err }

package retry

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Why no further attempt was made, to be found by errors.Is in an error of a call, beside the error of its last attempt. In every
// case at least one attempt was made, may have had its effect, and a further one was due.
var (
	// ErrBudget says that the retry budget was empty. Repeating the call at once would add to an overload.
	ErrBudget = errors.New("retry budget is empty")
	// ErrDeadline says that the context's deadline would have passed in the wait, or too shortly after. It has not passed yet.
	ErrDeadline = errors.New("the wait would pass the deadline")
	// ErrElapsed says that the wait would have passed [Config].MaxElapsed.
	ErrElapsed = errors.New("the wait would pass the maximum elapsed time")
	// ErrHint says that the server asked to be left alone for longer than [Config].MaxHint.
	ErrHint = errors.New("the server asks to wait too long")
)

// ExhaustedError is the error of a call that gave up although a further attempt was due. The attempts were made and each may have
// had its effect, unless Err says otherwise; whether it is safe to repeat is for Err to say.
//
// It unwraps to Err, the last real error. errors.Is and errors.As find Cause too.
type ExhaustedError struct {
	Name     string        // the retry's, as its Config named it; may be empty
	Attempts int           // how many were made; 0 when the context ended the wait for a breaker before the first
	Elapsed  time.Duration // since the start of the call
	Wait     time.Duration // the wait that was not made; 0: none was due
	Err      error         // the error of the last attempt that was made to its end; nil when that had a value only
	Cause    error         // why there was no further one: ErrBudget, …, the context's error, the rejection of a policy; nil: Attempts were all
}

// Error returns, for example, `retry "inventory": 1 attempt in 12ms, then the wait would pass the deadline (5s): connection refused`.
func (e *ExhaustedError) Error() string {
	var s strings.Builder
	s.WriteString("retry")
	if e.Name != "" {
		fmt.Fprintf(&s, " %q", e.Name)
	}
	fmt.Fprintf(&s, ": %d attempt", e.Attempts)
	if e.Attempts != 1 {
		s.WriteByte('s')
	}
	fmt.Fprintf(&s, " in %v", round(e.Elapsed))
	if e.Cause != nil {
		fmt.Fprintf(&s, ", then %v", e.Cause)
		if e.Wait > 0 {
			fmt.Fprintf(&s, " (%v)", round(e.Wait))
		}
	}
	if e.Err != nil {
		fmt.Fprintf(&s, ": %v", e.Err)
	}
	return s.String()
}

// Attempted returns Attempts, for callers that do not import this package: after more than one, Err says nothing of what the
// earlier ones may have done.
func (e *ExhaustedError) Attempted() int { return e.Attempts }

// Unwrap returns Err.
func (e *ExhaustedError) Unwrap() error { return e.Err }

// Is reports whether Cause matches target. Err is matched through Unwrap.
func (e *ExhaustedError) Is(target error) bool { return errors.Is(e.Cause, target) }

// As finds target in Err, then in Cause.
func (e *ExhaustedError) As(target any) bool {
	return errors.As(e.Err, target) || errors.As(e.Cause, target)
}

// Timeout reports whether Err or Cause is a timeout, for callers such as url.Error, which do not unwrap.
func (e *ExhaustedError) Timeout() bool {
	for _, err := range []error{e.Err, e.Cause} {
		var t interface{ Timeout() bool }
		if errors.As(err, &t) && t.Timeout() {
			return true
		}
	}
	return false
}

// round leaves d three digits or so.
func round(d time.Duration) time.Duration {
	switch {
	case d >= time.Minute:
		return d.Round(time.Second)
	case d >= time.Second:
		return d.Round(10 * time.Millisecond)
	case d >= time.Millisecond:
		return d.Round(10 * time.Microsecond)
	}
	return d
}

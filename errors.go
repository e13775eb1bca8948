package backstay

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// ErrRejected matches, by errors.Is, every refusal by a policy. The call was not made and had no effect.
var ErrRejected = errors.New("rejected by a policy")

// ErrType is the error of a [Do] whose pipeline came back with a value of another type than it asked for. The call
// was made. It is a fault of a policy (a fallback with a value of the wrong type) and never repeated.
var ErrType = errors.New("backstay: wrong type of value")

// ErrNilFunc is the error of a call without a function.
var ErrNilFunc = errors.New("backstay: nil function")

// ErrNeedsHeld is the error of a [Do] whose value lives on the call's context, which ends when Do returns
// (*http.Response, *sql.Rows, *sql.Row, *sql.Tx). The function was not called. Use [DoHeld], or httpclient.
var ErrNeedsHeld = errors.New("backstay: this value lives on the context of the call: use DoHeld, or httpclient for HTTP")

// Rejected is a refusal by a policy. The call was not made, it had no effect, and it is safe to make it later. Other policies do not count it and a retry
// does not repeat it.
//
// errors.Is(err, ErrRejected) matches all of them; Err, by which one policy is told from another, is matched too.
type Rejected struct {
	Policy     string        // the kind of policy: "breaker", "bulkhead", …
	Name       string        // which one, as its Config named it; may be empty
	Reason     string        // in a few words: "open"
	RetryAfter time.Duration // when it may be let through; 0: unknown or now; never negative
	Err        error         // the policy's sentinel, e.g. breaker.ErrOpen
}

// Error returns, for example, `breaker "inventory": open, retry in 4.2s`.
func (r *Rejected) Error() string {
	s := r.Policy
	if r.Name != "" {
		s += fmt.Sprintf(" %q", r.Name)
	}
	s += ": " + r.Reason
	if r.RetryAfter > 0 {
		s += ", retry in " + shortDuration(r.RetryAfter)
	}
	return s
}

// Is reports whether target is ErrRejected.
func (r *Rejected) Is(target error) bool { return target == ErrRejected }

// Unwrap returns Err.
func (r *Rejected) Unwrap() error { return r.Err }

// shortDuration rounds d to two or three digits, up, so that it never says 0.
func shortDuration(d time.Duration) string {
	unit := time.Microsecond
	switch {
	case d >= time.Second:
		unit = 100 * time.Millisecond
	case d >= time.Millisecond:
		unit = time.Millisecond
	}
	if r := d.Round(unit); r > 0 {
		return r.String()
	}
	return unit.String()
}

// marked is an error with a verdict. It reads and unwraps as the error inside.
type marked struct {
	err   error
	class Class
	again Again
	wait  time.Duration
}

func (m *marked) Error() string { return m.err.Error() }
func (m *marked) Unwrap() error { return m.err }

// Permanent marks err as a failure that is not to be repeated. The function of [Do] returns it; Do's caller gets err
// itself. A nil err stays nil.
func Permanent(err error) error { return mark(err, Failure, No, 0) }

// RetryAfter marks err as a failure that may be repeated, but not before wait has passed. A wait of 0 or less
// gives no hint.
func RetryAfter(err error, wait time.Duration) error { return mark(err, Failure, Yes, max(wait, 0)) }

// Ignore marks err as one that says nothing about the dependency: breakers do not count it and it is not repeated.
// An error that shows the dependency to be well ("no such user") is better returned as a value, since a success lets a
// half-open breaker close.
func Ignore(err error) error { return mark(err, Neutral, No, 0) }

func mark(err error, class Class, again Again, wait time.Duration) error {
	if err == nil {
		return nil
	}
	return &marked{err: err, class: class, again: again, wait: wait}
}

// ContextErr returns why ctx is over, or nil. When its cause is an error of its own, the result
// matches both the cause and ctx.Err() (context.Canceled or context.DeadlineExceeded) by errors.Is.
func ContextErr(ctx context.Context) error {
	err := ctx.Err()
	if err == nil {
		return nil
	}
	cause := context.Cause(ctx)
	if cause == nil || errors.Is(cause, err) {
		if cause != nil {
			return cause
		}
		return err
	}
	return &endedError{cause: cause, err: err}
}

// endedError is a context's cause that still tells cancellation from deadline.
type endedError struct{ cause, err error }

func (e *endedError) Error() string   { return e.err.Error() + ": " + e.cause.Error() }
func (e *endedError) Unwrap() []error { return []error{e.cause, e.err} }
func (e *endedError) Timeout() bool   { return errors.Is(e.err, context.DeadlineExceeded) }

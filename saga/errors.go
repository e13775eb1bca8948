package saga

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/backstay-go/backstay"
)

// Errors of the engine and of definitions; those of stores stand in store.go.
var (
	// ErrDefinition says that a definition is wrong: an illegal graph, a result read without
	// Needs, a transactional step on a store of another kind. Define reports all faults at once.
	ErrDefinition = errors.New("saga: wrong definition")
	// ErrConflict says that the business key is in use with another input. Nothing was done.
	ErrConflict = errors.New("saga: business key in use with another input")
	// ErrAfterPivot says that the pivot is done and the saga goes on to its end. The request is
	// recorded in the history and changes nothing.
	ErrAfterPivot = errors.New("saga: too late: the pivot is done")
	// ErrUnclaimable says that live instances exist whose definition or version nobody here has.
	ErrUnclaimable = errors.New("saga: instances of unregistered definitions")
	// ErrSignalUnknown says that the definition waits for no such signal. Nothing was done.
	ErrSignalUnknown = errors.New("saga: no step waits for this signal")
	// ErrCodec says that a payload cannot be encoded or decoded. An instance parks.
	ErrCodec = errors.New("saga: payload cannot be encoded or decoded")
	// ErrTooLarge says that a payload is over the definition's limit. At Start nothing was done;
	// for a step's output the effect has happened and the instance parks.
	ErrTooLarge = errors.New("saga: payload over the limit")
	// ErrKeyReused says that a second unsafe request was about to carry the step's idempotency
	// key. It was not sent. Split the step, or make the request with Ctx.Part.
	ErrKeyReused = errors.New("saga: the step's idempotency key was used already: split the step or use Ctx.Part")
	// ErrState says that an operator's verb does not apply to the instance's state. Nothing was done.
	ErrState = errors.New("saga: not possible in this state")
	// ErrUnsupported says that the store lacks an ability that the call needs. Nothing was done.
	ErrUnsupported = errors.New("saga: the store lacks this ability")
	// ErrCancelled is the cause of a saga undone on request, and the cause on the context of
	// bodies that ran at that moment.
	ErrCancelled = errors.New("saga: cancelled")
	// ErrDeadline is the cause of a saga undone because its deadline passed.
	ErrDeadline = errors.New("saga: deadline passed")
	// ErrWaitTimeout is the cause of a saga undone because a signal did not come in time.
	ErrWaitTimeout = errors.New("saga: no signal in time")
	// ErrStopped is the cause on the context of bodies still running when the engine's grace ended.
	ErrStopped = errors.New("saga: engine stopped")
)

// Error is why a saga did not complete. errors.Is finds the business cause, which an undo's error
// never replaces; when the saga failed in another process, Cause holds its text only.
type Error struct {
	ID     string
	Step   string   // path of the step that failed; empty for a cancel or a deadline
	Cause  error    // why
	State  State    // Compensated, Resolved, ParkedFwd or ParkedUndo
	Undone []string // steps undone, in that order
	Parked error    // what stopped it, when it is parked: for ParkedUndo the undo's error
}

// Error describes the failure on one line.
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "saga %s: %s", e.ID, e.State)
	if e.Step != "" {
		fmt.Fprintf(&b, ": step %q", e.Step)
	}
	if e.Cause != nil {
		fmt.Fprintf(&b, ": %v", e.Cause)
	}
	if e.Parked != nil && e.Parked != e.Cause {
		fmt.Fprintf(&b, " (parked: %v)", e.Parked)
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// Fail marks err as a business no: the step is not repeated and the saga compensates (of an undo,
// that it will never succeed: the saga parks). The step itself is undone too, with an unknown
// outcome, unless NoEffect says that nothing happened.
func Fail(err error) error { return mark(err, marked{fail: true}) }

// NoEffect marks err as one before which nothing happened: the step need not be undone. It says
// nothing about repeating; combine it with Fail for a no that left no trace. It is a promise about this attempt, however often a client
// inside repeated the request: an answer of no is none, if it may have overtaken an earlier one that is still on its way.
func NoEffect(err error) error { return mark(err, marked{clean: true}) }

// Park marks err as one that an operator has to look at: the step is not repeated and the saga
// waits.
func Park(err error) error { return mark(err, marked{park: true}) }

// RetryAfter marks err as one to repeat after d, in place of the step's own backoff.
func RetryAfter(d time.Duration, err error) error {
	return mark(err, marked{wait: max(d, 0), waits: true})
}

// marked is an error with a verdict on the attempt. It reads and unwraps as the error inside.
type marked struct {
	err               error
	fail, clean, park bool
	waits             bool
	wait              time.Duration
}

func (m *marked) Error() string { return m.err.Error() }
func (m *marked) Unwrap() error { return m.err }

func mark(err error, m marked) error {
	if err == nil {
		return nil
	}
	m.err = err
	return &m
}

// verdict is what an error says of an attempt.
type verdict struct {
	fail, clean, park, panicked bool
	waits                       bool
	wait                        time.Duration
}

// judge reads the marks on err. infer also takes a refusal of our own policies, a failed dial and
// a gRPC call that was never sent for "no effect"; it is off when the body has made more than one unsafe request, since then an
// earlier one may have had effect. Of joined errors all have to say so.
func judge(err error, infer bool) verdict {
	v := judgeInner(err, infer)
	if sent, ok := err.(interface{ NeverSent() bool }); ok && sent.NeverSent() { // of grpcclient; it speaks for all attempts of the call
		v.clean = v.clean || infer
	}
	return v
}

func judgeInner(err error, infer bool) verdict {
	var v verdict
	switch e := err.(type) {
	case nil:
		return v
	case *marked:
		v = judge(e.err, infer)
		v.fail, v.clean, v.park = v.fail || e.fail, v.clean || e.clean, v.park || e.park
		if e.waits {
			v.waits, v.wait = true, e.wait
		}
		return v
	case *panicError:
		return verdict{panicked: true}
	case *codecError:
		return verdict{park: true}
	case *backstay.Rejected:
		return verdict{clean: infer}
	case *net.OpError:
		return verdict{clean: infer && e.Op == "dial"}
	case interface{ Unwrap() []error }:
		for i, part := range e.Unwrap() {
			p := judge(part, infer)
			v.fail, v.park, v.panicked = v.fail || p.fail, v.park || p.park, v.panicked || p.panicked
			v.clean = p.clean && (v.clean || i == 0) // all parts must say so
			if p.waits {
				v.waits, v.wait = true, max(v.wait, p.wait)
			}
		}
		return v
	}
	if errors.Is(err, ErrDefinition) {
		v.park = true
		return v
	}
	if many, ok := err.(interface{ Attempted() int }); ok && many.Attempted() > 1 {
		infer = false // the last attempt says nothing of those before it
	}
	if inner := errors.Unwrap(err); inner != nil {
		w := judge(inner, infer)
		w.panicked, w.fail, w.clean, w.park = w.panicked || v.panicked, w.fail || v.fail, w.clean || v.clean, w.park || v.park
		return w
	}
	return v
}

// panicError is a body's panic.
type panicError struct {
	value any
	stack []byte
}

func (p *panicError) Error() string { return fmt.Sprintf("panic: %v", p.value) }

// codecError is a payload that cannot go through the codec.
type codecError struct {
	what string
	err  error
}

func (e *codecError) Error() string   { return fmt.Sprintf("saga: %s: %v", e.what, e.err) }
func (e *codecError) Unwrap() []error { return []error{ErrCodec, e.err} }

// textError is an error that another process wrote down.
type textError string

func (e textError) Error() string { return string(e) }

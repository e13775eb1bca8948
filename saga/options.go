package saga

import (
	"math/rand/v2"
	"time"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/internal/deadline"
)

// StepOption changes one step, or with Compensate its undo.
type StepOption func(n *node, o *options)

// options are the policy of one direction of a step.
type options struct {
	Timeout   time.Duration
	Attempts  int // < 0: unlimited
	First     time.Duration
	Cap       time.Duration
	KeyTTL    time.Duration      // 0: keys do not expire
	Others    bool               // of an undo: go on with the others when it fails
	Cancel    bool               // of Parallel and Each: cancel siblings on a failure
	Width     int                // of Each
	Within    time.Duration      // of Wait and Delay; 0: no limit
	GoOn      bool               // of Wait: a timeout is no failure
	through   *backstay.Pipeline // nil: none
	attempted bool               // Attempts was given
	limit     *deadline.Limit    // of all attempts: Timeout
}

// The defaults. Three attempts over about a second ride out a restarted peer without holding up a
// user who waits; an undo has no user waiting and must win, so it is tried for some minutes before
// it asks for a person; a retriable step is repeated for ever, every half minute in the end.
var (
	actionDefaults    = options{Timeout: 30 * time.Second, Attempts: 3, First: 200 * time.Millisecond, Cap: 30 * time.Second, Width: 1}
	undoDefaults      = options{Timeout: 30 * time.Second, Attempts: 12, First: 200 * time.Millisecond, Cap: time.Minute}
	retriableAttempts = -1
)

// Timeout limits each attempt: its context ends after d. Default 30 s; at least 1 ms.
func Timeout(d time.Duration) StepOption {
	return func(n *node, o *options) {
		if d < time.Millisecond {
			n.in.def.fault(n.static, "Timeout(%v) is below 1ms", d)
			return
		}
		o.Timeout = d
	}
}

// Attempts limits the total number of attempts, counted across restarts. Default 3, for an undo
// 12, for a retriable step without limit. A negative number means without limit, which Define
// refuses for a step before the pivot: it would neither go on nor back.
func Attempts(n int) StepOption {
	return func(at *node, o *options) {
		if n == 0 {
			at.in.def.fault(at.static, "Attempts(0): use 1 for no repetition, -1 for no limit")
			return
		}
		o.Attempts, o.attempted = n, true
	}
}

// Backoff sets the wait between attempts: drawn evenly from 0 to first, doubled each time, up to
// max ("full jitter"). Default 200 ms up to 30 s, for an undo up to 1 min.
func Backoff(first, max time.Duration) StepOption {
	return func(n *node, o *options) {
		if first <= 0 || max < first {
			n.in.def.fault(n.static, "Backoff(%v, %v): want 0 < first <= max", first, max)
			return
		}
		o.First, o.Cap = first, max
	}
}

// KeyTTL says how long the other side remembers the step's idempotency key. An attempt that
// would begin later than that after the first is not made; the step parks as in doubt, since it
// might take effect a second time. Default 0: the key does not expire.
func KeyTTL(d time.Duration) StepOption {
	return func(n *node, o *options) {
		if d <= 0 {
			n.in.def.fault(n.static, "KeyTTL(%v) is not positive", d)
			return
		}
		o.KeyTTL = d
	}
}

// Needs declares the results that the step's bodies read with Get. Each must be certain to
// exist by then: an earlier step of the same or an enclosing sequence, or of branches that have
// all ended.
func Needs(refs ...Needed) StepOption {
	return func(n *node, _ *options) {
		for _, r := range refs {
			n.needs = append(n.needs, r.needed())
		}
	}
}

// Through runs each attempt of the body through a policy: a breaker, a bulkhead, a rate limit. Its
// refusals count as no effect.
func Through(p backstay.Policy) StepOption {
	return func(_ *node, o *options) { o.through = backstay.Chain(p) }
}

// ContinueOthers, given to Compensate, goes on with the remaining undos when this one fails for
// good; the saga parks after them. By default it parks at once, since later undos may build on
// this one.
func ContinueOthers() StepOption { return func(_ *node, o *options) { o.Others = true } }

// CancelSiblings, given to Parallel or Each, cancels the running bodies of the other branches when one
// fails. By default they run to their end, so that fewer steps are left in doubt.
func CancelSiblings() StepOption { return func(_ *node, o *options) { o.Cancel = true } }

// AtOnce, given to Each, works on up to n elements at the same time. Default 1: in order.
func AtOnce(n int) StepOption {
	return func(at *node, o *options) {
		if n < 1 {
			at.in.def.fault(at.static, "AtOnce(%d) is below 1", n)
			return
		}
		o.Width = n
	}
}

// Within, given to Wait, limits the wait. Default: no limit but the saga's deadline. When it passes, the saga
// compensates with ErrWaitTimeout, or parks after the pivot.
func Within(d time.Duration) StepOption {
	return func(n *node, o *options) {
		if d <= 0 {
			n.in.def.fault(n.static, "Within(%v) is not positive", d)
			return
		}
		o.Within = d
	}
}

// OrGoOn, given to Wait beside Within, goes on without a value when the time has passed: see Ref.Lookup.
func OrGoOn() StepOption { return func(_ *node, o *options) { o.GoOn = true } }

// backoff draws the wait before attempt n+1, after n have failed.
func (o *options) backoff(n int) time.Duration {
	top := o.Cap
	if n < 32 && o.First<<(n-1) > 0 {
		top = min(top, o.First<<(n-1))
	}
	return rand.N(top + 1)
}

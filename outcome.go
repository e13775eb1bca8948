package backstay

import (
	"context"
	"errors"
	"time"
)

// Class says what an outcome counts as for breakers, failure rates and limits.
type Class uint8

const (
	Unclassified Class = iota // nobody has said; [Outcome.Judge] then decides by Err
	Success                   // the dependency works: an answer, "not found" included
	Failure                   // the dependency does not: an error, a 5xx, its own timeout
	Neutral                   // says nothing about the dependency: the caller cancelled, a policy refused
)

// String returns the name in lower case.
func (c Class) String() string {
	switch c {
	case Success:
		return "success"
	case Failure:
		return "failure"
	case Neutral:
		return "neutral"
	default:
		return "unclassified"
	}
}

// Again says whether something may be repeated. It is apart from Class: a 429 is no failure of a
// dependency and may be repeated, a 503 to a POST is one and may not.
type Again uint8

const (
	Unsaid Again = iota // nobody has said; a retry repeats a Failure then, a hedge does not
	Yes                 // may be repeated
	No                  // must not be repeated
)

// Sent says whether an attempt's request has left this process.
type Sent uint8

const (
	SentUnknown Sent = iota // it may have
	SentNever               // provably not: it had no effect, and repeating it is safe
	SentYes                 // it has
)

// Outcome is how an attempt ended. It is a value: parallel attempts never share one.
type Outcome struct {
	Value    any           // what the call returned; typed again by [Do]
	Err      error         // nil for success; adapters may set both (an HTTP 503 has a response and an error)
	Held     Held          // what Value holds until it is let go; nil: nothing
	Wait     time.Duration // the server's hint: not again before; 0: none
	Class    Class         // what it counts as
	Again    Again         // may it be repeated
	Sent     Sent          // did the request leave this process
	Shed     bool          // the server says that it is overloaded: adaptive limits count a drop
	Answered bool          // the other side answered: the ending is its own, whatever became of the context
	// WaitExact says that Wait, also one of 0, is an order of the server's: a retry waits for just that long, and its schedule begins anew after it
	// (gRPC's pushback, gRFC A6). Without it Wait is the least wait.
	WaitExact bool
	// Status is the number of an answer's status, such as HTTP's 404; 0: none. Policies do not look at it; it is for events, since an answer that is
	// a Success to them may be none to the caller.
	Status uint16
}

// Held is what an outcome holds beyond its attempt: a response body, rows, a stream. Whoever drops an outcome calls
// Release; whoever keeps something for as long as the value is in use (a permit, a context) hands its own clean-up to OnRelease.
// All methods are safe for concurrent use and a second Release does nothing.
type Held interface {
	// Release lets go of the value.
	Release()
	// OnRelease runs f once, after the value has been let go, and at once if it has been already. Several run in reverse order.
	OnRelease(f func())
}

// Breakable is the optional ability of a [Held] to say that the value turned out to be broken after its attempt had ended well: a
// body that stalled. OnBreak's f is run once, if that happens, with why; not for the caller's own cancellation.
type Breakable interface {
	OnBreak(f func(err error))
}

// Pending is a [Held] whose attempt is not over when its handler returns: a stream that stands, of which nothing has come yet. The outcome around it is a Success so
// far, and no ending. A policy that handles it hands over by Then what it would have done with an ending, and returns the outcome as it is. It says so in its
// [Description]: a pipeline all policies of which do needs no goroutine to open such a value, those of another never see one.
type Pending interface {
	Held
	// Then has e called once with the ending of the attempt, after what policies inside have handed over; policies outside get what it returns. Then is for
	// the goroutine of the handler, until that returns. e may be called by another one, and before the pipeline's caller has returned.
	Then(e Ender)
}

// Ender is what a policy does with an ending.
type Ender interface {
	End(out Outcome) Outcome
}

// EnderFunc is a function that is an [Ender].
type EnderFunc func(out Outcome) Outcome

// End calls f.
func (f EnderFunc) End(out Outcome) Outcome { return f(out) }

// Owner is the optional ability of a [Held] to end contexts by itself when it is let go. Owns reports whether it does so for ctx; a
// policy that made ctx then need not.
type Owner interface {
	Owns(ctx context.Context) bool
}

// Release lets go of what o holds, if anything.
func (o Outcome) Release() {
	if o.Held != nil {
		o.Held.Release()
	}
}

// Judge says what o counts as for a policy that was handed ctx. ran is how long the attempt took, slow from when on an attempt
// that a deadline cut short counts against the dependency; slow <= 0 never counts it.
//
// An attempt that was ended from outside says little about the dependency. So a failure without an answer is
//   - Neutral, when ctx was cancelled (by the caller, by a hedge that lost);
//   - when a deadline of ctx passed, Failure if the attempt had run for at least slow, else Neutral.
//
// The attempt timeout's own expiry does not end the context that policies outside it hold, so it stays a Failure there.
func (o Outcome) Judge(ctx context.Context, ran, slow time.Duration) Class {
	class := o.Class
	if class == Unclassified {
		class, _ = classify(o.Err)
	}
	if class != Failure || o.Answered {
		return class
	}
	switch err := ctx.Err(); {
	case err == nil:
		return Failure
	case errors.Is(err, context.DeadlineExceeded) || errors.Is(context.Cause(ctx), context.DeadlineExceeded):
		if slow > 0 && ran >= slow {
			return Failure
		}
	}
	return Neutral
}

// Settled returns o with Class, Again and Wait filled in from Err where nobody has set a class, by the
// rules of [Do]. Adapters call it on errors that they do not know better.
func (o Outcome) Settled() Outcome {
	if o.Class != Unclassified {
		return o
	}
	class, mark := classify(o.Err)
	o.Class = class
	if o.Err == nil {
		o.Answered = true
		return o
	}
	if mark != nil {
		if o.Again == Unsaid {
			o.Again = mark.again
		}
		if o.Wait == 0 {
			o.Wait = mark.wait
		}
		if o.Err == error(mark) {
			o.Err = mark.err // the mark has done its work; the caller gets the bare error
		}
	} else if class == Neutral {
		o.Again = No
	}
	return o
}

// classify says what err counts as when only the error is known, and returns the innermost-going first mark on it.
func classify(err error) (Class, *marked) {
	if err == nil {
		return Success, nil
	}
	if m, ok := errors.AsType[*marked](err); ok {
		return m.class, m
	}
	if errors.Is(err, ErrRejected) {
		return Neutral, nil
	}
	return Failure, nil
}

// Reject returns the outcome of a call that a policy refused: nothing was attempted, other policies do not count it,
// and a retry does not repeat it.
func Reject(r *Rejected) Outcome {
	return Outcome{Err: r, Class: Neutral, Again: No, Sent: SentNever}
}

// Ended returns the outcome of a call whose context was over before an attempt was started.
func Ended(ctx context.Context) Outcome {
	return Outcome{Err: ContextErr(ctx), Class: Neutral, Again: No, Sent: SentNever}
}

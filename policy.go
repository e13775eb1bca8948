package backstay

import "context"

// Handler makes one attempt of a call and says how it ended. It blocks until the attempt is over.
//
// ctx bounds the attempt and may be narrower than the call; call says what the policies of one
// pipeline agree on. Handlers are called from many goroutines at once.
type Handler func(ctx context.Context, call *Call) Outcome

// Policy puts behaviour around a Handler. An implementation has these duties:
//
//  1. Wrap may be called many times and from several goroutines: what a policy remembers (a window, permits,
//     tokens) lives in the policy value, never in the closure that Wrap returns. So one breaker serves
//     several pipelines.
//  2. The returned Handler calls next with a context derived from the one it was given, and not after it
//     has returned.
//  3. It never stores a context, and never runs user code under a lock.
//  4. It gives back what it took (a permit, a probe) on every way out: return, panic and runtime.Goexit.
//  5. It lets go of every outcome that it does not hand on: see [Held].
//  6. It judges how an attempt ended by [Outcome.Judge], with the context that it was handed itself.
//  7. It refuses a call with [Reject], so that other policies know that nothing was attempted.
//  8. A nil receiver wraps to next itself.
type Policy interface {
	Wrap(next Handler) Handler
}

// PolicyFunc is a function that is a [Policy]. A policy of your own is one function literal.
type PolicyFunc func(next Handler) Handler

// Wrap calls f. A nil f wraps to next itself.
func (f PolicyFunc) Wrap(next Handler) Handler {
	if f == nil {
		return next
	}
	return f(next)
}

// Classify returns a policy that lets f correct what an attempt is taken for: which answers are failures,
// which may be repeated, how long to wait. Put it innermost, so that every other policy reads its verdict.
// f must not block; it is called from many goroutines.
func Classify(f func(ctx context.Context, out Outcome) Outcome) Policy {
	return PolicyFunc(func(next Handler) Handler {
		if f == nil {
			return next
		}
		return func(ctx context.Context, call *Call) Outcome { return f(ctx, next(ctx, call)) }
	})
}

// Describer is the optional ability of a [Policy] to say what it is, for [Pipeline.String] and [Pipeline.Lint].
type Describer interface {
	Describe() Description
}

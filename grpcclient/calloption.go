package grpcclient

import (
	"context"
	"time"

	"google.golang.org/grpc"

	"github.com/backstay-go/backstay"
)

// callOption changes one call. It is a grpc.CallOption that does nothing to those who do not know it.
type callOption struct {
	grpc.EmptyCallOption
	apply func(*choice)
}

// choice is what the call options of one call say.
type choice struct {
	repeat   backstay.Again
	attempts int
	hedge    time.Duration
}

// Attempts sets the total number of attempts for this call. n <= 0 leaves the number of the table or of the retry.
func Attempts(n int) grpc.CallOption {
	return callOption{apply: func(c *choice) {
		if n > 0 {
			c.attempts = n
		}
	}}
}

// Idempotent says that this call may be made more than once, also at the same time, whatever its method.
func Idempotent() grpc.CallOption {
	return callOption{apply: func(c *choice) { c.repeat = backstay.Yes }}
}

// NoRetry makes this call once.
func NoRetry() grpc.CallOption {
	return callOption{apply: func(c *choice) { c.repeat, c.attempts, c.hedge = backstay.No, 1, -1 }}
}

// Hedge starts a further attempt of this call beside the first when that has taken after, if the call may be repeated and its reply is a proto message; the
// first good answer wins. It draws on the budget of the retries. after <= 0: this call is not hedged.
//
// It needs a pipeline that asks it, by [HedgeAfter]; the default one does.
func Hedge(after time.Duration) grpc.CallOption {
	return callOption{apply: func(c *choice) {
		if c.hedge = after; after <= 0 {
			c.hedge = -1
		}
	}}
}

type hedgeKey struct{}

// HedgeAfter is for DelayFor of a hedge.Config: it hedges calls that say so ([Hedge], or Hedge of [Method]) after their delay, and all others after def, or
// not at all when def is negative.
func HedgeAfter(def time.Duration) func(context.Context, *backstay.Call) time.Duration {
	if def < 0 {
		def = never
	}
	return func(ctx context.Context, _ *backstay.Call) time.Duration {
		if d, ok := ctx.Value(hedgeKey{}).(time.Duration); ok {
			return d
		}
		return def
	}
}

// choose puts together what is known of the method and what the call options say.
func (k *known) choose(opts []grpc.CallOption) choice {
	c := choice{repeat: k.repeat, attempts: k.attempts, hedge: k.hedge}
	for i, o := range opts {
		if _, ok := o.(callOption); ok {
			return c.with(opts[i:])
		}
	}
	return c
}

// with is apart so that a call without options of ours does not pay for their pointer.
func (c choice) with(opts []grpc.CallOption) choice {
	for _, o := range opts {
		if o, ok := o.(callOption); ok {
			o.apply(&c)
		}
	}
	return c
}

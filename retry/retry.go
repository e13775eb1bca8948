package retry

import (
	"context"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/budget"
)

// Retry is a policy that repeats failed calls. It holds nothing of any call, so one Retry serves any number of pipelines. A nil *Retry makes
// each call once. All methods are safe for concurrent use.
type Retry struct {
	c    Config // with defaults
	loop *backstay.Pipeline
}

// New returns a Retry. It panics when c is not valid.
func New(c Config) *Retry {
	if err := c.Validate(); err != nil {
		panic(err)
	}
	r := &Retry{c: c.withDefaults()}
	r.loop = backstay.Chain(r)
	return r
}

// Wrap implements [backstay.Policy].
func (r *Retry) Wrap(next backstay.Handler) backstay.Handler {
	if r == nil {
		return next
	}
	return func(ctx context.Context, call *backstay.Call) backstay.Outcome { return r.Around(ctx, call, next) }
}

// Around implements [backstay.Around].
func (r *Retry) Around(ctx context.Context, call *backstay.Call, next backstay.Handler) backstay.Outcome {
	if r == nil {
		return next(ctx, call)
	}
	tokens := r.c.Budget
	if r.c.BudgetFor != nil {
		tokens = r.c.BudgetFor(call.Key())
	}
	tokens.Deposit()

	limit := r.c.Attempts
	if n := call.MaxAttempts(); n > 0 {
		limit = n
	}
	if limit == 1 || !call.BeginRetry() && !r.c.Nested {
		return next(ctx, call)
	}
	out := next(ctx, call)
	if p, ok := out.Held.(backstay.Pending); ok {
		limit, tokens := limit, tokens // so that only what comes here pays for keeping them
		p.Then(backstay.EnderFunc(func(out backstay.Outcome) backstay.Outcome { return r.after(ctx, call, limit, tokens, out, next) }))
		return out
	}
	return r.after(ctx, call, limit, tokens, out, next)
}

// after goes on from the outcome of the first attempt.
func (r *Retry) after(ctx context.Context, call *backstay.Call, limit int, tokens *budget.Budget, out backstay.Outcome, next backstay.Handler) backstay.Outcome {
	if out.Class == backstay.Success && out.Err == nil {
		return out
	}
	s := series{
		c: &r.c, ctx: ctx, call: call, current: call, limit: limit, tokens: tokens, waits: waits{c: &r.c},
	}
	return s.run(out, next)
}

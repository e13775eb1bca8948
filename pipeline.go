package backstay

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/backstay-go/backstay/internal/tap"
)

// Pipeline is a chain of policies around a call. It is immutable and safe for concurrent use; build it once, at
// start, and keep it: the state of its policies is what protects. A nil Pipeline and the zero one run the call alone.
type Pipeline struct {
	policies []Policy
	handler  Handler // the policies around attempt
	observer Observer
	asked    Enabler // the observer, if it can say that it wants no events; nil: it cannot
	timeless bool    // the observer has no use for how long attempts took
}

// Chain returns the pipeline of policies, outermost first: the first one listed sees a call first and its ending last. Nil policies are
// left out; an empty chain runs the call. See the package documentation for the order that works.
func Chain(policies ...Policy) *Pipeline {
	p := &Pipeline{policies: slices.DeleteFunc(slices.Clone(policies), func(p Policy) bool { return p == nil })}
	p.handler = p.Wrap(attempt)
	return p
}

// Observe returns a pipeline with the same policies, sharing their state, whose calls are also watched by o.
func (p *Pipeline) Observe(o Observer) *Pipeline {
	if p == nil {
		p = Chain()
	}
	q := *p
	q.observer = Observers(p.observer, o)
	q.asked, _ = q.observer.(Enabler)
	_, q.timeless = q.observer.(interface{ Timeless(tap.Key) })
	return &q
}

// Wrap puts the pipeline's policies around next: a Pipeline is itself a Policy. Its observer does not come
// along; that of the outer pipeline acts.
func (p *Pipeline) Wrap(next Handler) Handler {
	if p == nil {
		return next
	}
	for _, policy := range slices.Backward(p.policies) {
		next = policy.Wrap(next)
	}
	return next
}

// Policies returns the policies, outermost first.
func (p *Pipeline) Policies() []Policy {
	if p == nil {
		return nil
	}
	return slices.Clone(p.policies)
}

// Describe returns the descriptions of the policies.
func (p *Pipeline) Describe() Description {
	d := Description{Kind: "pipeline", Pends: true}
	if p != nil {
		for _, policy := range p.policies {
			inner := describe(policy)
			d.Inner = append(d.Inner, inner)
			d.Pends = d.Pends && inner.Pends
		}
	}
	return d
}

// String returns the nesting, one policy a line, outermost first.
func (p *Pipeline) String() string {
	var s strings.Builder
	depth := 0
	var write func([]Description)
	write = func(all []Description) {
		for _, d := range all {
			if d.Kind != "pipeline" {
				s.WriteString(strings.Repeat("  ", depth))
				s.WriteString(d.String())
				s.WriteByte('\n')
				depth++
			}
			write(d.Inner)
		}
	}
	write(p.Describe().Inner)
	return s.String() + strings.Repeat("  ", depth) + "call\n"
}

// Handle makes the call that info describes through the pipeline, each attempt of it by a. It is for adapters of transports; functions
// are called by [Do]. The context of an attempt belongs to it; the outcome may hold a value that outlives it only
// when info.Holds is set.
func (p *Pipeline) Handle(ctx context.Context, info CallInfo, a Attempter) Outcome {
	return p.HandleIn(ctx, &Call{}, info, a)
}

// HandleIn is [Pipeline.Handle] with the memory of the Call provided by the adapter, as a field of what it allocates for a call anyway. call must be
// a zero Call, and serves one call only.
func (p *Pipeline) HandleIn(ctx context.Context, call *Call, info CallInfo, a Attempter) Outcome {
	call.info, call.target = info, a
	return p.run(ctx, call)
}

// Attempter makes the attempts of one call; a [Handler] is one. Attempt may be called again while an earlier one runs, if
// the call is marked as repeatable and the pipeline hedges.
type Attempter interface {
	Attempt(ctx context.Context, call *Call) Outcome
}

// Attempt calls h.
func (h Handler) Attempt(ctx context.Context, call *Call) Outcome { return h(ctx, call) }

// run starts the call c, whose info and target are set.
func (p *Pipeline) run(ctx context.Context, c *Call) Outcome {
	c.ctx, c.first, c.attempt, c.began = ctx, c, 1, time.Since(epoch)
	c.made.Store(1)
	handler := Handler(attempt)
	if p != nil {
		if p.asked == nil || p.asked.Enabled(ctx) {
			c.observer, c.timeless = p.observer, p.timeless
		}
		if p.handler != nil {
			handler = p.handler
		}
	}
	if outer := CallFrom(ctx); outer != nil && outer.retrying.Load() {
		c.retrying.Store(true)
	}
	switch own := ctx.Value(tap.Key{}).(type) {
	case joiner:
		c.timeless = c.timeless || c.observer == nil
		c.observer = own.Join(c.observer)
	case Observer:
		c.observer, c.timeless = beside(c.observer, own), false
	}
	if c.observer == nil {
		return handler(c, c)
	}
	return c.observed(handler)
}

// observed runs the call and reports its end, a panic's included.
func (c *Call) observed(handler Handler) (out Outcome) {
	returned := false
	defer func() {
		if !returned {
			c.ended(nil)
		}
	}()
	out = handler(c, c)
	returned = true
	if p, ok := out.Held.(Pending); ok {
		p.Then(EnderFunc(func(out Outcome) Outcome { c.ended(&out); return out }))
		return out
	}
	c.ended(&out)
	return out
}

// ended reports the end of the call; out is nil when it did not return.
func (c *Call) ended(out *Outcome) {
	e := Event{Kind: EventCall, Attempt: int(c.made.Load()), Elapsed: time.Since(epoch) - c.began, Class: Failure}
	if out != nil {
		e.Class, e.Status, e.Err = out.Judge(c.ctx, e.Elapsed, 0), out.Status, out.Err
	}
	c.emit(c.ctx, nil, &e)
}

// attempt is the innermost handler: it makes one attempt.
func attempt(ctx context.Context, call *Call) Outcome {
	if over(ctx) {
		return Ended(ctx)
	}
	if call.observer == nil {
		return call.target.Attempt(ctx, call).Settled()
	}
	return call.observedAttempt(ctx)
}

// why says what the attempt was started for.
func (c *Call) why() string {
	switch {
	case c.attempt <= 1:
		return "first"
	case c.prev == nil: // it runs beside the one before
		return "hedge"
	}
	return "retry"
}

// joiner is a timeless observer on a context that takes the pipeline's in: told beside it, it costs no allocation.
type joiner interface {
	Timeless(tap.Key)
	Join(pipeline Observer) Observer
}

// clock is the time since epoch, for those who want to know how long an attempt took.
func (c *Call) clock() time.Duration {
	if c.timeless {
		return 0
	}
	return time.Since(epoch)
}

func (c *Call) observedAttempt(ctx context.Context) (out Outcome) {
	start, returned := c.clock(), false
	defer func() {
		if !returned {
			c.attemptEnded(ctx, start, nil)
		}
	}()
	out = c.target.Attempt(ctx, c).Settled()
	returned = true
	if p, ok := out.Held.(Pending); ok {
		p.Then(EnderFunc(func(out Outcome) Outcome { c.attemptEnded(ctx, start, &out); return out }))
		return out
	}
	c.attemptEnded(ctx, start, &out)
	return out
}

// attemptEnded reports the end of an attempt; out is nil when it did not return.
func (c *Call) attemptEnded(ctx context.Context, start time.Duration, out *Outcome) {
	e := Event{Kind: EventAttempt, Elapsed: c.clock() - start, Class: Failure, Reason: c.why()}
	if out != nil {
		e.Class, e.Status, e.Err = out.Judge(ctx, e.Elapsed, 0), out.Status, out.Err
	}
	c.emit(ctx, nil, &e)
}

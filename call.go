package backstay

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/backstay-go/backstay/internal/tap"
)

// CallInfo is what is known of a call before its first attempt. The zero value is a call without a name, of unknown
// repeatability, whose value ends with it.
type CallInfo struct {
	Name     string // the operation, for events and metrics; few distinct values ("GET inventory"), never an id
	Key      string // whose state applies: a host, a tenant; read by [Keyed]
	Repeat   Again  // may the call be made more than once: Unsaid lets a retry do so, but no hedge
	Attempts int    // total attempts, in place of the retry's own; 0: the retry's own; 1: no retry
	Holds    bool   // the value outlives the call and is let go by its [Held]
}

// CallOption changes one call. Options apply in order.
type CallOption func(*CallInfo)

// Named sets the operation's name: few distinct values, since it becomes a metric label.
func Named(name string) CallOption { return func(i *CallInfo) { i.Name = name } }

// WithKey sets whose state applies to the call: a host, a tenant. See [Keyed].
func WithKey(key string) CallOption { return func(i *CallInfo) { i.Key = key } }

// Idempotent says that the call may be made more than once, also at the same time: the function has no effect beyond the
// first, and touches nothing that a second one running beside it would race for.
func Idempotent() CallOption { return func(i *CallInfo) { i.Repeat = Yes } }

// NoRetry makes the call once.
func NoRetry() CallOption { return func(i *CallInfo) { i.Attempts, i.Repeat = 1, No } }

// Attempts sets the total number of attempts for this call. n <= 0 leaves the retry's own number.
func Attempts(n int) CallOption { return func(i *CallInfo) { i.Attempts = max(n, 0) } }

// Call is one call on its way through a pipeline: what its policies agree on. Policies only read it; one that starts another
// attempt derives a Call with [Call.Next].
//
// A Call is also the context of its attempts, so that [CallFrom] finds it without another allocation.
type Call struct {
	ctx      context.Context // what the attempt's context was derived from; immutable
	first    *Call           // the call's first attempt, which holds what all share
	target   Attempter
	observer Observer // nil: none
	prev     error    // why the attempt before this one ended
	info     CallInfo
	began    time.Duration // of the attempt, since epoch
	attempt  int32
	timeless bool        // the observer has no use for how long the attempt took
	retrying atomic.Bool // a retry repeats this call or one around it; a hedge outside that retry may derive a Call meanwhile

	made atomic.Int32 // attempts started; used in first only
}

// Name returns the operation's name; may be empty.
func (c *Call) Name() string { return c.info.Name }

// Key returns whose state applies: a host, a tenant; may be empty.
func (c *Call) Key() string { return c.info.Key }

// Repeat says whether the call may be made more than once.
func (c *Call) Repeat() Again { return c.info.Repeat }

// MaxAttempts returns the call's own limit of attempts, or 0 when it has none.
func (c *Call) MaxAttempts() int { return c.info.Attempts }

// Holds reports whether the call's value outlives it. The contexts and permits of its attempts then end when the value is let go; see [Held].
func (c *Call) Holds() bool { return c.info.Holds }

// Attempt returns the number of this attempt within the call, from 1. Parallel attempts have different numbers.
func (c *Call) Attempt() int { return int(c.attempt) }

// Elapsed returns how long ago the call began: its first attempt, at the outermost policy of its pipeline.
func (c *Call) Elapsed() time.Duration { return time.Since(epoch) - c.first.began }

// epoch is where calls count their time from: reading the time since a moment is cheaper than reading the time.
var epoch = time.Now()

// Previous returns why the attempt before this one ended; nil for the first.
func (c *Call) Previous() error { return c.prev }

// Observer returns who is told of events of this call; nil: nobody.
func (c *Call) Observer() Observer { return c.observer }

// Next returns the Call of another attempt, to be handed to the next Handler both as its context and as its call. ctx is the context of the
// attempt, prev why the one before it ended (nil for one that starts beside it). Safe for concurrent use.
func (c *Call) Next(ctx context.Context, prev error) *Call {
	next := &Call{
		ctx: ctx, first: c.first, target: c.target, observer: c.observer, prev: prev, timeless: c.timeless,
		info: c.info, attempt: c.first.made.Add(1), began: time.Since(epoch),
	}
	if c.retrying.Load() {
		next.retrying.Store(true)
	}
	return next
}

// BeginRetry marks the call as one that is repeated on failure, and reports false when a policy around this one does so already, in
// the same pipeline or in one whose function led here. Two retries would multiply their attempts, so the inner one
// makes a single one. Called before the first attempt, by the goroutine that runs it.
func (c *Call) BeginRetry() bool {
	return c.retrying.CompareAndSwap(false, true)
}

// Emit tells the call's observer and own of e, filling in the call's name, key and attempt where e leaves
// them out. own is a policy's own observer; either may be nil.
func (c *Call) Emit(ctx context.Context, own Observer, e Event) {
	c.emit(ctx, own, &e)
}

// emit is Emit without a copy of e, which it fills in.
func (c *Call) emit(ctx context.Context, own Observer, e *Event) {
	if c.observer == nil && own == nil {
		return
	}
	if e.Call == "" {
		e.Call = c.info.Name
	}
	if e.Key == "" {
		e.Key = c.info.Key
	}
	if e.Attempt == 0 {
		e.Attempt = int(c.attempt)
	}
	if c.observer != nil {
		observe(ctx, c.observer, e)
	}
	if own != nil {
		observe(ctx, own, e)
	}
}

// Parent returns the context that the Call hands everything on to but its own key.
func (c *Call) Parent() context.Context { return c.ctx }

// callKey is the context key of the nearest Call.
type callKey struct{}

// CallFrom returns the call whose attempt ctx belongs to, or nil. Inside the function of [Do], CallFrom(ctx).Attempt() is the number of
// the attempt.
func CallFrom(ctx context.Context) *Call {
	c, _ := ctx.Value(callKey{}).(*Call)
	return c
}

// Deadline is that of the attempt's context.
func (c *Call) Deadline() (time.Time, bool) { return c.ctx.Deadline() }

// Done is that of the attempt's context.
func (c *Call) Done() <-chan struct{} { return c.ctx.Done() }

// Err is that of the attempt's context.
func (c *Call) Err() error { return c.ctx.Err() }

// Over reports whether the attempt's context has ended, as far as a limit of ours can tell without looking at the clock.
func (c *Call) Over() bool { return over(c.ctx) }

// over is ctx.Err() != nil for a context that has just been handed on, when a limit that was set a moment ago need not be held against the clock.
func over(ctx context.Context) bool {
	if c, ok := ctx.(interface{ Over() bool }); ok {
		return c.Over()
	}
	return ctx.Err() != nil
}

// Value returns the Call itself for the key of [CallFrom], else what the attempt's context has.
func (c *Call) Value(key any) any {
	switch key {
	case any(callKey{}):
		return c
	case any(tap.Key{}):
		return nil // an observer put on a context sees the call made with it, not calls inside that one
	}
	return c.ctx.Value(key)
}

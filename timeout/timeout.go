// Package timeout bounds how long a call may take.
//
// Where it stands decides what it bounds: outside a retry the whole call, waits included; innermost, each attempt. Use both, the inner
// one shorter. The context of the call ends at the limit with a cause that names the timeout; the caller gets an
// [*Error], which tells our limit from the caller's own deadline. A function that ignores its context is waited for, and its value is then dropped: Go
// cannot stop a goroutine. [Config.Abandon] returns at the limit instead and leaves it running.
//
// A value that outlives its call (backstay.DoHeld, an HTTP response) is not cut off: the limit ends when the function returns.
//
// Expiry is a Failure for the policies around it, and may be repeated as far as the call may be.
//
//	Events: EventTimeout when a limit fires, EventReject when too little time is left, EventAbandon twice for each function left running.
//
// When not to use it: for a function that takes no context, a timeout without Abandon only turns late successes into errors.
package timeout

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/internal/configjson"
	"github.com/backstay-go/backstay/internal/deadline"
)

// Config sets a timeout. The zero value never fires.
type Config struct {
	// Name tells this timeout from others in errors and events.
	Name string `json:"name,omitempty"`
	// Limit is how long the call may take. 0 or less: no limit.
	Limit time.Duration `json:"limit,omitempty"`
	// LimitFor picks the limit of one call, in place of Limit. 0 or less: no limit for this call. It must be safe for concurrent use.
	LimitFor func(ctx context.Context, call *backstay.Call) time.Duration `json:"-"`
	// MinAttempt refuses a call with ErrNoTime when less than this is left until the deadline of its context, before
	// any policy inside takes a permit. Default 0: none.
	MinAttempt time.Duration `json:"minAttempt,omitempty"`
	// Abandon returns at the limit although the function has not: it goes on in a goroutine of its own until it ends, its value is let go,
	// and its late panic goes to OnPanic instead of ending the process. Costs a goroutine per call.
	Abandon bool `json:"abandon,omitempty"`
	// OnPanic gets the value of a panic in an abandoned function. Default: none.
	OnPanic func(v any) `json:"-"`
	// Observer is told of events.
	Observer backstay.Observer `json:"-"`
}

// MarshalJSON writes durations as strings and leaves functions out.
func (c Config) MarshalJSON() ([]byte, error) { return configjson.Marshal(c) }

// UnmarshalJSON reads what MarshalJSON writes and refuses unknown fields.
func (c *Config) UnmarshalJSON(data []byte) error { return configjson.Unmarshal(data, c) }

// Validate reports every field that makes no sense.
func (c Config) Validate() error {
	var errs []error
	if c.MinAttempt < 0 {
		errs = append(errs, fmt.Errorf("timeout: Config.MinAttempt is %v; it must not be negative", c.MinAttempt))
	}
	if c.Limit > 0 && c.MinAttempt > c.Limit {
		errs = append(errs, fmt.Errorf("timeout: Config.MinAttempt of %v is longer than Config.Limit of %v, so every call would be refused", c.MinAttempt, c.Limit))
	}
	if c.OnPanic != nil && !c.Abandon {
		errs = append(errs, errors.New("timeout: Config.OnPanic is set without Config.Abandon; a panic then reaches the caller"))
	}
	return errors.Join(errs...)
}

// Timeout is a policy that bounds how long a call may take. It is safe for concurrent use; its settings do not change.
type Timeout struct {
	config    Config
	limit     *deadline.Limit // of the contexts of calls
	abandoned atomic.Int64
}

// New returns a timeout of limit. 0 or less: no limit.
func New(limit time.Duration) *Timeout { return NewWith(Config{Limit: limit}) }

// NewWith returns a timeout with more settings. It panics when the config is not valid.
func NewWith(c Config) *Timeout {
	if err := c.Validate(); err != nil {
		panic(err)
	}
	return &Timeout{config: c, limit: &deadline.Limit{Cause: &Error{Name: c.Name, Limit: c.Limit}, Shared: true}}
}

// Abandoned returns how many abandoned functions are still running.
func (t *Timeout) Abandoned() int { return int(t.abandoned.Load()) }

// Describe implements backstay.Describer.
func (t *Timeout) Describe() backstay.Description {
	d := backstay.Description{Kind: "timeout", Name: t.config.Name, Limit: max(t.config.Limit, 0), Detail: "none", Pends: !t.config.Abandon}
	switch {
	case t.config.LimitFor != nil:
		d.Detail = "per call"
	case t.config.Limit > 0:
		d.Detail = t.config.Limit.String()
	}
	if t.config.Abandon {
		d.Detail += ", abandons"
	}
	return d
}

// Wrap implements backstay.Policy. A nil Timeout wraps to next itself.
func (t *Timeout) Wrap(next backstay.Handler) backstay.Handler {
	if t == nil {
		return next
	}
	return func(ctx context.Context, call *backstay.Call) backstay.Outcome { return t.Around(ctx, call, next) }
}

// Around implements backstay.Around.
func (t *Timeout) Around(ctx context.Context, call *backstay.Call, next backstay.Handler) backstay.Outcome {
	if least := t.config.MinAttempt; least > 0 {
		if at, ok := ctx.Deadline(); ok {
			if left := time.Until(at); left < least {
				return t.refuse(ctx, call, left)
			}
		}
	}
	limit, shared := t.config.Limit, t.limit
	if t.config.LimitFor != nil {
		limit = t.config.LimitFor(ctx, call)
		shared = &deadline.Limit{Cause: &Error{Name: t.config.Name, Limit: limit}}
	}
	if limit <= 0 {
		return next(ctx, call)
	}
	bound := deadline.New(ctx, limit, shared)
	if t.config.Abandon {
		return t.abandon(ctx, bound, limit, call, next)
	}
	kept := false
	defer func() { // a panic and Goexit end the context too
		if !kept {
			bound.Cancel()
		}
	}()
	out := next(bound, call)
	p, pending := out.Held.(backstay.Pending)
	if out.Held != nil && bound.Disarm() {
		kept = true
		if pending {
			p.Then((*lifted)(bound))
			return out
		}
		return (*lifted)(bound).End(out)
	}
	if pending { // it came to stand too late: policies inside have to hear its end all the same
		kept = true
		limit := limit // so that only what comes here pays for keeping it
		p.Then(backstay.EnderFunc(func(out backstay.Outcome) backstay.Outcome { return t.ended(ctx, bound, call, limit, out) }))
		return out
	}
	return t.ended(ctx, bound, call, limit, out)
}

// ended ends the context of a call, and turns the ending of one that took too long into the timeout's own.
func (t *Timeout) ended(ctx context.Context, bound *deadline.Ctx, call *backstay.Call, limit time.Duration, out backstay.Outcome) backstay.Outcome {
	if !bound.Finish() {
		return out
	}
	return t.expired(ctx, call, limit, out)
}

// lifted is the context of a call whose limit has been lifted, since its value is there.
type lifted deadline.Ctx

// End implements backstay.Ender: what the outcome holds ends the context.
func (l *lifted) End(out backstay.Outcome) backstay.Outcome {
	bound := (*deadline.Ctx)(l)
	if out.Held == nil {
		bound.Cancel()
	} else if o, ok := out.Held.(backstay.Owner); !ok || !o.Owns(bound) {
		out.Held.OnRelease(bound.Cancel)
	}
	return out
}

func (t *Timeout) refuse(ctx context.Context, call *backstay.Call, left time.Duration) backstay.Outcome {
	r := &backstay.Rejected{
		Policy: "timeout", Name: t.config.Name, Err: ErrNoTime,
		Reason: fmt.Sprintf("%v left until the deadline, less than the minimum of %v", max(left, 0).Round(time.Microsecond), t.config.MinAttempt),
	}
	call.Emit(ctx, t.config.Observer, backstay.Event{Kind: backstay.EventReject, Policy: "timeout", Name: t.config.Name, Reason: "no time left", Err: r})
	return backstay.Reject(r)
}

// expired turns the ending out of a call that took too long into the timeout's own.
func (t *Timeout) expired(ctx context.Context, call *backstay.Call, limit time.Duration, out backstay.Outcome) backstay.Outcome {
	out.Release()
	e := &Error{Name: t.config.Name, Limit: limit, Err: out.Err}
	if cause := new(*Error); errors.As(out.Err, cause) && (*cause).Err == nil && (*cause).Name == e.Name {
		e.Err = nil // net/http returns the context's cause itself
	}
	if out.Class != backstay.Neutral || out.Sent != backstay.SentNever { // something was attempted
		out.Class = backstay.Failure
	}
	call.Emit(ctx, t.config.Observer, backstay.Event{Kind: backstay.EventTimeout, Policy: "timeout", Name: t.config.Name, Elapsed: limit, Class: out.Class, Err: e})
	return backstay.Outcome{Err: e, Class: out.Class, Again: out.Again, Sent: out.Sent, Wait: out.Wait, Shed: out.Shed}
}

// abandon runs next on a goroutine of its own and returns at the limit.
func (t *Timeout) abandon(ctx context.Context, bound *deadline.Ctx, limit time.Duration, call *backstay.Call, next backstay.Handler) backstay.Outcome {
	type ending struct {
		out      backstay.Outcome
		panicked any
		goexit   bool
	}
	ended := make(chan ending, 1)
	var left atomic.Bool // set by whoever comes first: the ending, or the limit
	go func() {
		e := ending{goexit: true}
		defer func() {
			if e.goexit {
				if v := recover(); v != nil {
					e.panicked, e.goexit = v, false
				}
			}
			if left.CompareAndSwap(false, true) {
				ended <- e
				return
			}
			bound.Cancel()
			e.out.Release()
			t.abandoned.Add(-1)
			if e.panicked != nil && t.config.OnPanic != nil {
				t.config.OnPanic(e.panicked)
			}
			call.Emit(ctx, t.config.Observer, backstay.Event{Kind: backstay.EventAbandon, Policy: "timeout", Name: t.config.Name, Reason: "ended", Err: e.out.Err})
		}()
		e.out = next(bound, call)
		e.goexit = false
	}()
	select {
	case e := <-ended:
		return t.finish(ctx, bound, limit, call, e.out, e.panicked, e.goexit)
	case <-bound.Done():
	}
	t.abandoned.Add(1) // before the goroutine can take it back
	if !left.CompareAndSwap(false, true) {
		t.abandoned.Add(-1)
		e := <-ended
		return t.finish(ctx, bound, limit, call, e.out, e.panicked, e.goexit)
	}
	call.Emit(ctx, t.config.Observer, backstay.Event{Kind: backstay.EventAbandon, Policy: "timeout", Name: t.config.Name, Reason: "left running", Elapsed: limit})
	out := backstay.Outcome{Err: backstay.ContextErr(bound), Class: backstay.Failure}
	if bound.Expired() {
		return t.expired(ctx, call, limit, backstay.Outcome{Class: backstay.Failure})
	}
	return out
}

// finish ends a call that came back in time, on its caller's goroutine.
func (t *Timeout) finish(ctx context.Context, bound *deadline.Ctx, limit time.Duration, call *backstay.Call, out backstay.Outcome, panicked any, goexit bool) backstay.Outcome {
	if out.Held != nil && panicked == nil && !goexit && bound.Disarm() {
		return (*lifted)(bound).End(out)
	}
	expired := bound.Finish()
	switch {
	case panicked != nil:
		panic(panicked)
	case goexit:
		runtime.Goexit()
	case expired:
		return t.expired(ctx, call, limit, out)
	}
	return out
}

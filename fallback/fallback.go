// Package fallback answers a call that failed in another way: with a value, an older copy, a simpler source.
//
//	stock := fallback.New(fallback.Value(Stock{Unknown: true}), fallback.Config{})
//	p := backstay.Chain(stock, …)
//
// By default it answers where the call failed or a policy refused it, the caller's deadline included. It does not where the caller cancelled,
// where the function marked its error with [backstay.Ignore], or where it panicked. The value must have the type that the call
// returns: a pipeline with a fallback is for one type of value.
//
// What it answers is no success of the dependency: to policies outside it the outcome is Neutral. The error that it replaced goes to the
// EventFallback.
//
//	Defaults: 100 at once.
//	Events:   EventFallback when it answered, EventReject when too many were running.
//	Order:    outermost.
//
// When not to use it: where a wrong answer is worse than none, and as a second dependency that is as likely to
// fail, since it is rarely exercised.
package fallback

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/internal/configjson"
)

// Func answers in place of a call that ended as failed says. ctx is the caller's and may be over; failed's value, if any, is let go afterwards. Its
// error is joined to that of the call. It is made by [Value] or [Call], or by hand.
type Func func(ctx context.Context, failed backstay.Outcome) (any, error)

// Value answers with v.
func Value[T any](v T) Func {
	return func(context.Context, backstay.Outcome) (any, error) { return v, nil }
}

// Call answers with what fn returns, which gets the error of the call.
func Call[T any](fn func(ctx context.Context, err error) (T, error)) Func {
	return func(ctx context.Context, failed backstay.Outcome) (any, error) { return fn(ctx, failed.Err) }
}

// Config sets a fallback. The zero value works.
type Config struct {
	// Name tells this fallback from others in events.
	Name string `json:"name,omitempty"`
	// When reports whether to answer in place of a call that ended so; see [For]. Default: [Failed].
	When func(ctx context.Context, out backstay.Outcome) bool `json:"-"`
	// Limit is how many answers may be under way at once, so that a fallback that hangs does not collect every goroutine. Beyond it the
	// call's own outcome is handed back. Default 100; negative: no limit.
	Limit int `json:"limit,omitempty"`
	// Observer is told of events.
	Observer backstay.Observer `json:"-"`
}

// MarshalJSON leaves functions out.
func (c Config) MarshalJSON() ([]byte, error) { return configjson.Marshal(c) }

// UnmarshalJSON reads what MarshalJSON writes and refuses unknown fields.
func (c *Config) UnmarshalJSON(data []byte) error { return configjson.Unmarshal(data, c) }

// Validate reports every field that makes no sense. There is none that could.
func (c Config) Validate() error { return nil }

// Failed reports whether a call failed or was refused: the default of [Config.When].
func Failed(ctx context.Context, out backstay.Outcome) bool {
	if out.Class == backstay.Success {
		return false
	}
	if errors.Is(ctx.Err(), context.Canceled) && !errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
		return false
	}
	if class := out.Judge(context.Background(), 0, 0); class != backstay.Neutral {
		return class == backstay.Failure
	}
	return out.Err != nil && (out.Again != backstay.No || errors.Is(out.Err, backstay.ErrRejected) || ctx.Err() != nil)
}

// For returns a [Config.When] that is [Failed] and matches one of errs by errors.Is.
func For(errs ...error) func(ctx context.Context, out backstay.Outcome) bool {
	return func(ctx context.Context, out backstay.Outcome) bool {
		for _, err := range errs {
			if errors.Is(out.Err, err) {
				return Failed(ctx, out)
			}
		}
		return false
	}
}

// Fallback is a policy that answers calls that failed. All methods are safe for concurrent use.
type Fallback struct {
	config Config // immutable
	answer Func

	running  atomic.Int64
	answered atomic.Int64
	rejected atomic.Int64
}

// New returns a fallback that answers by answer. It panics when answer is nil or the config is not valid.
func New(answer Func, c Config) *Fallback {
	err := c.Validate()
	if answer == nil {
		err = errors.Join(err, errors.New("fallback: New needs a function that answers"))
	}
	if err != nil {
		panic(err)
	}
	if c.When == nil {
		c.When = Failed
	}
	if c.Limit == 0 {
		c.Limit = 100
	}
	return &Fallback{config: c, answer: answer}
}

// Wrap implements backstay.Policy. A nil Fallback wraps to next itself.
func (f *Fallback) Wrap(next backstay.Handler) backstay.Handler {
	if f == nil {
		return next
	}
	return func(ctx context.Context, call *backstay.Call) backstay.Outcome { return f.Around(ctx, call, next) }
}

// Around implements backstay.Around.
func (f *Fallback) Around(ctx context.Context, call *backstay.Call, next backstay.Handler) backstay.Outcome {
	out := next(ctx, call)
	if !f.config.When(ctx, out) {
		return out
	}
	return f.replace(ctx, call, out)
}

// replace returns the answer in place of failed, or failed.
func (f *Fallback) replace(ctx context.Context, call *backstay.Call, failed backstay.Outcome) backstay.Outcome {
	if n := f.running.Add(1); f.config.Limit > 0 && n > int64(f.config.Limit) {
		f.running.Add(-1)
		f.rejected.Add(1)
		call.Emit(ctx, f.config.Observer, backstay.Event{Kind: backstay.EventReject, Policy: "fallback", Name: f.config.Name, Reason: "too many at once", Err: failed.Err})
		return failed
	}
	kept := false
	defer func() { // also on panic and Goexit
		f.running.Add(-1)
		if !kept {
			failed.Release()
		}
	}()
	v, err := f.answer(ctx, failed)
	if err != nil {
		kept = true
		failed.Err = errors.Join(failed.Err, fmt.Errorf("fallback: %w", err))
		return failed
	}
	f.answered.Add(1)
	call.Emit(ctx, f.config.Observer, backstay.Event{Kind: backstay.EventFallback, Policy: "fallback", Name: f.config.Name, Err: failed.Err})
	return backstay.Outcome{Value: v, Class: backstay.Neutral, Again: backstay.No, Sent: failed.Sent}
}

// Snapshot is what a fallback looks like at one moment.
type Snapshot struct {
	Running  int   // answers under way
	Answered int64 // calls answered so far
	Rejected int64 // calls not answered so far since too many were under way
}

// Snapshot returns the numbers of now.
func (f *Fallback) Snapshot() Snapshot {
	return Snapshot{Running: int(f.running.Load()), Answered: f.answered.Load(), Rejected: f.rejected.Load()}
}

// Keep implements backstay.Keeper.
func (f *Fallback) Keep() (busy bool, left time.Duration) { return f.running.Load() > 0, 0 }

// Describe implements backstay.Describer.
func (f *Fallback) Describe() backstay.Description {
	d := backstay.Description{Kind: "fallback", Name: f.config.Name}
	if f.config.Limit > 0 {
		d.Detail = fmt.Sprintf("%d at once", f.config.Limit)
	}
	return d
}

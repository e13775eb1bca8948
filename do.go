package backstay

import (
	"context"
	"fmt"
	"slices"
	"sync"
)

// Do calls fn through the pipeline p and returns what it returned, or the error of a policy. fn may be called several times, as
// p's retry and the options say, but not at the same time unless the call is marked [Idempotent] and p hedges.
//
// A nil error of fn is a success, any other a failure that may be repeated; [Permanent], [RetryAfter] and [Ignore] mark errors, and
// [Classify] serves where the verdict depends on the value. The context that fn gets ends when it
// returns, so a value that lives on it is refused with [ErrNeedsHeld]: use [DoHeld].
//
// A nil p calls fn once. A ctx that is over calls nothing and returns its error. A nil fn is [ErrNilFunc]. A panic of fn, and runtime.Goexit, pass through.
func Do[T any](ctx context.Context, p *Pipeline, fn func(context.Context) (T, error), opts ...CallOption) (T, error) {
	var zero T
	if fn == nil {
		return zero, ErrNilFunc
	}
	if livesOnContext(zero) {
		return zero, ErrNeedsHeld
	}
	c := &call[T]{fn: fn}
	c.target = c
	for _, o := range opts {
		o(&c.info)
	}
	out := p.run(ctx, &c.Call)
	return typed[T](out.Value, out.Err)
}

// Run is [Do] for a function without a value.
func Run(ctx context.Context, p *Pipeline, fn func(context.Context) error, opts ...CallOption) error {
	if fn == nil {
		return ErrNilFunc
	}
	c := &plainCall{fn: fn}
	c.target = c
	for _, o := range opts {
		o(&c.info)
	}
	return p.run(ctx, &c.Call).Err
}

// DoHeld is [Do] for a value that lives on the context of its call: *http.Response, *sql.Rows, a stream. The context of the attempt that
// made the value, and permits that count its use, stay until the caller calls release, which calls close(v) first; the time limits of
// p's timeouts end when fn returns. release is never nil, may be called more than once and from any goroutine. A nil close only ends the context.
//
// Values of attempts that are not used are closed by the policy that drops them.
func DoHeld[T any](ctx context.Context, p *Pipeline, fn func(context.Context) (T, error), close func(T), opts ...CallOption) (v T, release func(), err error) {
	if fn == nil {
		return v, func() {}, ErrNilFunc
	}
	c := &heldCall[T]{fn: fn, close: close}
	c.target = c
	for _, o := range opts {
		o(&c.info)
	}
	c.info.Holds = true
	out := p.run(ctx, &c.Call)
	v, err = typed[T](out.Value, out.Err)
	if err != nil {
		out.Release()
		return v, func() {}, err
	}
	return v, out.Release, nil
}

// call is one call of Do: the Call, its function, and nothing else to allocate.
type call[T any] struct {
	Call
	fn func(context.Context) (T, error)
}

func (c *call[T]) Attempt(ctx context.Context, _ *Call) Outcome {
	v, err := c.fn(ctx)
	return Outcome{Value: v, Err: err}
}

type plainCall struct {
	Call
	fn func(context.Context) error
}

func (c *plainCall) Attempt(ctx context.Context, _ *Call) Outcome {
	return Outcome{Err: c.fn(ctx)}
}

type heldCall[T any] struct {
	Call
	fn    func(context.Context) (T, error)
	close func(T)
}

func (c *heldCall[T]) Attempt(ctx context.Context, _ *Call) Outcome {
	v, err := c.fn(ctx)
	if err != nil {
		return Outcome{Value: v, Err: err}
	}
	return Outcome{Value: v, Held: &held[T]{value: v, close: c.close}}
}

// held is a value of DoHeld until it is let go.
type held[T any] struct {
	value T
	close func(T)

	mu       sync.Mutex
	released bool     // guarded by mu
	after    []func() // guarded by mu
}

func (h *held[T]) Release() {
	h.mu.Lock()
	if h.released {
		h.mu.Unlock()
		return
	}
	h.released = true
	h.mu.Unlock()
	defer func() { // also when close panics
		h.mu.Lock()
		after := h.after
		h.after = nil
		h.mu.Unlock()
		for _, a := range slices.Backward(after) {
			a()
		}
	}()
	if h.close != nil {
		h.close(h.value)
	}
}

func (h *held[T]) OnRelease(f func()) {
	h.mu.Lock()
	if !h.released {
		h.after = append(h.after, f)
		h.mu.Unlock()
		return
	}
	h.mu.Unlock()
	f()
}

// typed gives a value its type again.
func typed[T any](value any, err error) (T, error) {
	v, ok := value.(T)
	if ok || err != nil {
		return v, err
	}
	if value == nil && any(v) == nil { // T is an interface type, and the value is nil
		return v, nil
	}
	return v, fmt.Errorf("%w: want %T, a policy returned %T", ErrType, *new(T), value)
}

// livesOnContext reports whether v's type is one of the standard library whose values die with the context of
// their call. They are told by their methods, so that this package links neither net/http nor database/sql.
func livesOnContext(v any) bool {
	switch v.(type) {
	case interface{ ProtoAtLeast(major, minor int) bool }: // *http.Response (and *http.Request)
		return true
	case interface{ NextResultSet() bool }: // *sql.Rows
		return true
	case interface { // *sql.Tx
		Commit() error
		Rollback() error
	}:
		return true
	case interface { // *sql.Row
		Scan(dest ...any) error
		Err() error
	}:
		return true
	}
	return false
}

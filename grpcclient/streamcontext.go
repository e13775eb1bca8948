package grpcclient

import (
	"context"
	"slices"
	"time"

	"google.golang.org/grpc/status"
)

// The context of an attempt of a stream ends with the caller's, or when the attempt does; not by the time limits of the policies, which are for the time until the
// stream stands. Its deadline, which is sent to the server, is the caller's too, and what it holds is that of the attempt's context.
//
// It is no standard one because those cost more here than all policies together: one for the caller's end and ours, one for the limits with its timer, one
// to notice the end by, and a map in each for those derived from it. This is one channel, gRPC's own context is derived from it by AfterFunc, and the limits need a timer only.

// Deadline implements context.Context.
func (a *streamAttempt) Deadline() (time.Time, bool) { return a.s.caller.Deadline() }

// Done implements context.Context.
func (a *streamAttempt) Done() <-chan struct{} { return a.done }

// Err implements context.Context.
func (a *streamAttempt) Err() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.over
}

// Value returns what the attempt's context has, but for what package context looks for by a key that is an *int: a standard context, whose cause is that of the end. It
// is the caller's.
func (a *streamAttempt) Value(key any) any {
	if _, ok := key.(*int); ok {
		if v := a.s.caller.Value(key); v != nil {
			return v
		}
	}
	return a.attempt.Value(key)
}

// AfterFunc is for package context, which would start a goroutine for each context derived from this one. f does not block.
func (a *streamAttempt) AfterFunc(f func()) func() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.over != nil {
		go f()
		return func() bool { return false }
	}
	own := &a.own // for gRPC's
	if own.f != nil {
		own = &derived{}
	}
	own.f = f
	a.derived = append(a.derived, own)
	return func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		i := slices.Index(a.derived, own)
		if i < 0 {
			return false
		}
		a.derived = slices.Delete(a.derived, i, i+1)
		return true
	}
}

// derived is what ends a context that is derived from an attempt's.
type derived struct{ f func() }

// cancel ends the context, once.
func (a *streamAttempt) cancel(why error) {
	a.mu.Lock()
	if a.over != nil {
		a.mu.Unlock()
		return
	}
	a.over = why
	all := a.derived
	a.derived = nil
	close(a.done)
	a.mu.Unlock()
	for _, d := range all {
		d.f()
	}
}

// drop cancels it as we do.
func (a *streamAttempt) drop() { a.cancel(context.Canceled) }

// link ends the attempt with the caller's context, should gRPC not say so: some interceptors do not hand options on.
func (a *streamAttempt) link() {
	if a.s.caller.Done() == nil {
		return
	}
	unlink := context.AfterFunc(a.s.caller, a.callerEnded)
	a.mu.Lock()
	a.unlink = unlink
	a.mu.Unlock()
}

// callerEnded ends the attempt because the caller's context has ended.
func (a *streamAttempt) callerEnded() {
	ended := a.s.caller.Err()
	a.cancel(ended)
	err := status.FromContextError(ended).Err()
	a.told(verdict{err: err, blind: true})
	a.end(err)
}

// limit drops the attempt when ctx ends before inTime is asked. Where only time limits of package timeout stand between ctx and the caller's context, the first
// of them to come needs a timer and no context.
func (a *streamAttempt) limit(ctx context.Context) {
	for c := ctx; !same(c, a.s.caller); {
		switch outer := c.(type) {
		case interface {
			Lift() context.Context
			Outer() context.Context
		}:
			c = outer.Outer()
		case interface{ Parent() context.Context }:
			c = outer.Parent()
		default:
			a.others = context.AfterFunc(ctx, a.drop)
			return
		}
	}
	at, limited := ctx.Deadline()
	if theirs, ok := a.s.caller.Deadline(); !limited || ok && !at.Before(theirs) {
		return
	}
	a.timer = time.AfterFunc(time.Until(at), a.drop)
}

// inTime ends limit, and reports false when it has dropped the attempt.
func (a *streamAttempt) inTime() bool {
	switch {
	case a.timer != nil:
		return a.timer.Stop()
	case a.others != nil:
		return a.others()
	}
	return true
}

// lift ends the time limits of the policies around an attempt: what they bound has been reached. The contexts of package timeout can; a policy of another
// kind that wraps its context hides those outside it. The caller's own contexts are left alone.
func (s *stream) lift(ctx context.Context) {
	for ctx != nil && !same(ctx, s.caller) {
		switch c := ctx.(type) {
		case interface{ Lift() context.Context }:
			ctx = c.Lift()
		case interface{ Parent() context.Context }:
			ctx = c.Parent()
		default:
			return
		}
	}
}

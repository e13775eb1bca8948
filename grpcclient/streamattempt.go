package grpcclient

import (
	"context"
	"io"
	"slices"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"github.com/backstay-go/backstay"
)

// streamAttempt is one attempt of a stream, and what it holds until it ends. It implements backstay.Held.
type streamAttempt struct {
	attempt
	s      *stream
	inner  grpc.ClientStream
	cancel context.CancelFunc
	belt   func() bool  // stops the guard
	word   chan verdict // the first that is heard of it; has room for it
	said   atomic.Bool  // it was

	mu     sync.Mutex
	ended  bool          // guarded by mu, as is all below: hooks have run or are running
	endErr error         // how it ended
	good   bool          // it was judged to be
	hooks  []func()      // permits, contexts
	broken []func(error) // breakers
}

// verdict is how a stream has done so far.
type verdict struct {
	err   error // nil: a message, or a good end
	blind bool  // gRPC may still be at work on the attempt
}

// streamContext ends with the caller's context, or when the attempt is dropped; not by the time limits of the policies, which are for the time until the stream
// stands. Its deadline, which is sent to the server, is the caller's too. What it holds is that of the attempt's context.
type streamContext struct {
	context.Context
	values context.Context
}

// Value returns what the attempt's context has.
func (c *streamContext) Value(key any) any { return c.values.Value(key) }

// AfterFunc is for package context, which would start a goroutine for each context made from this one.
func (c *streamContext) AfterFunc(f func()) func() bool { return context.AfterFunc(c.Context, f) }

// AfterFunc is for package context.
func (a *streamAttempt) AfterFunc(f func()) func() bool { return context.AfterFunc(a.Context, f) }

// Attempt implements backstay.Attempter: it opens a stream, and waits for the first word of it.
func (s *stream) Attempt(ctx context.Context, call *backstay.Call) backstay.Outcome {
	base, cancel := context.WithCancel(s.caller)
	a := &streamAttempt{s: s, cancel: cancel, word: make(chan verdict, 1)}
	a.trailer = untouched
	a.Context = &streamContext{base, outgoing(ctx, call, s.op)}
	opts := append(a.room[:0], s.opts...)
	opts = append(opts, grpc.Header(&a.header), grpc.Trailer(&a.trailer), grpc.OnFinish(a.finished))

	inTime := context.AfterFunc(ctx, cancel)
	inner, err := s.streamer(a, s.desc, s.cc, s.method, opts...)
	if !inTime() && s.caller.Err() == nil { // a time limit has ended it
		a.blind = err == nil
		err = backstay.ContextErr(ctx)
	}
	if err != nil {
		cancel()
		a.err = err
		return s.classify(ctx, &a.attempt, err)
	}
	s.lift(ctx)
	a.inner = inner
	if s.current.Load() != nil {
		s.replay(inner)
	}
	s.current.Store(a)
	a.guard(base)
	s.events <- event{}
	return a.judge(ctx, <-a.word)
}

// replay sends the request again. How it ends is for RecvMsg to say.
func (s *stream) replay(inner grpc.ClientStream) {
	s.mu.Lock()
	req, sent, closed := s.req, s.sent, s.closed
	s.mu.Unlock()
	if sent {
		_ = inner.SendMsg(req)
	}
	if closed {
		_ = inner.CloseSend()
	}
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

// guard ends the attempt with its context should gRPC not say so: some interceptors do not hand options on.
func (a *streamAttempt) guard(base context.Context) {
	stop := context.AfterFunc(base, func() {
		err := status.FromContextError(base.Err()).Err()
		a.say(verdict{err: err, blind: true})
		a.end(err)
	})
	a.mu.Lock()
	a.belt = stop
	ended := a.ended
	a.mu.Unlock()
	if ended {
		stop()
	}
}

// finished is grpc.OnFinish of the attempt.
func (a *streamAttempt) finished(err error) {
	a.say(verdict{err: err})
	a.end(err)
}

// heard takes in what the first RecvMsg returned.
func (a *streamAttempt) heard(err error) {
	if err == io.EOF {
		err = nil
	}
	a.say(verdict{err: err})
}

// say gives the first word on the attempt.
func (a *streamAttempt) say(v verdict) {
	if !a.said.Swap(true) {
		a.word <- v
	}
}

// judge turns the first word into an outcome.
func (a *streamAttempt) judge(ctx context.Context, v verdict) backstay.Outcome {
	if v.err == nil {
		a.mu.Lock()
		a.good = true
		ended, err := a.ended, a.endErr
		a.mu.Unlock()
		if ended {
			a.s.finished(err)
		}
		return backstay.Outcome{Value: a, Held: a, Class: backstay.Success, Sent: backstay.SentYes, Answered: true}
	}
	a.err, a.blind = v.err, v.blind
	a.end(v.err)
	out := a.s.classify(ctx, &a.attempt, v.err)
	if a.blind || !a.s.replays() || a.s.committed.Load() || a.header != nil {
		out.Again, out.Wait, out.WaitExact = backstay.No, 0, false
	}
	return out
}

// end lets go of everything, once, and tells breakers of a good stream that broke.
func (a *streamAttempt) end(err error) {
	a.mu.Lock()
	if a.ended {
		a.mu.Unlock()
		return
	}
	a.ended, a.endErr = true, err
	hooks, broken, good, belt := a.hooks, a.broken, a.good, a.belt
	a.hooks, a.broken = nil, nil
	a.mu.Unlock()
	if belt != nil {
		belt()
	}
	if good && err != nil && a.s.caller.Err() == nil && a.s.known.failOn.has(codeOf(err)) {
		for _, f := range broken {
			f(err)
		}
	}
	a.cancel()
	for _, hook := range slices.Backward(hooks) {
		hook()
	}
	if good {
		a.s.finished(err)
	}
}

// Release implements backstay.Held: it drops the stream.
func (a *streamAttempt) Release() {
	a.cancel()
	a.end(context.Canceled)
}

// OnRelease implements backstay.Held.
func (a *streamAttempt) OnRelease(f func()) {
	a.mu.Lock()
	if !a.ended {
		a.hooks = append(a.hooks, f)
		a.mu.Unlock()
		return
	}
	a.mu.Unlock()
	f()
}

// OnBreak implements backstay.Breakable.
func (a *streamAttempt) OnBreak(f func(err error)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.broken = append(a.broken, f)
}

var (
	_ backstay.Held      = (*streamAttempt)(nil)
	_ backstay.Breakable = (*streamAttempt)(nil)
)

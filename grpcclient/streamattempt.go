package grpcclient

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/backstay-go/backstay"
)

// streamAttempt is one attempt of a stream, its context, and what it holds until it ends. It implements backstay.Held.
type streamAttempt struct {
	attempt
	s     *stream
	inner grpc.ClientStream
	err   error // how it ended, before it was handed over

	timer  *time.Timer // of limit, as is others; nil: not that way
	others func() bool

	said    atomic.Bool      // somebody has had the first word
	verdict verdict          // it; read after word, or by who judges
	word    chan struct{}    // the first word has come; has room for it; nil: nobody waits, the attempt is Pending
	thens   []backstay.Ender // what the policies do with its ending then; written while the pipeline is entered
	early   bool             // the first word came before the pipeline was left, perhaps; guarded by s.mu
	done    chan struct{}    // the context is over

	mu      sync.Mutex
	over    error         // why the context is; guarded by mu, as is all below
	derived []*derived    // to be run then
	unlink  func() bool   // from the caller's context
	ended   bool          // hooks have run or are running
	endErr  error         // how it ended
	good    bool          // it was judged to be
	hooks   []func()      // permits, contexts
	broken  []func(error) // breakers

	own         derived // room for one of derived
	roomDerived [1]*derived
	roomHooks   [4]func()
	roomBroken  [1]func(error)
	roomThens   [8]backstay.Ender
}

// verdict is how a stream has done so far.
type verdict struct {
	err   error // nil: a message, or a good end
	blind bool  // gRPC may still be at work on the attempt
}

// open returns a new attempt.
func (s *stream) open(ctx context.Context) *streamAttempt {
	a := &s.attempt
	if s.tried.Swap(true) {
		a = &streamAttempt{}
	}
	a.s, a.Context, a.trailer = s, ctx, untouched
	a.done = make(chan struct{})
	if s.opening {
		a.thens = a.roomThens[:0]
	} else {
		a.word = make(chan struct{}, 1)
	}
	a.derived, a.hooks, a.broken = a.roomDerived[:0], a.roomHooks[:0], a.roomBroken[:0]
	return a
}

// Attempt implements backstay.Attempter: it opens a stream, and waits for the first word of it, unless it may leave the pipeline before that.
func (s *stream) Attempt(ctx context.Context, call *backstay.Call) backstay.Outcome {
	s.begin()
	a := s.open(outgoing(ctx, call, s.op))
	a.bounds = ctx
	a.link()
	opts := append(a.room[:0], s.opts...)
	opts = append(opts, grpc.Trailer(&a.trailer), grpc.OnFinish(a.finished))
	a.limit(ctx)
	inner, err := s.streamer(a, s.desc, s.cc, s.method, opts...)
	if !a.inTime() && s.caller.Err() == nil { // a time limit has ended it
		a.blind = err == nil
		err = backstay.ContextErr(ctx)
	}
	if err != nil {
		a.end(err)
		a.err = err
		return s.classify(ctx, &a.attempt, err)
	}
	s.lift(ctx)
	a.inner = inner
	if s.current.Load() != nil {
		s.replay(inner)
	}
	s.current.Store(a)
	if s.opening {
		return backstay.Outcome{Value: a, Held: (*standing)(a), Class: backstay.Success, Sent: backstay.SentYes}
	}
	s.turns() <- false
	<-a.word
	return a.judge(ctx)
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

// finished is grpc.OnFinish of the attempt.
func (a *streamAttempt) finished(err error) {
	a.told(verdict{err: err})
	a.end(err)
}

// told takes in a word that did not come by the caller's RecvMsg, and has the attempt judged if it was the first.
func (a *streamAttempt) told(v verdict) {
	if !a.say(v) || a.word != nil {
		return
	}
	a.s.mu.Lock()
	left := a.s.left
	a.early = true
	a.s.mu.Unlock()
	if left && a == a.s.current.Load() { // and none whose opening failed before the one that stands
		go a.s.run(a)
	}
}

// say gives the first word on the attempt, and reports whether it was that.
func (a *streamAttempt) say(v verdict) bool {
	if a.said.Swap(true) {
		return false
	}
	a.verdict = v
	if a.word != nil {
		a.word <- struct{}{}
	}
	return true
}

// judge turns the first word into an outcome.
func (a *streamAttempt) judge(ctx context.Context) backstay.Outcome {
	v := a.verdict
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
	if out.Again != backstay.Yes {
		return out
	}
	if a.blind || !a.s.replays() || a.s.committed.Load() || a.headed() {
		out.Again, out.Wait, out.WaitExact = backstay.No, 0, false
	}
	return out
}

// headed reports whether the headers of an attempt that is over had come.
func (a *streamAttempt) headed() bool {
	md, _ := a.inner.Header()
	return md != nil
}

// end lets go of everything, once, and tells breakers of a good stream that broke.
func (a *streamAttempt) end(err error) {
	a.mu.Lock()
	if a.ended {
		a.mu.Unlock()
		return
	}
	a.ended, a.endErr = true, err
	hooks, broken, good, unlink := a.hooks, a.broken, a.good, a.unlink
	a.hooks, a.broken = nil, nil
	a.mu.Unlock()
	if unlink != nil {
		unlink()
	}
	if good && err != nil && a.s.caller.Err() == nil && a.s.known.failOn.has(codeOf(err)) {
		for _, f := range broken {
			f(err)
		}
	}
	a.cancel(context.Canceled)
	for _, hook := range slices.Backward(hooks) {
		hook()
	}
	if good {
		a.s.finished(err)
	}
}

// Release implements backstay.Held: it drops the stream.
func (a *streamAttempt) Release() {
	a.drop()
	a.end(context.Canceled)
}

// Owns implements backstay.Owner: a limit that was lifted, and on which nobody has waited, has nothing to let go of.
func (a *streamAttempt) Owns(ctx context.Context) bool {
	limit, ok := ctx.(interface{ Real() bool })
	return ok && !limit.Real()
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

// standing is an attempt that has not been judged: it implements backstay.Pending.
type standing streamAttempt

func (p *standing) Release()           { (*streamAttempt)(p).Release() }
func (p *standing) OnRelease(f func()) { (*streamAttempt)(p).OnRelease(f) }

func (p *standing) Then(e backstay.Ender) { p.thens = append(p.thens, e) }

var (
	_ backstay.Pending   = (*standing)(nil)
	_ backstay.Held      = (*streamAttempt)(nil)
	_ backstay.Breakable = (*streamAttempt)(nil)
	_ backstay.Owner     = (*streamAttempt)(nil)
)

package grpcclient

import (
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/telemetry"
)

// stream is a grpc.ClientStream through the policies.
//
// An attempt is judged by its first message, or by its end: long after the caller has the stream. So where all policies handle outcomes that are Pending, the
// pipeline is left with one as soon as the first attempt stands, and what the policies have handed to Then is run when that has been judged: by
// the caller's goroutine where it is good, which is all that a good stream costs. Where it is not, or where some policy is to see nothing but endings, a
// goroutine is in the pipeline until an attempt has been judged. It and the caller take turns: it says that a stream stands, or that the call is over; the caller
// says what was received. From the judgement on the caller's methods go straight to gRPC's stream.
type stream struct {
	exchange
	info     backstay.CallInfo
	call     backstay.Call
	desc     *grpc.StreamDesc
	method   string
	cc       *grpc.ClientConn
	streamer grpc.Streamer
	span     *telemetry.Span // nil: none

	opening   bool                          // the caller's goroutine is in the pipeline
	over      ending                        // how the call did; read after a turn said so, or by who judged it
	current   atomic.Pointer[streamAttempt] // the latest that stands
	live      atomic.Pointer[streamAttempt] // the one that was judged to be good
	committed atomic.Bool                   // headers or the context were handed out: no further attempt

	tried   atomic.Bool   // attempt is in use
	attempt streamAttempt // the first one

	first sync.Mutex // held by who waits for the first message or the headers; taken before mu
	final error      // how the call ended; guarded by first

	mu     sync.Mutex
	events chan bool // see turns; guarded by mu, as is all below
	left   bool      // the pipeline was left with the current attempt Pending
	req    any       // the request of a server stream, to be sent again
	sent   bool      // there is one
	closed bool      // and no more
}

// ending is how the call ended before its stream was handed over, or that it was.
type ending struct {
	err      error
	plain    bool // err is that of the last attempt, as it was
	panicked any
}

// Stream makes a stream through the policies: it is a grpc.StreamClientInterceptor.
func (c *Client) Stream(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, streamer grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	ctx, span := c.span(ctx, method, cc)
	s := &stream{exchange: exchange{c: c, caller: ctx}, desc: desc, method: method, cc: cc, streamer: streamer, span: span}
	var err error
	if s.info, err = s.prepare(method, cc, opts, true); err != nil {
		err = asStatus(err, ctx)
		s.finished(err)
		return nil, err
	}
	var over bool
	if c.pends {
		over = s.enter()
	} else {
		go s.run(nil)
		over = s.wait()
	}
	if over {
		if s.over.err != nil {
			return nil, s.over.err
		}
		if s.live.Load() == nil {
			return nil, status.Error(codes.Internal, "grpcclient: a policy returned no stream")
		}
	}
	return s, nil
}

// enter makes the call until a stream stands, or none will, and reports whether it is over.
func (s *stream) enter() (over bool) {
	returned := false
	defer func() {
		if !returned { // a panic or Goexit, which is the caller's
			s.abandon()
		}
	}()
	s.opening = true
	out := s.c.pipeline.HandleIn(s.caller, &s.call, s.info, s)
	s.opening = false
	if _, ok := out.Held.(backstay.Pending); !ok {
		s.over.err, s.over.plain = s.settle(out)
		if s.over.err != nil {
			s.finished(s.over.err)
		}
		returned = true
		return true
	}
	returned = true
	a := s.current.Load()
	s.mu.Lock()
	s.left = true
	early := a.early
	s.mu.Unlock()
	if early {
		go s.run(a)
	}
	return false
}

// abandon ends a call for a policy that did not return.
func (s *stream) abandon() {
	err := status.Error(codes.Internal, "grpcclient: a policy did not return")
	if a := s.current.Load(); a != nil {
		a.Release()
		for _, f := range a.thens {
			f.End(backstay.Outcome{Err: err, Class: backstay.Neutral, Again: backstay.No})
		}
	}
	s.finished(err)
}

// run ends the call on a goroutine of its own: see judge.
func (s *stream) run(a *streamAttempt) {
	defer func() { s.turns() <- true }() // also on Goexit
	growStack(false)
	s.judge(a)
}

// judge goes on from the first word on a; nil: from the beginning of the call. Whatever a policy does, it is noted.
func (s *stream) judge(a *streamAttempt) {
	returned := false
	defer func() {
		if !returned {
			s.over.panicked = recover()
			s.over.err = status.Error(codes.Internal, "grpcclient: a policy has ended its goroutine")
		}
		if s.over.err != nil {
			s.finished(s.over.err)
		}
	}()
	var out backstay.Outcome
	if a == nil {
		out = s.c.pipeline.HandleIn(s.caller, &s.call, s.info, s)
	} else {
		out = a.judge(a.bounds)
		for _, f := range a.thens {
			out = f.End(out)
		}
	}
	s.over.err, s.over.plain = s.settle(out)
	returned = true
}

// turns is how a goroutine in the pipeline tells the caller's: true: the call is over, false: another stream stands. It has room for all that nobody waits for.
func (s *stream) turns() chan bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.events == nil {
		s.events = make(chan bool, 2)
	}
	return s.events
}

// stackRoom is what the pipeline and gRPC's opening of a stream need of a stack, about.
const stackRoom = 12 << 10

// growStack makes a new goroutine's stack large enough at once. It begins with 2 KB and is doubled when it is full, each time with a look at every frame on it: four times
// on the way to gRPC's, which took as long as all policies together (docs/decisions/012).
//
//go:noinline
func growStack(use bool) {
	if use { // never: that the function has the room is enough
		var room [stackRoom]byte
		fill(&room)
	}
}

//go:noinline
func fill(room *[stackRoom]byte) { room[0] = 1 }

// settle takes in how the call ended.
func (s *stream) settle(out backstay.Outcome) (err error, plain bool) {
	s.mu.Lock()
	s.req = nil
	s.mu.Unlock()
	if out.Err != nil {
		a := s.current.Load()
		return s.failed(out.Err), a != nil && same(out.Err, a.err)
	}
	switch v := out.Value.(type) {
	case *streamAttempt:
		s.live.Store(v)
	case grpc.ClientStream: // a fallback's
		s.live.Store(&streamAttempt{inner: v})
	default:
		return asStatus(fmt.Errorf("%w: want grpc.ClientStream, a policy returned %T", backstay.ErrType, out.Value), s.caller), false
	}
	return nil, false
}

// wait waits for what the goroutine in the pipeline says next, and reports whether the call is over.
func (s *stream) wait() bool {
	over := <-s.turns()
	if over {
		s.rethrow()
	}
	return over
}

// rethrow goes on with the panic of a policy, where the caller is.
func (s *stream) rethrow() {
	if s.over.panicked != nil {
		panic(s.over.panicked)
	}
}

// stands is the stream that the caller's methods are for.
func (s *stream) stands() grpc.ClientStream {
	if a := s.live.Load(); a != nil {
		return a.inner
	}
	return s.current.Load().inner
}

// finished calls grpc.OnFinish of the caller's, once, and ends the span.
func (s *stream) finished(err error) {
	if s.span != nil {
		s.span.End(spanError(err)) // a second time, nothing
	}
	s.mu.Lock()
	all := s.finish
	s.finish = nil
	s.mu.Unlock()
	for _, f := range all {
		f(err)
	}
}

// RecvMsg implements grpc.ClientStream.
func (s *stream) RecvMsg(m any) error {
	if a := s.live.Load(); a != nil {
		return a.inner.RecvMsg(m)
	}
	s.first.Lock()
	defer s.first.Unlock()
	if a := s.live.Load(); a != nil {
		return a.inner.RecvMsg(m)
	}
	for s.final == nil {
		a := s.current.Load()
		err := a.inner.RecvMsg(m)
		if s.next(a, err) {
			return err
		}
	}
	return s.final
}

// Header implements grpc.ClientStream.
func (s *stream) Header() (metadata.MD, error) {
	if a := s.live.Load(); a != nil {
		return a.inner.Header()
	}
	s.first.Lock()
	defer s.first.Unlock()
	for s.live.Load() == nil && s.final == nil {
		a := s.current.Load()
		if md, err := a.inner.Header(); md != nil {
			s.committed.Store(true)
			return md, err
		}
		err := a.inner.RecvMsg(&emptypb.Empty{}) // it has ended without headers, so this is its status
		if s.next(a, err) {
			break
		}
	}
	if a := s.live.Load(); a != nil {
		return a.inner.Header()
	}
	return nil, nil
}

// next takes in what the first RecvMsg of a returned, and waits for what follows. ok: it was the last attempt, and good.
func (s *stream) next(a *streamAttempt, err error) (ok bool) {
	switch {
	case !s.heard(a, err):
		return false
	case s.over.err == nil:
		return true
	case s.over.plain && err != nil && err != io.EOF:
		s.final = err // as an interceptor inside this one may have put it
	default:
		s.final = s.over.err
	}
	return false
}

// heard has a judged by err, unless it has been, and reports whether the call is over then.
func (s *stream) heard(a *streamAttempt, err error) (over bool) {
	if err == io.EOF {
		err = nil
	}
	if a.say(verdict{err: err}) && a.word == nil {
		if err == nil {
			s.judge(a)
			s.rethrow()
			return true
		}
		go s.run(a)
	}
	return s.wait()
}

// SendMsg implements grpc.ClientStream.
func (s *stream) SendMsg(m any) error {
	if s.replays() && s.live.Load() == nil {
		s.mu.Lock()
		s.req, s.sent = m, true
		s.mu.Unlock()
	}
	return s.stands().SendMsg(m)
}

// CloseSend implements grpc.ClientStream.
func (s *stream) CloseSend() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	return s.stands().CloseSend()
}

// Context implements grpc.ClientStream. As without this package, no further attempt is made once it has been called.
func (s *stream) Context() context.Context {
	s.committed.Store(true)
	return s.stands().Context()
}

// Trailer implements grpc.ClientStream.
func (s *stream) Trailer() metadata.MD { return s.stands().Trailer() }

// replays reports whether the stream can be opened again after it has stood: one request, and the server sends.
func (s *stream) replays() bool { return s.repeat && s.c.repeats && !s.desc.ClientStreams }

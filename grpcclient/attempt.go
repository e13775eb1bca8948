package grpcclient

import (
	"context"
	"strconv"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/stats"

	"github.com/backstay-go/backstay"
)

// attempt is one attempt as gRPC sees it: its context, by which the stats handler finds it, and what came of it.
type attempt struct {
	context.Context
	bounds context.Context // what Context is without the metadata; for unary calls

	seen    atomic.Uint32 // what the stats handler has seen
	trailer metadata.MD   // untouched, or what gRPC put here when the call ended; read after that
	blind   bool          // gRPC may still be writing it

	reply  any // where the answer goes: the caller's, or one of its own beside a hedge
	*apart     // beside a hedge; else nil
	room   [4]grpc.CallOption
}

// apart is what is kept of an attempt beside a hedge until the call has ended.
type apart struct {
	copies []func() // hand header, trailer and peer to the caller
	ended  bool     // guarded by the unary's mu, as is err
	err    error    // how it ended
}

// What a stats handler can see.
const (
	seenBegin  = 1 << iota // it watches
	seenOut                // headers were handed to a connection
	seenAnswer             // the server ended the call
)

// untouched is what a trailer is before gRPC has written to it, which it does when an attempt ends that had a stream on a connection.
var untouched = metadata.MD{"": nil}

func (a *attempt) has(flag uint32) bool { return a.seen.Load()&flag != 0 }

// streamed reports whether the attempt, or the last one that gRPC made of it, had a stream on a connection.
func (a *attempt) streamed() bool {
	if a.blind {
		return a.has(seenOut) || !a.has(seenBegin)
	}
	_, not := a.trailer[""]
	return !not
}

// answered reports whether the server has sent metadata at the end. One that answers with an error alone does: the content type is among them.
func (a *attempt) answered() bool { return !a.blind && a.streamed() && len(a.trailer) > 0 }

// unheard reports whether nothing is known of an answer.
func (a *attempt) unheard() bool { return !a.has(seenAnswer) && !a.answered() }

// neverSent reports whether nothing of the attempt has left this process. dialed says that gRPC's own retry is off: only then does the last stream
// stand for all.
func (a *attempt) neverSent(dialed bool) bool {
	if a.has(seenBegin) {
		return !a.has(seenOut) && !a.streamed()
	}
	return dialed && !a.streamed()
}

// AfterFunc is for package context: gRPC derives a context from this one, which would cost a goroutine for each attempt, since a context that
// embeds another hides what it is.
func (a *attempt) AfterFunc(f func()) func() bool {
	if c, ok := a.bounds.(interface {
		AfterFunc(func()) func() bool
	}); ok {
		return c.AfterFunc(f)
	}
	return context.AfterFunc(a.bounds, f)
}

type attemptKey struct{}

// Value returns the attempt itself for its own key.
func (a *attempt) Value(key any) any {
	if key == any(attemptKey{}) {
		return a
	}
	return a.Context.Value(key)
}

// watcher is the stats handler.
type watcher struct{}

// TagRPC implements stats.Handler.
func (watcher) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context {
	mark(ctx, seenBegin)
	return ctx
}

// HandleRPC implements stats.Handler.
func (watcher) HandleRPC(ctx context.Context, s stats.RPCStats) {
	switch s.(type) {
	case *stats.OutHeader:
		mark(ctx, seenOut)
	case *stats.InTrailer:
		mark(ctx, seenAnswer)
	}
}

// TagConn implements stats.Handler.
func (watcher) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

// HandleConn implements stats.Handler.
func (watcher) HandleConn(context.Context, stats.ConnStats) {}

func mark(ctx context.Context, flag uint32) {
	if a, ok := ctx.Value(attemptKey{}).(*attempt); ok {
		a.seen.Or(flag)
	}
}

// The metadata that go with an attempt.
const (
	previousAttempts = "grpc-previous-rpc-attempts" // gRFC A6
	pushbackKey      = "grpc-retry-pushback-ms"     // gRFC A6
	idempotencyKey   = "idempotency-key"
	sagaOp           = "saga-op"
	sagaEpoch        = "saga-epoch"
)

// outgoing returns ctx with the metadata of an attempt.
func outgoing(ctx context.Context, call *backstay.Call, op *backstay.Operation) context.Context {
	if n := call.Attempt(); n > 1 {
		ctx = metadata.AppendToOutgoingContext(ctx, previousAttempts, strconv.Itoa(n-1))
	}
	if op == nil {
		return ctx
	}
	if op.Key != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, idempotencyKey, op.Key)
	}
	if op.Op != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, sagaOp, op.Op)
	}
	if op.Epoch != 0 {
		ctx = metadata.AppendToOutgoingContext(ctx, sagaEpoch, strconv.FormatInt(op.Epoch, 10))
	}
	return ctx
}

package grpcclient

import (
	"context"
	"fmt"
	"reflect"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/backstay-go/backstay"
)

// unary is one unary call on its way.
type unary struct {
	exchange
	call    backstay.Call // the pipeline's
	method  string
	req     any
	reply   any
	cc      *grpc.ClientConn
	invoker grpc.UnaryInvoker

	tried atomic.Bool // first is in use
	first attempt     // the first one: one piece of memory with the call
	apart bool        // attempts may run beside each other, so each has a reply and targets of its own

	mu       sync.Mutex
	attempts []*attempt // beside a hedge; guarded by mu
}

// Unary makes a unary call through the policies: it is a grpc.UnaryClientInterceptor. Its errors are statuses; that of a plain failure is the server's
// own, unchanged.
func (c *Client) Unary(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoker grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	ctx, span := c.span(ctx, method, cc)
	if span == nil {
		return c.unary(ctx, method, req, reply, cc, invoker, opts)
	}
	errorType := errGone
	defer func() { span.End(errorType) }()
	err := c.unary(ctx, method, req, reply, cc, invoker, opts)
	errorType = spanError(err)
	return err
}

func (c *Client) unary(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoker grpc.UnaryInvoker, opts []grpc.CallOption) error {
	u := &unary{exchange: exchange{c: c, caller: ctx}, method: method, req: req, reply: reply, cc: cc, invoker: invoker}
	info, err := u.prepare(method, cc, opts, false)
	if err == nil {
		ctx = u.prepareHedge(ctx, &info)
		err = u.result(c.pipeline.HandleIn(ctx, &u.call, info, u))
	} else {
		err = asStatus(err, ctx)
	}
	for _, f := range u.finish {
		f(err)
	}
	return err
}

// prepareHedge marks the call for a hedge, if there is one and attempts can be kept apart.
func (u *unary) prepareHedge(ctx context.Context, info *backstay.CallInfo) context.Context {
	if !u.repeat || u.hedge < 0 || u.hedge == 0 && !u.c.hedges {
		return ctx
	}
	if _, ok := u.reply.(proto.Message); !ok {
		return ctx // a reply of a type that we cannot make a second one of
	}
	u.apart, info.Repeat = true, backstay.Yes
	if u.hedge > 0 {
		ctx = context.WithValue(ctx, hedgeKey{}, u.hedge)
	}
	return ctx
}

// Attempt implements backstay.Attempter.
func (u *unary) Attempt(ctx context.Context, call *backstay.Call) backstay.Outcome {
	u.begin()
	a := &u.first
	if u.tried.Swap(true) {
		a = &attempt{}
	}
	a.Context, a.bounds, a.trailer, a.reply = outgoing(ctx, call, u.op), ctx, untouched, u.reply
	opts := a.room[:0]
	if u.apart {
		opts = u.keepApart(a, opts)
	} else {
		opts = append(opts, u.opts...)
	}
	opts = append(opts, grpc.Trailer(&a.trailer))
	err := u.invoker(a, u.method, u.req, a.reply, u.cc, opts...)
	if u.apart {
		u.mu.Lock()
		a.ended, a.err = true, err
		u.mu.Unlock()
	}
	out := u.classify(ctx, a, err)
	if err == nil {
		out.Value = a.reply
	}
	return out
}

// keepApart gives an attempt a reply, a header, a trailer and a peer of its own.
func (u *unary) keepApart(a *attempt, opts []grpc.CallOption) []grpc.CallOption {
	a.reply = u.reply.(proto.Message).ProtoReflect().New().Interface()
	a.apart = &apart{}
	for _, o := range u.opts {
		switch o := o.(type) {
		case grpc.HeaderCallOption:
			own := &metadata.MD{}
			opts = append(opts, grpc.Header(own))
			a.copies = append(a.copies, func() { *o.HeaderAddr = *own })
		case grpc.TrailerCallOption:
			own := &metadata.MD{}
			opts = append(opts, grpc.Trailer(own))
			a.copies = append(a.copies, func() { *o.TrailerAddr = *own })
		case grpc.PeerCallOption:
			own := &peer.Peer{}
			opts = append(opts, grpc.Peer(own))
			a.copies = append(a.copies, func() { *o.PeerAddr = *own })
		default:
			opts = append(opts, o)
		}
	}
	u.mu.Lock()
	u.attempts = append(u.attempts, a)
	u.mu.Unlock()
	return opts
}

// result turns the outcome of the call into what an interceptor returns, and the reply of the attempt that won into the caller's.
func (u *unary) result(out backstay.Outcome) error {
	if u.apart {
		u.take(out)
	}
	if out.Err != nil {
		return u.failed(out.Err)
	}
	if same(out.Value, u.reply) || u.apart && u.ours(out.Value) {
		return nil
	}
	return asStatus(u.replace(out.Value), u.caller) // a fallback's
}

// take hands what the attempt behind out has got to the caller. Others may still be running.
func (u *unary) take(out backstay.Outcome) {
	u.mu.Lock()
	defer u.mu.Unlock()
	var chosen *attempt
	for _, a := range u.attempts {
		switch {
		case !a.ended:
		case out.Err == nil && a.err == nil && same(out.Value, a.reply):
			chosen = a
			move(u.reply.(proto.Message), a.reply.(proto.Message))
		case out.Err != nil && a.err != nil:
			chosen = a // the last that ended
		}
	}
	if chosen != nil {
		for _, f := range chosen.copies {
			f()
		}
	}
}

// ours reports whether v is the reply of an attempt.
func (u *unary) ours(v any) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, a := range u.attempts {
		if same(v, a.reply) {
			return true
		}
	}
	return false
}

// replace makes v, which a policy came up with, the caller's reply.
func (u *unary) replace(v any) error {
	to, ok := u.reply.(proto.Message)
	from, ok2 := v.(proto.Message)
	if ok && ok2 && to.ProtoReflect().Descriptor() == from.ProtoReflect().Descriptor() {
		proto.Reset(to)
		proto.Merge(to, from)
		return nil
	}
	return fmt.Errorf("%w: want %T, a policy returned %T", backstay.ErrType, u.reply, v)
}

// move makes to what from is, without a copy of what from points to: from is not used again.
func move(to, from proto.Message) {
	proto.Reset(to)
	dst, src := to.ProtoReflect(), from.ProtoReflect()
	src.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		dst.Set(f, v)
		return true
	})
	dst.SetUnknown(src.GetUnknown())
}

// same reports whether a and b are one value.
func same(a, b any) bool {
	t := reflect.TypeOf(a)
	return t == reflect.TypeOf(b) && (t == nil || t.Comparable() && a == b)
}

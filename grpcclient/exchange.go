package grpcclient

import (
	"context"
	"crypto/rand"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/backstay-go/backstay"
)

// exchange is what all attempts of one call share.
type exchange struct {
	c      *Client
	known  *known
	caller context.Context
	opts   []grpc.CallOption   // without those that are called when the call ends
	finish []func(error)       // these
	op     *backstay.Operation // nil: none
	counts *backstay.Effects   // nil for a method without effects, or where nobody counts
	hedge  time.Duration       // as the call options and the table say; 0: as the pipeline does; negative: none
	repeat bool                // the call may be made more than once

	doubt atomic.Int32 // attempts that may have left this process, those under way included
}

// begin counts an attempt that is about to be made; classify takes it back if it turns out that nothing was sent.
func (x *exchange) begin() {
	x.doubt.Add(1)
	x.counts.Begin()
}

// failed returns the error of a call as its caller gets it: a status, which says if nothing was sent.
func (x *exchange) failed(err error) error {
	err = asStatus(err, x.caller)
	if x.doubt.Load() == 0 {
		return &statusError{status: Status(err), err: err, unsent: true}
	}
	return err
}

// prepare settles what is known before the first attempt. No call is hedged until [unary] has looked at
// its reply.
func (x *exchange) prepare(method string, cc *grpc.ClientConn, opts []grpc.CallOption, stream bool) (backstay.CallInfo, error) {
	c := x.c
	x.known = c.method(method)
	if !x.known.pure {
		x.counts = backstay.EffectsFrom(x.caller)
	}
	x.opts, x.finish = withoutFinish(opts)
	said := x.known.choose(opts)
	x.hedge, x.repeat = said.hedge, said.repeat == backstay.Yes
	target := ""
	if cc != nil {
		target = cc.Target()
	}
	info := backstay.CallInfo{
		Name: x.known.name, Key: c.settings.keyBy(target, method), Attempts: said.attempts, Repeat: backstay.No, Holds: stream,
	}
	if x.known.repeat == backstay.Yes { // by what the method is; what the caller says of one call does not make it safe
		return info, nil
	}
	op, err := backstay.TakeOperation(x.caller)
	if err != nil {
		return info, err
	}
	if !c.settings.trustKeys && op == (backstay.Operation{}) {
		return info, nil
	}
	x.withKey(op, said.repeat, stream)
	return info, nil
}

// withKey takes in the operation that the call stands for, and what its key says about repeating it.
func (x *exchange) withKey(op backstay.Operation, repeat backstay.Again, stream bool) {
	own := hasKey(x.caller)
	if own {
		op.Key = ""
	} else if op.Key == "" && x.c.settings.makeKeys && !stream {
		op.Key = rand.Text()
	}
	if repeat == backstay.Unsaid && x.c.settings.trustKeys && (own || op.Key != "") {
		x.repeat = true
	}
	x.op = &op
}

// hasKey reports whether the caller sends an idempotency key of its own.
func hasKey(ctx context.Context) bool {
	return len(metadata.ValueFromOutgoingContext(ctx, idempotencyKey)) > 0
}

// withoutFinish takes grpc.OnFinish out of the options: it is for the end of the call, and would be called for each attempt.
func withoutFinish(opts []grpc.CallOption) (rest []grpc.CallOption, finish []func(error)) {
	for i, o := range opts {
		if _, ok := o.(grpc.OnFinishCallOption); ok {
			rest = append(make([]grpc.CallOption, 0, len(opts)), opts[:i]...)
			for _, o := range opts[i:] {
				if f, ok := o.(grpc.OnFinishCallOption); ok {
					finish = append(finish, f.OnFinish)
				} else {
					rest = append(rest, o)
				}
			}
			return rest, finish
		}
	}
	return opts, nil
}

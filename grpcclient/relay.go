package grpcclient

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// Relay turns the error of a call that a server's handler made to something else into the error that the handler returns, such that its own caller does not
// repeat what has been repeated here already: with three attempts on each of three floors the lowest would get 27.
//
// Unavailable, ResourceExhausted and DeadlineExceeded become Internal, which nobody repeats by default, and a pushback of -1 goes with it, for clients that have been
// set to. Other statuses pass as they are. Errors of this library are read as [Status] does, of its HTTP client too. ctx is the handler's. A nil err is nil.
//
//	item, err := inventory.GetItem(ctx, req)
//	if err != nil {
//		return nil, grpcclient.Relay(ctx, err)
//	}
//
// Where the handler itself was cancelled, or is out of time, the status says so: its caller has gone.
func Relay(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if ended := ctx.Err(); ended != nil {
		return status.FromContextError(ended).Err()
	}
	st := Status(err)
	switch st.Code() {
	case codes.Unavailable, codes.ResourceExhausted, codes.DeadlineExceeded:
	default:
		return &statusError{status: st, err: err}
	}
	_ = grpc.SetTrailer(ctx, metadata.Pairs(pushbackKey, "-1")) // fails only outside a handler
	return &statusError{status: status.New(codes.Internal, "a dependency failed: "+st.Message()), err: err}
}

// Package guarded runs each unary call of a gRPC server at most once for its idempotency key: package guard, with the key in the call's metadata
// and the handler's reply as the result that is kept.
package guarded

import (
	"context"
	"database/sql"
	"errors"
	"strconv"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/backstay-go/backstay/saga/guard"
)

// Unary returns the interceptor. Handlers find their transaction with guard.TxFrom, and those that undo must reply with an Empty, since they may be
// asked to undo what never happened and are not called then.
func Unary(run guard.Runner) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		call, err := callOf(ctx)
		if err != nil {
			return nil, status.Error(codes.InvalidArgument, err.Error())
		}
		answer, err := run.Run(ctx, call, func(ctx context.Context, _ []byte) ([]byte, error) {
			reply, err := next(ctx, req)
			if err != nil {
				return nil, err // rolled back, and run again when the call comes again
			}
			kept, err := anypb.New(reply.(proto.Message))
			if err != nil {
				return nil, err
			}
			return proto.Marshal(kept)
		})
		switch {
		case err != nil:
			return nil, asStatus(err)
		case answer.How == guard.Nothing:
			return &emptypb.Empty{}, nil
		}
		var kept anypb.Any
		if err := proto.Unmarshal(answer.Result, &kept); err != nil {
			return nil, status.Error(codes.Internal, err.Error())
		}
		return kept.UnmarshalNew()
	}
}

// callOf reads the metadata that grpcclient sends.
func callOf(ctx context.Context) (guard.Call, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	first := func(name string) string {
		if v := md.Get(name); len(v) > 0 {
			return v[0]
		}
		return ""
	}
	c := guard.Call{Key: first("idempotency-key"), Op: guard.Op(first("saga-op"))}
	if s := first("saga-epoch"); s != "" {
		epoch, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return c, err
		}
		c.Epoch = epoch
	}
	return c, c.Validate()
}

// asStatus says what a failed call came to. The handler's own status is what it is.
func asStatus(err error) error {
	switch {
	case errors.Is(err, guard.ErrPoisoned):
		return status.Error(codes.FailedPrecondition, err.Error())
	case errors.Is(err, guard.ErrRunning): // the first call is still at it: its result is to be had soon
		busy, _ := status.New(codes.Unavailable, err.Error()).WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(100 * time.Millisecond)})
		return busy.Err()
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), errors.Is(err, sql.ErrTxDone):
		return status.FromContextError(context.Canceled).Err()
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	return status.Error(codes.Unavailable, "the database did not answer: "+err.Error())
}

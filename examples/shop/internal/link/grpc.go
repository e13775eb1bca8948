package link

import (
	"context"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/backstay-go/backstay"
)

// switched is two connections, of which the protection picks one for each call.
type switched struct {
	protection *Protection
	safe, bare *grpc.ClientConn
}

func (s *switched) pick() *grpc.ClientConn {
	if s.protection.On() {
		return s.safe
	}
	return s.bare
}

// Invoke implements grpc.ClientConnInterface.
func (s *switched) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	return s.pick().Invoke(ctx, method, args, reply, opts...)
}

// NewStream implements grpc.ClientConnInterface.
func (s *switched) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	return s.pick().NewStream(ctx, desc, method, opts...)
}

// The naive client's numbers: those of the loop that is pasted most.
const (
	blindAttempts = 5
	blindWait     = 50 * time.Millisecond
)

// blindly is the naive client for gRPC: see the one for HTTP.
func (l *Link) blindly(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	op, err := backstay.TakeOperation(ctx)
	if err != nil {
		return err
	}
	if op.Key != "" { // the metadata that package guarded reads on the other side
		ctx = metadata.AppendToOutgoingContext(ctx, "idempotency-key", op.Key, "saga-op", op.Op, "saga-epoch", strconv.FormatInt(op.Epoch, 10))
	}
	defer l.meter.Begin()()
	start := time.Now()
	for attempt := 1; ; attempt++ {
		err := invoke(ctx, method, req, reply, cc, opts...)
		bad := err != nil && status.Code(err) != codes.FailedPrecondition
		if bad && attempt < blindAttempts && ctx.Err() == nil {
			time.Sleep(blindWait)
			continue
		}
		l.meter.Call(attempt, time.Since(start), bad)
		return err
	}
}

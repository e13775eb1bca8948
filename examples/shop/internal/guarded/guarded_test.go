package guarded_test

import (
	"context"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/backstay-go/backstay/examples/shop/internal/guarded"
	pb "github.com/backstay-go/backstay/examples/shop/internal/shoppb"
	"github.com/backstay-go/backstay/saga/guard"
)

// call makes a call as the interceptor sees it.
func call(t *testing.T, run guard.Runner, key, op string, handler grpc.UnaryHandler) (any, error) {
	t.Helper()
	ctx := metadata.NewIncomingContext(t.Context(), metadata.Pairs("idempotency-key", key, "saga-op", op, "saga-epoch", "3"))
	return guarded.Unary(run)(ctx, &emptypb.Empty{}, &grpc.UnaryServerInfo{}, handler)
}

// A call that comes again gets the first one's reply, and its handler does not run.
func TestOnce(t *testing.T) {
	run := &guard.Memory{}
	var ran atomic.Int32
	authorise := func(context.Context, any) (any, error) {
		ran.Add(1)
		return &pb.AuthoriseReply{Authorisation: "a-1"}, nil
	}
	for range 3 {
		reply, err := call(t, run, "s/authorise", "action", authorise)
		if err != nil {
			t.Fatal(err)
		}
		if got := reply.(*pb.AuthoriseReply).GetAuthorisation(); got != "a-1" {
			t.Errorf("got authorisation %q, want a-1", got)
		}
	}
	if got := ran.Load(); got != 1 {
		t.Errorf("the handler ran %d times, want 1", got)
	}
}

// A call that failed runs again, and keeps its own status.
func TestFailed(t *testing.T) {
	run := &guard.Memory{}
	decline := func(context.Context, any) (any, error) {
		return nil, status.Error(codes.FailedPrecondition, "the card is declined")
	}
	if _, err := call(t, run, "s/authorise", "action", decline); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("got %v, want the handler's status", err)
	}
	accept := func(context.Context, any) (any, error) { return &emptypb.Empty{}, nil }
	if _, err := call(t, run, "s/authorise", "action", accept); err != nil {
		t.Errorf("got %v, want the second call to run", err)
	}
}

// An undo that comes first has nothing to undo, and the late action is refused.
func TestUndoFirst(t *testing.T) {
	run := &guard.Memory{}
	fail := func(context.Context, any) (any, error) {
		t.Error("a handler ran")
		return &emptypb.Empty{}, nil
	}
	reply, err := call(t, run, "s/reserve/undo", "compensate", fail)
	if _, ok := reply.(*emptypb.Empty); !ok || err != nil {
		t.Errorf("got %v, %v, want an Empty", reply, err)
	}
	if _, err := call(t, run, "s/reserve", "action", fail); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("got %v, want FAILED_PRECONDITION", err)
	}
}

// A call without a key is refused.
func TestNoKey(t *testing.T) {
	if _, err := call(t, &guard.Memory{}, "", "", nil); status.Code(err) != codes.InvalidArgument {
		t.Errorf("got %v, want INVALID_ARGUMENT", err)
	}
}

package grpcguard_test

import (
	"context"
	"errors"
	"net"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/backstay-go/backstay/grpcclient"
	"github.com/backstay-go/backstay/grpcclient/grpcguard"
	"github.com/backstay-go/backstay/saga"
	"github.com/backstay-go/backstay/saga/guard"
	"github.com/backstay-go/backstay/saga/sagamem"
)

// seen keeps the metadata of each call that reaches the guard.
type seen struct {
	guard.Memory
	calls []metadata.MD
}

func (s *seen) Run(ctx context.Context, c guard.Call, fn guard.Func) (guard.Answer, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	s.calls = append(s.calls, md)
	return s.Memory.Run(ctx, c, fn)
}

// A saga's step through grpcclient: its key, op and epoch reach the participant; an answer that was lost is replayed; the undo finds its action.
func TestSaga(t *testing.T) {
	s, run := &server{}, &seen{}
	lost := 0
	lose := func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoker grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		err := invoker(ctx, method, req, reply, cc, opts...)
		if lost++; lost == 1 && err == nil {
			return status.Error(codes.Unavailable, "the answer was lost")
		}
		return err
	}
	opts := append([]grpc.DialOption{grpc.WithChainUnaryInterceptor(lose)}, grpcclient.DialOptions()...) // outside the policies: the saga repeats, not they
	serve(t, s, run, grpcguard.Config{}, func(t *testing.T, conn *grpc.ClientConn) {
		client := pb.NewTestServiceClient(conn)
		no := errors.New("no")
		def := saga.Must(saga.Define("order", 1, func(b *saga.Builder[int]) {
			hold := saga.Step(b, "reserve", func(c *saga.Ctx, _ int) (string, error) {
				r, err := client.UnaryCall(c, &pb.SimpleRequest{})
				return r.GetUsername(), err
			}).Compensate(func(c *saga.Ctx, _ int, _ saga.Result[string]) error {
				_, err := client.EmptyCall(c, &pb.Empty{})
				return err
			})
			saga.Step(b, "charge", func(c *saga.Ctx, _ int) (string, error) {
				if got := hold.Get(c); got != "hold-1" {
					t.Errorf("got %q from the step, want the first reply", got)
				}
				return "", saga.NoEffect(saga.Fail(no))
			}, saga.Needs(hold)).Pivot()
		}))
		if err := sagamem.Run(t.Context(), def, 1); !errors.Is(err, no) {
			t.Errorf("got %v, want the second step's no", err)
		}
		if s.acts.Load() != 1 || s.undos.Load() != 1 {
			t.Errorf("got %d actions and %d undos, want 1 and 1", s.acts.Load(), s.undos.Load())
		}
		if len(run.calls) != 3 {
			t.Fatalf("got %d calls, want two of the action and the undo", len(run.calls))
		}
		key := func(i int, name string) string {
			if v := run.calls[i].Get(name); len(v) == 1 {
				return v[0]
			}
			return ""
		}
		if a, b := key(0, grpcguard.KeyMetadata), key(1, grpcguard.KeyMetadata); a == "" || a != b {
			t.Errorf("got keys %q and %q for the attempts of one step, want one", a, b)
		}
		if got, want := key(2, grpcguard.KeyMetadata), key(0, grpcguard.KeyMetadata)+saga.UndoSuffix; got != want {
			t.Errorf("got key %q for the undo, want %q", got, want)
		}
		for i, want := range []string{"action", "action", "compensate"} {
			if got := key(i, grpcguard.OpMetadata); got != want || key(i, grpcguard.EpochMetadata) == "" {
				t.Errorf("call %d: got op %q and epoch %q, want %q and some", i, got, key(i, grpcguard.EpochMetadata), want)
			}
		}
	}, opts...)
}

// The first unsafe call of a step takes its key; a second one fails before anything is sent, unless its context is that of a part.
func TestSagaSecondCall(t *testing.T) {
	s := &server{}
	serve(t, s, &guard.Memory{}, grpcguard.Config{}, func(t *testing.T, conn *grpc.ClientConn) {
		client := pb.NewTestServiceClient(conn)
		def := saga.Must(saga.Define("twice", 1, func(b *saga.Builder[int]) {
			saga.Step(b, "both", func(c *saga.Ctx, _ int) (string, error) {
				if _, err := client.UnaryCall(c, &pb.SimpleRequest{}); err != nil {
					return "", err
				}
				if _, err := client.UnaryCall(c, &pb.SimpleRequest{}); !errors.Is(err, saga.ErrKeyReused) {
					t.Errorf("second call: got %v, want ErrKeyReused", err)
				}
				r, err := client.UnaryCall(c.Part("second"), &pb.SimpleRequest{})
				return r.GetUsername(), err
			}).NothingToUndo("a test")
		}))
		if err := sagamem.Run(t.Context(), def, 1); err != nil {
			t.Error(err)
		}
		if s.acts.Load() != 2 {
			t.Errorf("got %d actions, want the step's and that of its part", s.acts.Load())
		}
	}, grpcclient.DialOptions()...)
}

// A step whose call never left this process is not undone; one that the server refused is, since nobody knows what it did first.
func TestSagaNeverSent(t *testing.T) {
	refused := func(context.Context, string) (net.Conn, error) { return nil, errors.New("connection refused") }
	for _, c := range []struct {
		name   string
		opts   []grpc.DialOption
		undone bool
	}{
		{"no connection", []grpc.DialOption{grpc.WithContextDialer(refused)}, false},
		{"the server's word", nil, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &server{act: func(context.Context, int) (*pb.SimpleResponse, error) {
				return nil, status.Error(codes.Unavailable, "go away")
			}}
			serve(t, s, &guard.Memory{}, grpcguard.Config{}, func(t *testing.T, conn *grpc.ClientConn) {
				undone := false
				def := saga.Must(saga.Define("order", 1, func(b *saga.Builder[int]) {
					saga.Step(b, "reserve", func(c *saga.Ctx, _ int) (string, error) {
						r, err := pb.NewTestServiceClient(conn).UnaryCall(c, &pb.SimpleRequest{})
						return r.GetUsername(), err
					}, saga.Attempts(1)).Compensate(func(*saga.Ctx, int, saga.Result[string]) error { undone = true; return nil })
				}))
				err := sagamem.Run(t.Context(), def, 1)
				if status.Code(err) != codes.Unavailable || undone != c.undone {
					t.Errorf("got %v and undone %v, want UNAVAILABLE and undone %v", err, undone, c.undone)
				}
				if got, want := s.acts.Load() > 0, c.undone; got != want {
					t.Errorf("the server was reached: got %v, want %v", got, want)
				}
			}, append(grpcclient.DialOptions(), c.opts...)...)
		})
	}
}

package grpcguard_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"

	"github.com/backstay-go/backstay/grpcclient/grpcguard"
	"github.com/backstay-go/backstay/saga/guard"
)

// server is a participant: UnaryCall is its action, EmptyCall its undo.
type server struct {
	pb.UnimplementedTestServiceServer
	act  func(ctx context.Context, call int) (*pb.SimpleResponse, error)
	undo func(ctx context.Context) error

	acts, undos atomic.Int32
}

func (s *server) UnaryCall(ctx context.Context, _ *pb.SimpleRequest) (*pb.SimpleResponse, error) {
	n := int(s.acts.Add(1))
	if s.act == nil {
		return &pb.SimpleResponse{Username: "hold-" + string(rune('0'+n))}, nil
	}
	return s.act(ctx, n)
}

func (s *server) EmptyCall(ctx context.Context, _ *pb.Empty) (*pb.Empty, error) {
	s.undos.Add(1)
	if s.undo == nil {
		return &pb.Empty{}, nil
	}
	return &pb.Empty{}, s.undo(ctx)
}

// serve runs story in a bubble with a connection to s behind the guard.
func serve(t *testing.T, s *server, run guard.Runner, cfg grpcguard.Config, story func(t *testing.T, conn *grpc.ClientConn), opts ...grpc.DialOption) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		listen := bufconn.Listen(1 << 20)
		srv := grpc.NewServer(grpc.ChainUnaryInterceptor(grpcguard.Unary(run, cfg)))
		pb.RegisterTestServiceServer(srv, s)
		healthpb.RegisterHealthServer(srv, health.NewServer())
		done := make(chan struct{})
		go func() { defer close(done); _ = srv.Serve(listen) }()
		conn, err := grpc.NewClient("passthrough:///participant", append([]grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listen.DialContext(ctx) })}, opts...)...)
		if err != nil {
			t.Fatal(err)
		}
		story(t, conn)
		_ = conn.Close()
		srv.Stop()
		<-done
	})
}

// call makes a call with the given metadata, and returns what the guard says it did.
func call(t *testing.T, conn *grpc.ClientConn, undo bool, pairs ...string) (reply, how string, err error) {
	t.Helper()
	var trailer metadata.MD
	ctx := metadata.AppendToOutgoingContext(t.Context(), pairs...)
	c := pb.NewTestServiceClient(conn)
	if undo {
		_, err = c.EmptyCall(ctx, &pb.Empty{}, grpc.Trailer(&trailer))
	} else {
		var r *pb.SimpleResponse
		r, err = c.UnaryCall(ctx, &pb.SimpleRequest{}, grpc.Trailer(&trailer))
		reply = r.GetUsername()
	}
	return reply, strings.Join(trailer.Get(grpcguard.GuardTrailer), ","), err
}

// want checks a call.
func want(t *testing.T, what, reply, how string, err error, wantReply, wantHow string, code codes.Code) {
	t.Helper()
	if reply != wantReply || how != wantHow || status.Code(err) != code {
		t.Errorf("%s: got %q, %q and %v; want %q, %q and %v", what, reply, how, err, wantReply, wantHow, code)
	}
}

func TestReplay(t *testing.T) {
	s := &server{}
	serve(t, s, &guard.Memory{}, grpcguard.Config{}, func(t *testing.T, conn *grpc.ClientConn) {
		key := []string{grpcguard.KeyMetadata, "s/reserve", grpcguard.OpMetadata, "action", grpcguard.EpochMetadata, "7"}
		r, how, err := call(t, conn, false, key...)
		want(t, "first", r, how, err, "hold-1", "ran", codes.OK)
		r, how, err = call(t, conn, false, key...)
		want(t, "again", r, how, err, "hold-1", "replayed", codes.OK)
		_, how, err = call(t, conn, true, key...) // the same key and op on another method
		want(t, "another method", "", how, err, "", "", codes.InvalidArgument)
		if s.acts.Load() != 1 || s.undos.Load() != 0 {
			t.Errorf("got %d actions and %d undos, want 1 and 0", s.acts.Load(), s.undos.Load())
		}
	})
}

func TestUndo(t *testing.T) {
	var undone proto.Message
	s := &server{undo: func(ctx context.Context) error {
		reply, failed, ok := grpcguard.Action(ctx)
		if !ok || failed != nil {
			return status.Errorf(codes.Internal, "no action: %v", failed)
		}
		undone = reply
		return nil
	}}
	serve(t, s, &guard.Memory{}, grpcguard.Config{}, func(t *testing.T, conn *grpc.ClientConn) {
		action := []string{grpcguard.KeyMetadata, "s/a", grpcguard.OpMetadata, "action"}
		undo := []string{grpcguard.KeyMetadata, "s/a/undo", grpcguard.OpMetadata, "compensate"}
		r, how, err := call(t, conn, false, action...)
		want(t, "action", r, how, err, "hold-1", "ran", codes.OK)
		_, how, err = call(t, conn, true, undo...)
		want(t, "undo", "", how, err, "", "ran", codes.OK)
		if r, ok := undone.(*pb.SimpleResponse); !ok || r.GetUsername() != "hold-1" {
			t.Errorf("the undo found %v, want the reply of its action", undone)
		}
		_, how, err = call(t, conn, true, undo...)
		want(t, "undo again", "", how, err, "", "replayed", codes.OK)

		_, how, err = call(t, conn, true, grpcguard.KeyMetadata, "s/b", grpcguard.OpMetadata, "compensate")
		want(t, "early undo", "", how, err, "", "nothing", codes.OK)
		r, how, err = call(t, conn, false, grpcguard.KeyMetadata, "s/b", grpcguard.OpMetadata, "action")
		want(t, "late action", r, how, err, "", "poisoned", codes.FailedPrecondition)
		if s.acts.Load() != 1 || s.undos.Load() != 1 {
			t.Errorf("got %d actions and %d undos, want 1 and 1", s.acts.Load(), s.undos.Load())
		}
	})
}

func TestRunning(t *testing.T) {
	in, out := make(chan bool), make(chan bool)
	s := &server{act: func(context.Context, int) (*pb.SimpleResponse, error) {
		in <- true
		<-out
		return &pb.SimpleResponse{Username: "slow"}, nil
	}}
	serve(t, s, &guard.Memory{}, grpcguard.Config{}, func(t *testing.T, conn *grpc.ClientConn) {
		type answer struct {
			reply, how string
			err        error
		}
		first := make(chan answer, 1)
		go func() {
			r, how, err := call(t, conn, false, grpcguard.KeyMetadata, "k")
			first <- answer{r, how, err}
		}()
		<-in
		r, how, err := call(t, conn, false, grpcguard.KeyMetadata, "k")
		want(t, "second", r, how, err, "", "running", codes.Aborted)
		wait := time.Duration(0)
		for _, d := range status.Convert(err).Details() {
			if info, ok := d.(*errdetails.RetryInfo); ok {
				wait = info.GetRetryDelay().AsDuration()
			}
		}
		if wait != time.Second {
			t.Errorf("got a wait of %v, want RetryInfo of a second", wait)
		}
		close(out)
		a := <-first
		want(t, "first", a.reply, a.how, a.err, "slow", "ran", codes.OK)
		r, how, err = call(t, conn, false, grpcguard.KeyMetadata, "k")
		want(t, "third", r, how, err, "slow", "replayed", codes.OK)
	})
}

// An error rolls back, so the next call runs again; one that is final is stored with its details.
func TestErrors(t *testing.T) {
	full, err := status.New(codes.FailedPrecondition, "no money").WithDetails(&errdetails.ErrorInfo{Reason: "BROKE"})
	if err != nil {
		t.Fatal(err)
	}
	act := func(_ context.Context, call int) (*pb.SimpleResponse, error) {
		if call == 1 {
			return nil, full.Err()
		}
		return &pb.SimpleResponse{Username: "paid"}, nil
	}
	serve(t, &server{act: act}, &guard.Memory{}, grpcguard.Config{}, func(t *testing.T, conn *grpc.ClientConn) {
		r, how, err := call(t, conn, false, grpcguard.KeyMetadata, "k")
		want(t, "first", r, how, err, "", "ran", codes.FailedPrecondition)
		if st := status.Convert(err); st.Message() != "no money" || len(st.Details()) != 1 {
			t.Errorf("got %v with %v, want the handler's own error", err, st.Details())
		}
		r, how, err = call(t, conn, false, grpcguard.KeyMetadata, "k")
		want(t, "second", r, how, err, "paid", "ran", codes.OK)
	})
	var undone error
	s := &server{act: act, undo: func(ctx context.Context) error { _, undone, _ = grpcguard.Action(ctx); return nil }}
	serve(t, s, &guard.Memory{}, grpcguard.Config{Final: []codes.Code{codes.FailedPrecondition}}, func(t *testing.T, conn *grpc.ClientConn) {
		for _, how := range []string{"ran", "replayed"} {
			r, got, err := call(t, conn, false, grpcguard.KeyMetadata, "k")
			want(t, "final", r, got, err, "", how, codes.FailedPrecondition)
			if st := status.Convert(err); st.Message() != "no money" || len(st.Details()) != 1 {
				t.Errorf("%s: got %v with %v, want message and details", how, err, st.Details())
			}
		}
		_, how, err := call(t, conn, true, grpcguard.KeyMetadata, "k", grpcguard.OpMetadata, "compensate")
		want(t, "undo", "", how, err, "", "ran", codes.OK)
		if status.Code(undone) != codes.FailedPrecondition {
			t.Errorf("the undo found %v, want the final error of its action", undone)
		}
	})
}

func TestTooLarge(t *testing.T) {
	size := 101
	s := &server{act: func(context.Context, int) (*pb.SimpleResponse, error) {
		return &pb.SimpleResponse{Username: strings.Repeat("x", size-2)}, nil
	}}
	serve(t, s, &guard.Memory{}, grpcguard.Config{MaxReply: 100}, func(t *testing.T, conn *grpc.ClientConn) {
		_, how, err := call(t, conn, false, grpcguard.KeyMetadata, "k")
		want(t, "one byte over", "", how, err, "", "", codes.Internal)
		size = 100
		_, how, err = call(t, conn, false, grpcguard.KeyMetadata, "k")
		want(t, "as large as may be", "", how, err, "", "ran", codes.OK)
	})
}

func TestMetadata(t *testing.T) {
	s := &server{}
	serve(t, s, &guard.Memory{}, grpcguard.Config{}, func(t *testing.T, conn *grpc.ClientConn) {
		for name, pairs := range map[string][]string{
			"no key": nil, "an empty key": {grpcguard.KeyMetadata, ""}, "two keys": {grpcguard.KeyMetadata, "a", grpcguard.KeyMetadata, "b"},
			"a long key": {grpcguard.KeyMetadata, strings.Repeat("k", guard.MaxKey+1)}, "an unknown op": {grpcguard.KeyMetadata, "k", grpcguard.OpMetadata, "drop table"},
			"two ops":   {grpcguard.KeyMetadata, "k", grpcguard.OpMetadata, "action", grpcguard.OpMetadata, "compensate"},
			"no number": {grpcguard.KeyMetadata, "k", grpcguard.EpochMetadata, "x"}, "a negative one": {grpcguard.KeyMetadata, "k", grpcguard.EpochMetadata, "-1"},
		} {
			_, how, err := call(t, conn, false, pairs...)
			want(t, name, "", how, err, "", "", codes.InvalidArgument)
		}
		if s.acts.Load() != 0 {
			t.Errorf("got %d actions after bad metadata, want none", s.acts.Load())
		}
		if _, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{}); err != nil {
			t.Errorf("gRPC's own service: got %v, want it let through", err)
		}
	})
	serve(t, s, &guard.Memory{}, grpcguard.Config{Keyless: true}, func(t *testing.T, conn *grpc.ClientConn) {
		r, how, err := call(t, conn, false)
		want(t, "keyless", r, how, err, "hold-1", "", codes.OK)
	})
	serve(t, s, &guard.Memory{}, grpcguard.Config{Guarded: func(string) bool { return false }}, func(t *testing.T, conn *grpc.ClientConn) {
		r, how, err := call(t, conn, false)
		want(t, "not guarded", r, how, err, "hold-2", "", codes.OK)
	})
}

func TestScope(t *testing.T) {
	s := &server{}
	tenant := func(ctx context.Context, _ string) string {
		md, _ := metadata.FromIncomingContext(ctx)
		return strings.Join(md.Get("tenant"), "")
	}
	serve(t, s, &guard.Memory{}, grpcguard.Config{Scope: tenant}, func(t *testing.T, conn *grpc.ClientConn) {
		for _, c := range []struct{ tenant, reply, how string }{{"1", "hold-1", "ran"}, {"2", "hold-2", "ran"}, {"2", "hold-2", "replayed"}} {
			r, how, err := call(t, conn, false, grpcguard.KeyMetadata, "k", "tenant", c.tenant)
			want(t, "tenant "+c.tenant, r, how, err, c.reply, c.how, codes.OK)
		}
	})
}

type brokenRunner struct{}

func (brokenRunner) Run(context.Context, guard.Call, guard.Func) (guard.Answer, error) {
	return guard.Answer{}, errors.New("password of the database is hunter2")
}

func TestDatabaseGone(t *testing.T) {
	serve(t, &server{}, brokenRunner{}, grpcguard.Config{}, func(t *testing.T, conn *grpc.ClientConn) {
		_, how, err := call(t, conn, false, grpcguard.KeyMetadata, "k")
		want(t, "database gone", "", how, err, "", "", codes.Unavailable)
		if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the answer tells what the database said: %v", err)
		}
	})
}

// deadlocked loses its first transaction.
type deadlocked struct{ guard.Memory }

func (r *deadlocked) Run(ctx context.Context, c guard.Call, fn guard.Func) (guard.Answer, error) {
	if _, err := fn(ctx, nil); err != nil {
		return guard.Answer{}, err
	}
	return r.Memory.Run(ctx, c, fn)
}

func TestRunsAgainAfterADeadlock(t *testing.T) {
	serve(t, &server{}, &deadlocked{}, grpcguard.Config{}, func(t *testing.T, conn *grpc.ClientConn) {
		r, how, err := call(t, conn, false, grpcguard.KeyMetadata, "k")
		want(t, "after a deadlock", r, how, err, "hold-2", "ran", codes.OK) // of the transaction that was committed
	})
}

func TestValidate(t *testing.T) {
	err := grpcguard.Config{MaxReply: -1, Final: []codes.Code{codes.OK, 99}}.Validate()
	if err == nil || !strings.Contains(err.Error(), "MaxReply") || strings.Count(err.Error(), "Final") != 2 {
		t.Errorf("got %v, want both fields named", err)
	}
	defer func() {
		if recover() == nil {
			t.Error("Unary took a config that is not valid")
		}
	}()
	grpcguard.Unary(&guard.Memory{}, grpcguard.Config{MaxReply: guard.MaxResult})
}

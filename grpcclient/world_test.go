package grpcclient_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/grpcclient"
	"github.com/backstay-go/backstay/retry"
	"github.com/backstay-go/backstay/standard"
)

// The methods of the service that tests call.
const (
	get    = "/backstay.test.Shop/Get"    // NO_SIDE_EFFECTS
	put    = "/backstay.test.Shop/Put"    // IDEMPOTENT
	charge = "/backstay.test.Shop/Charge" // says nothing
	list   = "/backstay.test.Shop/List"   // server stream, NO_SIDE_EFFECTS
	watch  = "/backstay.test.Shop/Watch"  // server stream, says nothing
	upload = "/backstay.test.Shop/Upload" // client stream, NO_SIDE_EFFECTS
	chat   = "/backstay.test.Shop/Chat"   // both, NO_SIDE_EFFECTS
)

var (
	serverStream = &grpc.StreamDesc{ServerStreams: true}
	clientStream = &grpc.StreamDesc{ClientStreams: true}
	bidiStream   = &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}
)

// TestMain links the service in, as generated code would, and looks for goroutines that are left.
func TestMain(m *testing.M) {
	safe := &descriptorpb.MethodOptions{IdempotencyLevel: descriptorpb.MethodOptions_NO_SIDE_EFFECTS.Enum()}
	same := &descriptorpb.MethodOptions{IdempotencyLevel: descriptorpb.MethodOptions_IDEMPOTENT.Enum()}
	method := func(name string, o *descriptorpb.MethodOptions, client, server bool) *descriptorpb.MethodDescriptorProto {
		return &descriptorpb.MethodDescriptorProto{
			Name: &name, InputType: proto.String(".google.protobuf.StringValue"), OutputType: proto.String(".google.protobuf.StringValue"),
			Options: o, ClientStreaming: &client, ServerStreaming: &server,
		}
	}
	file, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Name: proto.String("backstay/test/shop.proto"), Package: proto.String("backstay.test"), Syntax: proto.String("proto3"),
		Dependency: []string{"google/protobuf/wrappers.proto"},
		Service: []*descriptorpb.ServiceDescriptorProto{{Name: proto.String("Shop"), Method: []*descriptorpb.MethodDescriptorProto{
			method("Get", safe, false, false), method("Put", same, false, false), method("Charge", nil, false, false),
			method("List", safe, false, true), method("Watch", nil, false, true), method("Upload", safe, true, false), method("Chat", safe, true, true),
		}}},
	}, protoregistry.GlobalFiles)
	if err == nil {
		err = protoregistry.GlobalFiles.RegisterFile(file)
	}
	if err != nil {
		panic(err)
	}
	code := m.Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			println(err.Error())
			code = 1
		}
	}
	os.Exit(code)
}

// world is a real server and a real connection over a pipe in memory, inside a bubble.
type world struct {
	t      *testing.T
	listen *bufconn.Listener
	hits   atomic.Int32
	down   atomic.Bool     // dials fail
	extra  backstay.Policy // is innermost in what dial makes; nil: none

	mu    sync.Mutex
	heads []metadata.MD // what came with each call
	left  []time.Duration
}

// handler serves a call of any method; hit is its number, from 1.
type handler func(s grpc.ServerStream, hit int) error

// inWorld runs story in a bubble with a server that serves by handle.
func inWorld(t *testing.T, handle handler, story func(t *testing.T, w *world)) {
	t.Helper()
	inWorldWith(t, nil, handle, story)
}

// inBothWorlds is inWorld twice: once with the policies as they are, which do with the caller's goroutine until something goes wrong, and once with one among them
// that is to see nothing but endings.
func inBothWorlds(t *testing.T, handle handler, story func(t *testing.T, w *world)) {
	t.Helper()
	t.Run("pending", func(t *testing.T) { inWorldWith(t, nil, handle, story) })
	t.Run("endings", func(t *testing.T) { inWorldWith(t, onlyEndings(t), handle, story) })
}

// onlyEndings is a policy of somebody else's. It must not see an outcome that is Pending.
func onlyEndings(t *testing.T) backstay.Policy {
	return backstay.PolicyFunc(func(next backstay.Handler) backstay.Handler {
		return func(ctx context.Context, call *backstay.Call) backstay.Outcome {
			out := next(ctx, call)
			if _, ok := out.Held.(backstay.Pending); ok {
				t.Error("a policy that does not say that it handles them was handed an outcome that is Pending")
			}
			return out
		}
	})
}

func inWorldWith(t *testing.T, extra backstay.Policy, handle handler, story func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, listen: bufconn.Listen(1 << 20), extra: extra}
		srv := grpc.NewServer(grpc.UnknownServiceHandler(func(_ any, s grpc.ServerStream) error {
			md, _ := metadata.FromIncomingContext(s.Context())
			left := time.Duration(-1)
			if at, ok := s.Context().Deadline(); ok {
				left = time.Until(at)
			}
			w.mu.Lock()
			w.heads, w.left = append(w.heads, md), append(w.left, left)
			w.mu.Unlock()
			return handle(s, int(w.hits.Add(1)))
		}))
		served := make(chan struct{})
		go func() { defer close(served); _ = srv.Serve(w.listen) }()
		story(t, w)
		srv.Stop()
		<-served
	})
}

// dial returns a connection through the policies.
func (w *world) dial(parts ...backstay.Policy) *grpc.ClientConn {
	if w.extra != nil {
		if len(parts) == 0 {
			parts = []backstay.Policy{grpcclient.Standard(standard.Config{})}
		}
		parts = append(parts, w.extra)
	}
	return w.dialWith(grpcclient.DialOptions(parts...)...)
}

func (w *world) dialWith(opts ...grpc.DialOption) *grpc.ClientConn {
	w.t.Helper()
	conn, err := grpc.NewClient("passthrough:///shop", append(opts,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			if w.down.Load() {
				return nil, errors.New("connection refused")
			}
			return w.listen.DialContext(ctx)
		}))...)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// head returns the values of a key that came with each call.
func (w *world) head(key string) (all [][]string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, md := range w.heads {
		all = append(all, md.Get(key))
	}
	return all
}

// wantHits checks how many calls have reached the server.
func (w *world) wantHits(want int) {
	w.t.Helper()
	synctest.Wait()
	if got := int(w.hits.Load()); got != want {
		w.t.Errorf("calls that reached the server: got %d, want %d", got, want)
	}
}

func text(s string) *wrapperspb.StringValue { return wrapperspb.String(s) }

// call makes a unary call.
func call(ctx context.Context, conn *grpc.ClientConn, method string, opts ...grpc.CallOption) (string, error) {
	reply := &wrapperspb.StringValue{}
	err := conn.Invoke(ctx, method, text("please"), reply, opts...)
	return reply.Value, err
}

// open opens a stream, and for a server stream sends the request.
func open(ctx context.Context, conn *grpc.ClientConn, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	s, err := conn.NewStream(ctx, desc, method, opts...)
	if err != nil || desc.ClientStreams {
		return s, err
	}
	if err := s.SendMsg(text("please")); err != nil {
		return nil, err
	}
	return s, s.CloseSend()
}

// recv returns the next message.
func recv(s grpc.ClientStream) (string, error) {
	m := &wrapperspb.StringValue{}
	err := s.RecvMsg(m)
	return m.Value, err
}

// all returns the messages until the end.
func all(s grpc.ClientStream) (got []string, err error) {
	for {
		m, err := recv(s)
		if err != nil {
			if err == io.EOF {
				err = nil
			}
			return got, err
		}
		got = append(got, m)
	}
}

// answer serves the first calls with the given errors, later ones with a message that names the hit.
func answer(errs ...error) handler {
	return func(s grpc.ServerStream, hit int) error {
		if err := s.RecvMsg(&wrapperspb.StringValue{}); err != nil {
			return err
		}
		if hit <= len(errs) && errs[hit-1] != nil {
			return errs[hit-1]
		}
		return s.SendMsg(text("hit " + string(rune('0'+hit))))
	}
}

// codesOf is answer for codes.
func codesOf(all ...codes.Code) handler {
	var errs []error
	for _, c := range all {
		errs = append(errs, status.Error(c, "no luck"))
	}
	return answer(errs...)
}

// fast is a retry of n attempts with a fixed wait, so that tests can tell times.
func fast(n int) *retry.Retry {
	return retry.New(retry.Config{Attempts: n, Delay: 10 * time.Millisecond, Jitter: retry.None, Schedule: retry.Constant})
}

// wantCode checks the status of an error.
func wantCode(t *testing.T, err error, want codes.Code) {
	t.Helper()
	if got := status.Code(err); got != want {
		t.Errorf("got %v (%v), want %v", got, err, want)
	}
}

package published_test

import (
	"context"
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/budget"
	"github.com/backstay-go/backstay/grpcclient"
	"github.com/backstay-go/backstay/retry"
)

// a6 is the example of gRFC A6: four attempts, and a bucket of ten tokens to which a success brings a tenth.
const a6 = `{
	"retryThrottling": {"maxTokens": 10, "tokenRatio": 0.1},
	"methodConfig": [{"name": [{}], "retryPolicy": {
		"maxAttempts": 4, "initialBackoff": "0.1s", "maxBackoff": "1s", "backoffMultiplier": 2, "retryableStatusCodes": ["UNAVAILABLE"]
	}}]
}`

// leaf is a real gRPC server on a connection in memory, and a real client of it.
type leaf struct {
	conn     *grpc.ClientConn
	attempts atomic.Int64
	fails    func(n int64) bool // whether attempt n fails, from 1
	stop     func()
}

func dial(opts ...grpc.DialOption) *leaf {
	l := &leaf{fails: func(int64) bool { return true }}
	listener := bufconn.Listen(1 << 16)
	server := grpc.NewServer(grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		if err := stream.RecvMsg(&emptypb.Empty{}); err != nil {
			return err
		}
		if l.fails(l.attempts.Add(1)) {
			return status.Error(codes.Unavailable, "not now")
		}
		return stream.SendMsg(&emptypb.Empty{})
	}))
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(listener)
	}()
	opts = append(opts, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	conn, err := grpc.NewClient("passthrough:leaf", opts...)
	if err != nil {
		panic(err)
	}
	l.conn = conn
	l.stop = func() {
		_ = conn.Close()
		server.Stop()
		<-served
	}
	return l
}

// calls makes so many calls, ten a second, and returns how many attempts they came to.
func (l *leaf) calls(n int) float64 {
	before := l.attempts.Load()
	for range n {
		time.Sleep(100 * time.Millisecond)
		_ = l.conn.Invoke(context.Background(), "/leaf.Leaf/Get", &emptypb.Empty{}, &emptypb.Empty{})
	}
	return float64(l.attempts.Load() - before)
}

// TestGRPCThrottling (R8) runs gRPC's own retries by the example of gRFC A6, and ours beside them.
func TestGRPCThrottling(t *testing.T) {
	tab := compare(t, "gRFC A6, gRPC Retry Design: maxTokens 10, tokenRatio 0.1, retries while more than half of the tokens are left; grpc-go "+grpc.Version)
	methods := grpcclient.Methods{"*": {Repeat: "yes", Unregistered: true}}
	raw := func() *leaf { return dial(grpc.WithDefaultServiceConfig(a6)) }
	ours := func(parts ...backstay.Policy) func() *leaf {
		return func() *leaf { return dial(grpcclient.DialOptions(append(parts, methods)...)...) }
	}
	// The service config's numbers on our parts, without the breaker and the limit of the default pipeline.
	like := ours(retry.New(retry.Config{Attempts: 4, Delay: 100 * time.Millisecond, MaxDelay: time.Second, Budget: budget.New(budget.Config{})}))
	// bubble makes calls to a new server and returns how many attempts they came to.
	bubble := func(dial func() *leaf, calls int, fails func(int64) bool) (attempts float64) {
		synctest.Test(t, func(*testing.T) {
			l := dial()
			defer l.stop()
			if fails != nil {
				l.fails = fails
			}
			attempts = l.calls(calls)
		})
		return attempts
	}
	tab.within("grpc-go: one call that fails, attempts", 4, bubble(raw, 1, nil), 0)
	tab.within("grpc-go: seven calls that fail, attempts (28 without throttling)", 10, bubble(raw, 7, nil), 0)
	tab.atMost("Backstay, default: one call that fails", "4", bubble(ours(), 1, nil), 3)
	tab.atMost("Backstay, default: seven calls that fail", "10", bubble(ours(), 7, nil), 10)
	tab.atMost("Backstay, four attempts and a budget: seven calls that fail", "10", bubble(like, 7, nil), 10)
	if testing.Short() {
		return
	}
	for _, every := range []int64{100, 20, 5, 2, 1} {
		what := fmt.Sprintf("1,000 calls, every attempt in %d fails: attempts, grpc-go / four attempts and a budget", every)
		fails := func(n int64) bool { return n%every == 0 }
		theirs, mine := bubble(raw, 1000, fails), bubble(like, 1000, fails)
		tab.atMost(what, number(theirs), mine, 1100+2+120/10+1)
	}
}

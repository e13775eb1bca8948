package grpcguard_test

import (
	"context"
	"fmt"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/test/bufconn"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/grpcclient"
	"github.com/backstay-go/backstay/grpcclient/grpcguard"
	"github.com/backstay-go/backstay/saga/guard"
)

// A call that is made twice with one key runs once. In a service the runner is guard.New(db, guard.Postgres), and the handler works in guard.TxFrom(ctx).
func ExampleUnary() {
	srv := grpc.NewServer(grpc.ChainUnaryInterceptor(grpcguard.Unary(&guard.Memory{}, grpcguard.Config{})))
	pb.RegisterTestServiceServer(srv, &server{}) // answers "hold-1", then "hold-2"
	listen := bufconn.Listen(1 << 20)
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(listen) }()

	conn, err := grpc.NewClient("passthrough:///participant", append(grpcclient.DialOptions(),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listen.DialContext(ctx) }))...)
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx := backstay.WithIdempotencyKey(context.Background(), "order-7/reserve") // a saga's step brings its own
	for range 2 {
		reply, err := pb.NewTestServiceClient(conn).UnaryCall(ctx, &pb.SimpleRequest{})
		fmt.Println(reply.GetUsername(), err)
	}
	_ = conn.Close()
	srv.Stop()
	<-done
	// Output:
	// hold-1 <nil>
	// hold-1 <nil>
}

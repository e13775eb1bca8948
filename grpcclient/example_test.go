package grpcclient_test

import (
	"context"
	"errors"
	"fmt"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/breaker"
	"github.com/backstay-go/backstay/grpcclient"
	"github.com/backstay-go/backstay/retry"
	"github.com/backstay-go/backstay/standard"
)

// serveHealth starts a server with the health service.
func serveHealth() (addr string, stop func()) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	s := grpc.NewServer()
	healthpb.RegisterHealthServer(s, health.NewServer())
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	return l.Addr().String(), func() { s.Stop(); <-done }
}

// The default: the policies of package standard for each target.
func ExampleDialOptions() {
	addr, stop := serveHealth()
	defer stop()
	creds := grpc.WithTransportCredentials(insecure.NewCredentials())

	conn, err := grpc.NewClient(addr, append(grpcclient.DialOptions(), creds)...)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = conn.Close() }()
	answer, err := healthpb.NewHealthClient(conn).Check(context.Background(), &healthpb.HealthCheckRequest{}, grpcclient.Idempotent())
	fmt.Println(answer.GetStatus(), err)
	// Output: SERVING <nil>
}

// A client with policies of its own, which tells what is in it, and what an open breaker looks like to gRPC.
func ExampleNew() {
	down := breaker.New(breaker.Config{Name: "health"})
	down.SetMode(breaker.ForcedOpen)
	client := grpcclient.New(
		grpcclient.Methods{"/grpc.health.v1.Health/Check": {Repeat: "yes", Attempts: 2}},
		retry.New(retry.Config{}), down,
	)
	conn, err := grpc.NewClient("127.0.0.1:1", append(client.DialOptions(), grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = conn.Close() }()
	_, err = healthpb.NewHealthClient(conn).Check(context.Background(), &healthpb.HealthCheckRequest{})
	fmt.Println(status.Code(err), errors.Is(err, breaker.ErrOpen))
	// Output: Unavailable true
}

// What is wrong with a table that was read from a file.
func ExampleMethods_Validate() {
	fmt.Println(grpcclient.Methods{"/grpc.health.v1.Health/Chekc": {Attempts: -1}}.Validate())
	// Output:
	// grpcclient: Methods["/grpc.health.v1.Health/Chekc"]: unknown method: service grpc.health.v1.Health has no Chekc
	// grpcclient: Methods["/grpc.health.v1.Health/Chekc"].Attempts is -1; it must not be negative
}

// The status of an error of any policy, for servers that make one themselves.
func ExampleStatus() {
	err := &backstay.Rejected{Policy: "breaker", Name: "inventory", Reason: "open", Err: breaker.ErrOpen}
	st := grpcclient.Status(err)
	fmt.Println(st.Code() == codes.Unavailable, st.Message())
	// Output: true breaker "inventory": open
}

// The policies without the retry, where a mesh repeats already.
func ExampleStandard() {
	target, stop := serveHealth()
	defer stop()
	creds := grpc.WithTransportCredentials(insecure.NewCredentials())

	conn, err := grpc.NewClient(target, append(grpcclient.DialOptions(
		grpcclient.Standard(standard.Config{Retry: retry.Config{Attempts: 1}}),
	), creds)...)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = conn.Close() }()
	answer, err := healthpb.NewHealthClient(conn).Check(context.Background(), &healthpb.HealthCheckRequest{})
	fmt.Println(answer.GetStatus(), err)
	// Output: SERVING <nil>
}

// shop is a server that asks another one.
type shop struct {
	healthpb.UnimplementedHealthServer
	inventory inventory
}

type inventory struct{}

func (inventory) GetItem(context.Context, *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	return nil, &retry.ExhaustedError{Attempts: 3, Err: status.Error(codes.Unavailable, "no server")}
}

func (s *shop) Check(ctx context.Context, req *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	item, err := s.inventory.GetItem(ctx, req)
	if err != nil {
		return nil, grpcclient.Relay(ctx, err) // INTERNAL, and a pushback of -1
	}
	return item, nil
}

// A handler whose dependency fails does not have its own callers repeat that.
func ExampleRelay() {
	_, err := (&shop{}).Check(context.Background(), &healthpb.HealthCheckRequest{})
	fmt.Println(err)
	// Output: rpc error: code = Internal desc = a dependency failed: retry: 3 attempts in 0s: no server
}

// gRPC's own retry, by the same settings.
func ExampleServiceConfig() {
	fmt.Println(grpcclient.ServiceConfig(retry.Config{Attempts: 4}, grpcclient.Methods{"/grpc.health.v1.Health/Check": {Repeat: "yes"}}))
	// Output: {"methodConfig":[{"name":[{"service":"grpc.health.v1.Health","method":"Check"}],"retryPolicy":{"maxAttempts":4,"initialBackoff":"0.1s","maxBackoff":"5s","backoffMultiplier":2,"retryableStatusCodes":["UNAVAILABLE"]}}],"retryThrottling":{"maxTokens":10,"tokenRatio":0.1}}
}

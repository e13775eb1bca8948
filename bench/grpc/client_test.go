package grpc

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/failsafe-go/failsafe-go/bulkhead"
	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"github.com/failsafe-go/failsafe-go/failsafegrpc"
	"github.com/failsafe-go/failsafe-go/timeout"
	middleware "github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/retry"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	pb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/backstay-go/backstay/grpcclient"
	"github.com/backstay-go/backstay/retry"
)

// client is one way to call.
type client struct {
	name    string
	options func() []grpc.DialOption
	streams bool // it does something for streams
}

// clients returns all, the bare one first, then one that has nothing but a deadline, which costs the server something too. Backstay and failsafe-go have the same five policies; the others have a retry and nothing else, and
// failsafe-go leaves streams alone.
func clients() []client {
	native := grpcclient.ServiceConfig(retry.Config{}, grpcclient.Methods{"*": {Repeat: "yes"}})
	return []client{
		{"bare", func() []grpc.DialOption { return []grpc.DialOption{grpc.WithDisableRetry()} }, true},
		{"deadline", func() []grpc.DialOption {
			return []grpc.DialOption{grpc.WithDisableRetry(), grpc.WithUnaryInterceptor(
				func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoker grpc.UnaryInvoker, opts ...grpc.CallOption) error {
					ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
					defer cancel()
					return invoker(ctx, method, req, reply, cc, opts...)
				})}
		}, false},
		{"backstay", func() []grpc.DialOption { return grpcclient.DialOptions() }, true},
		{"failsafe", func() []grpc.DialOption {
			return []grpc.DialOption{grpc.WithUnaryInterceptor(failsafegrpc.NewUnaryClientInterceptor(
				timeout.New[*pb.SimpleResponse](30*time.Second),
				failsafegrpc.NewRetryPolicyBuilder[*pb.SimpleResponse]().Build(),
				bulkhead.New[*pb.SimpleResponse](1000),
				circuitbreaker.NewWithDefaults[*pb.SimpleResponse](),
				timeout.New[*pb.SimpleResponse](10*time.Second),
			))}
		}, false},
		{"go-grpc-middleware", func() []grpc.DialOption {
			opts := []middleware.CallOption{middleware.WithMax(3), middleware.WithCodes(codes.Unavailable), middleware.WithPerRetryTimeout(10 * time.Second)}
			return []grpc.DialOption{
				grpc.WithUnaryInterceptor(middleware.UnaryClientInterceptor(opts...)),
				grpc.WithStreamInterceptor(middleware.StreamClientInterceptor(opts...)),
			}
		}, true},
		{"native", func() []grpc.DialOption { return []grpc.DialOption{grpc.WithDefaultServiceConfig(native)} }, true},
	}
}

// server answers calls at once with what they send, and streams with as many messages as they ask for.
type server struct {
	pb.UnimplementedBenchmarkServiceServer
}

func (server) UnaryCall(_ context.Context, r *pb.SimpleRequest) (*pb.SimpleResponse, error) {
	return &pb.SimpleResponse{Payload: r.Payload}, nil
}

func (server) StreamingFromServer(r *pb.SimpleRequest, s grpc.ServerStreamingServer[pb.SimpleResponse]) error {
	answer := &pb.SimpleResponse{Payload: r.Payload}
	for range r.ResponseSize {
		if err := s.Send(answer); err != nil {
			return err
		}
	}
	return nil
}

// serve listens on loopback.
func serve(b *testing.B) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	s := grpc.NewServer()
	pb.RegisterBenchmarkServiceServer(s, server{})
	done := make(chan struct{})
	go func() { defer close(done); s.Serve(l) }()
	b.Cleanup(func() { s.Stop(); <-done })
	return l.Addr().String()
}

// dial connects, and makes a call so that the connection stands.
func (c client) dial(b *testing.B, addr string) pb.BenchmarkServiceClient {
	conn, err := grpc.NewClient("passthrough:///"+addr, append(c.options(), grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { conn.Close() })
	cl := pb.NewBenchmarkServiceClient(conn)
	if _, err := cl.UnaryCall(b.Context(), request(1)); err != nil {
		b.Fatal(err)
	}
	return cl
}

func request(messages int32) *pb.SimpleRequest {
	return &pb.SimpleRequest{Payload: &pb.Payload{Body: make([]byte, 100)}, ResponseSize: messages}
}

// BenchmarkGRPCUnary is a call after the other, with 100 bytes each way.
func BenchmarkGRPCUnary(b *testing.B) {
	addr := serve(b)
	for _, c := range clients() {
		b.Run(c.name, func(b *testing.B) {
			cl := c.dial(b, addr)
			req := request(0)
			b.ReportAllocs()
			for b.Loop() {
				r, err := cl.UnaryCall(b.Context(), req)
				if err != nil || len(r.Payload.Body) != 100 {
					b.Fatalf("got %v and %v, want 100 bytes", r, err)
				}
			}
		})
	}
}

// BenchmarkGRPCUnaryParallel is the same from 16 goroutines for each processor.
func BenchmarkGRPCUnaryParallel(b *testing.B) {
	addr := serve(b)
	for _, c := range clients() {
		b.Run(c.name, func(b *testing.B) {
			cl := c.dial(b, addr)
			b.ReportAllocs()
			b.SetParallelism(16)
			b.RunParallel(func(pb *testing.PB) {
				req := request(0)
				for pb.Next() {
					if _, err := cl.UnaryCall(b.Context(), req); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}

// BenchmarkGRPCServerStream is a stream of ten messages of 100 bytes, read to its end, after the other.
func BenchmarkGRPCServerStream(b *testing.B) {
	addr := serve(b)
	for _, c := range clients() {
		if !c.streams {
			continue
		}
		b.Run(c.name, func(b *testing.B) {
			cl := c.dial(b, addr)
			req := request(10)
			b.ReportAllocs()
			for b.Loop() {
				s, err := cl.StreamingFromServer(b.Context(), req)
				if err != nil {
					b.Fatal(err)
				}
				n := 0
				for ; ; n++ {
					if _, err = s.Recv(); err != nil {
						break
					}
				}
				if !errors.Is(err, io.EOF) || n != 10 {
					b.Fatalf("got %d messages and %v, want 10 and EOF", n, err)
				}
			}
		})
	}
}

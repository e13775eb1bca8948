// Quickstart-grpc calls a server that is busy every fifteenth time, with a bare connection and with a Backstay one, by unary calls and by streams; then the server
// goes away and comes back.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/backstay-go/backstay/breaker"
	"github.com/backstay-go/backstay/grpcclient"
)

// server is busy every fifteenth time, before it does anything.
type server struct {
	pb.UnimplementedTestServiceServer
	asked atomic.Int64
}

func (s *server) busy() error {
	if s.asked.Add(1)%15 == 0 {
		return status.Error(codes.Unavailable, "busy")
	}
	return nil
}

func (s *server) UnaryCall(context.Context, *pb.SimpleRequest) (*pb.SimpleResponse, error) {
	return &pb.SimpleResponse{}, s.busy()
}

func (s *server) StreamingOutputCall(r *pb.StreamingOutputCallRequest, out grpc.ServerStreamingServer[pb.StreamingOutputCallResponse]) error {
	if err := s.busy(); err != nil {
		return err
	}
	for range r.ResponseParameters {
		if err := out.Send(&pb.StreamingOutputCallResponse{}); err != nil {
			return err
		}
	}
	return nil
}

// serve starts the server at addr.
func serve(addr string) (stop func(), at string) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		log.Fatal(err)
	}
	s := grpc.NewServer()
	pb.RegisterTestServiceServer(s, &server{})
	go func() { _ = s.Serve(l) }()
	return s.Stop, l.Addr().String()
}

func main() {
	stop, addr := serve("127.0.0.1:0")
	creds := grpc.WithTransportCredentials(insecure.NewCredentials())

	bare, err := grpc.NewClient(addr, creds)
	if err != nil {
		log.Fatal(err)
	}
	defer bare.Close()
	// These two methods may be made more than once. A .proto can say so itself: option idempotency_level.
	table := grpcclient.Methods{"/grpc.testing.TestService/UnaryCall": {Repeat: "yes"}, "/grpc.testing.TestService/StreamingOutputCall": {Repeat: "yes"}}
	safe, err := grpc.NewClient(addr, append(grpcclient.DialOptions(table), creds)...)
	if err != nil {
		log.Fatal(err)
	}
	defer safe.Close()

	fmt.Println("The server is busy every fifteenth time.")
	for name, conn := range map[string]*grpc.ClientConn{"bare": bare, "backstay": safe} {
		client := pb.NewTestServiceClient(conn)
		calls, streams, messages := 0, 0, 0
		for range 100 {
			if _, err := client.UnaryCall(context.Background(), &pb.SimpleRequest{}); err == nil {
				calls++
			}
			n, err := read(client)
			if messages += n; err == nil {
				streams++
			}
		}
		fmt.Printf("  %-9s %3d of 100 calls and %3d of 100 streams went well, %d messages\n", name+":", calls, streams, messages)
	}

	fmt.Println("The server goes away for three seconds.")
	stop()
	time.AfterFunc(3*time.Second, func() { stop, _ = serve(addr) })
	client := pb.NewTestServiceClient(safe)
	good, opened := 0, 0
	var last error
	for start := time.Now(); time.Since(start) < 8*time.Second; time.Sleep(50 * time.Millisecond) {
		_, err := client.UnaryCall(context.Background(), &pb.SimpleRequest{})
		switch {
		case err == nil:
			good++
		case errors.Is(err, breaker.ErrOpen):
			opened++
			last = err
		}
	}
	fmt.Printf("  backstay: %d calls went well; %d were not made, as the breaker was open: %v\n", good, opened, last)
}

// read opens a stream of three messages and reads it to its end.
func read(client pb.TestServiceClient) (n int, err error) {
	s, err := client.StreamingOutputCall(context.Background(), &pb.StreamingOutputCallRequest{ResponseParameters: make([]*pb.ResponseParameters, 3)})
	if err != nil {
		return 0, err
	}
	for ; ; n++ {
		if _, err := s.Recv(); errors.Is(err, io.EOF) {
			return n, nil
		} else if err != nil {
			return n, err
		}
	}
}

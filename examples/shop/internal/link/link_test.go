package link_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/examples/shop/internal/link"
	pb "github.com/backstay-go/backstay/examples/shop/internal/shoppb"
)

// operation returns a context as a saga's step has it.
func operation(ctx context.Context) context.Context {
	return backstay.WithOperation(ctx, func() (backstay.Operation, error) {
		return backstay.Operation{Key: "s-1/step", Op: "compensate", Epoch: 7}, nil
	})
}

func newLink(on bool) *link.Link {
	var p link.Protection
	p.Set(on)
	return link.New("a", "b", &p, link.Limits{Total: 5 * time.Second, Attempt: 2 * time.Second})
}

// With protection and without, each attempt of a step carries the step's key, so that the other side makes it once.
func TestHTTPCarriesTheKey(t *testing.T) {
	for _, on := range []bool{true, false} {
		var mu sync.Mutex
		var got []string
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			mu.Lock()
			defer mu.Unlock()
			got = append(got, strings.Join([]string{r.Header.Get("Idempotency-Key"), r.Header.Get("Saga-Op"), r.Header.Get("Saga-Epoch"), string(body)}, " "))
			if len(got) == 1 {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
		}))
		l := newLink(on)
		req, err := http.NewRequestWithContext(operation(t.Context()), http.MethodPost, srv.URL, strings.NewReader("body"))
		if err != nil {
			t.Fatal(err)
		}
		client := l.HTTP()
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		client.CloseIdleConnections()
		srv.Close()
		if want := slices.Repeat([]string{"s-1/step compensate 7 body"}, 2); !slices.Equal(got, want) {
			t.Errorf("protection %v: got %q, want %q", on, got, want)
		}
		if r := l.Read(); r.Attempts != 2 || r.Calls == 0 {
			t.Errorf("protection %v: got %+v, want one call of two attempts", on, r)
		}
	}
}

// payments fails its first call, and writes down the metadata of all.
type payments struct {
	pb.UnimplementedPaymentsServer
	mu  sync.Mutex
	got []string
}

func (p *payments) Void(ctx context.Context, _ *pb.VoidRequest) (*emptypb.Empty, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.got = append(p.got, strings.Join(slices.Concat(md.Get("idempotency-key"), md.Get("saga-op"), md.Get("saga-epoch")), " "))
	if len(p.got) == 1 {
		return nil, status.Error(codes.Unavailable, "busy")
	}
	return &emptypb.Empty{}, nil
}

func TestGRPCCarriesTheKey(t *testing.T) {
	for _, on := range []bool{true, false} {
		lis, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		p := &payments{}
		srv := grpc.NewServer()
		pb.RegisterPaymentsServer(srv, p)
		ended := make(chan error, 1)
		go func() { ended <- srv.Serve(lis) }()
		l := newLink(on)
		conn, closeConn, err := l.Dial(lis.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := pb.NewPaymentsClient(conn).Void(operation(t.Context()), &pb.VoidRequest{}); err != nil {
			t.Errorf("protection %v: %v", on, err)
		}
		closeConn()
		srv.Stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if want := slices.Repeat([]string{"s-1/step compensate 7"}, 2); !slices.Equal(p.got, want) {
			t.Errorf("protection %v: got %q, want %q", on, p.got, want)
		}
	}
}

// A server hears from a protected caller how long that will wait.
func TestPatience(t *testing.T) {
	for _, on := range []bool{true, false} {
		said := make(chan bool, 1)
		srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			d, ok := link.Patience(r)
			said <- ok && d > time.Second && d <= 2*time.Second
		}))
		client := newLink(on).HTTP()
		resp, err := client.Get(srv.URL)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		client.CloseIdleConnections()
		srv.Close()
		if got := <-said; got != on {
			t.Errorf("protection %v: heard of a patience of up to two seconds: %v", on, got)
		}
	}
}

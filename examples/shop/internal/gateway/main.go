package gateway

import (
	"context"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/backstay-go/backstay/examples/shop/internal/link"
	"github.com/backstay-go/backstay/examples/shop/internal/service"
	pb "github.com/backstay-go/backstay/examples/shop/internal/shoppb"
)

// Main returns the service, with the shop's page at its root.
func Main(page http.Handler) service.Main {
	return func(ctx context.Context, h *service.Host) error {
		g := New(h)
		defer g.orders.CloseIdleConnections()
		conn, closeConn, err := h.Link("inventory", link.Limits{Total: 2 * time.Second, Attempt: 600 * time.Millisecond}).Dial(h.Peers["inventory"])
		if err != nil {
			return err
		}
		defer closeConn()
		mux := http.NewServeMux()
		g.Routes(mux)
		mux.Handle("/", until(ctx, page))
		h.Ready()
		group, ctx := errgroup.WithContext(ctx)
		group.Go(func() error { g.Watch(ctx, pb.NewInventoryClient(conn)); return nil })
		group.Go(func() error { return h.ServeHTTP(ctx, mux) })
		return group.Wait()
	}
}

// until ends the requests to next with ctx: the page's streams of updates, which would go on for ever.
func until(ctx context.Context, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		bounded, cancel := context.WithCancel(r.Context())
		defer cancel()
		defer context.AfterFunc(ctx, cancel)()
		next.ServeHTTP(w, r.WithContext(bounded))
	})
}

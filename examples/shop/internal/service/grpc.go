package service

import (
	"context"
	"time"

	"google.golang.org/grpc"

	"github.com/backstay-go/backstay/examples/shop/internal/guarded"
	"github.com/backstay-go/backstay/examples/shop/internal/store"
	"github.com/backstay-go/backstay/saga/guard"
)

// GRPCServer returns a server whose unary calls wait for a worker, are subject to the service's faults, and are made once for each idempotency key
// in the database db.
func (h *Host) GRPCServer(db *store.DB, workers *Workers) *grpc.Server {
	return grpc.NewServer(
		grpc.ChainUnaryInterceptor(workers.Unary, h.Faults.Unary, guarded.Unary(guard.New(db.DB, db.Dialect))),
		grpc.WaitForHandlers(true),
	)
}

// ServeGRPC serves the service's own address until ctx is over.
func (h *Host) ServeGRPC(ctx context.Context, srv *grpc.Server) error {
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(h.door) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	hard := time.AfterFunc(stopIn, srv.Stop)
	srv.GracefulStop()
	hard.Stop()
	return <-ended
}

package service

import (
	"context"
	"math/rand/v2"
	"net/http"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
)

// Workers are what a service has to work with: so many calls at a time, each of which takes a while. Others wait in a queue without end, which is
// what turns slowness into an outage.
type Workers struct {
	slots chan struct{}
	from  time.Duration
	to    time.Duration
}

// NewWorkers returns n workers, who take between from and to for a call.
func NewWorkers(n int, from, to time.Duration) *Workers {
	return &Workers{make(chan struct{}, n), from, to}
}

// do waits for a worker and lets it work; free gives it back.
func (w *Workers) do(ctx context.Context) (free func(), err error) {
	select {
	case w.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if w.to > 0 {
		t := time.NewTimer(w.from + rand.N(w.to-w.from+1))
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			<-w.slots
			return nil, ctx.Err()
		}
	}
	return func() { <-w.slots }, nil
}

// Unary is the interceptor for a gRPC server.
func (w *Workers) Unary(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	free, err := w.do(ctx)
	if err != nil {
		return nil, status.FromContextError(err).Err()
	}
	defer free()
	return next(ctx, req)
}

// HTTP is the middleware for an HTTP server.
func (w *Workers) HTTP(next http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		free, err := w.do(r.Context())
		if err != nil {
			return // nobody waits for an answer any more
		}
		defer free()
		next.ServeHTTP(rw, r)
	})
}

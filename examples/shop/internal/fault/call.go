package fault

import (
	"context"
	"errors"
	"net/http"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// lostFor bounds how long a caller without a timeout waits for an answer that is lost: then its connection breaks, as it would in the end.
const lostFor = 10 * time.Second

// HTTP puts the faults around a handler. An answer that is lost is a connection that breaks after the handler has done its work.
func (in *Injector) HTTP(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := in.Before(r.Context()); err != nil {
			if errors.Is(err, ErrInjected) {
				http.Error(w, err.Error(), http.StatusServiceUnavailable)
			}
			return
		}
		if in.Lost() {
			next.ServeHTTP(&deaf{header: http.Header{}}, r)
			panic(http.ErrAbortHandler) // net/http breaks the connection and logs nothing
		}
		next.ServeHTTP(w, r)
	})
}

// deaf takes an answer and keeps nothing of it.
type deaf struct{ header http.Header }

func (d *deaf) Header() http.Header         { return d.header }
func (d *deaf) Write(p []byte) (int, error) { return len(p), nil }
func (d *deaf) WriteHeader(int)             {}

// Unary is HTTP for a gRPC server. An answer that is lost is one that the caller waits for until it gives up.
func (in *Injector) Unary(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	if err := in.Before(ctx); err != nil {
		if errors.Is(err, ErrInjected) {
			return nil, status.Error(codes.Unavailable, err.Error())
		}
		return nil, status.FromContextError(err).Err()
	}
	lost := in.Lost()
	reply, err := next(ctx, req)
	if lost {
		_ = sleep(ctx, lostFor)
		return nil, status.Error(codes.Unavailable, "the answer was lost")
	}
	return reply, err
}

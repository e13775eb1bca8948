// Connect puts the policies around a connect-go client. It takes any http.Client, so httpclient serves as it is; as its calls are POSTs, it is told which of them may be
// made more than once.
package main

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"sync/atomic"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/backstay-go/backstay/httpclient"
)

const echo = "/example.Echo/Say"

func main() {
	server := httptest.NewServer(busyTwice(connect.NewUnaryHandler(echo, func(_ context.Context, r *connect.Request[wrapperspb.StringValue]) (*connect.Response[wrapperspb.StringValue], error) {
		return connect.NewResponse(r.Msg), nil
	})))
	defer server.Close()

	client := connect.NewClient[wrapperspb.StringValue, wrapperspb.StringValue](
		&http.Client{Transport: httpclient.New(nil)}, server.URL+echo,
		connect.WithInterceptors(connect.UnaryInterceptorFunc(func(next connect.UnaryFunc) connect.UnaryFunc {
			return func(ctx context.Context, r connect.AnyRequest) (connect.AnyResponse, error) {
				if r.Spec().IdempotencyLevel != connect.IdempotencyUnknown { // what the .proto says
					ctx = httpclient.Idempotent(ctx)
				}
				return next(ctx, r)
			}
		})),
		connect.WithIdempotency(connect.IdempotencyNoSideEffects), // generated code does this
	)
	ctx, report := httpclient.WithCallInfo(context.Background())
	answer, err := client.CallUnary(ctx, connect.NewRequest(wrapperspb.String("hello")))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s, after %d attempts\n", answer.Msg.Value, report.Info().Attempts)
}

// busyTwice answers the first two requests with 503.
func busyTwice(next http.Handler) http.Handler {
	var hits atomic.Int32
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if hits.Add(1) <= 2 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		next.ServeHTTP(w, r)
	})
}

package storm

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/failsafe-go/failsafe-go/adaptivelimiter"
	"github.com/failsafe-go/failsafe-go/budget"
	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"github.com/failsafe-go/failsafe-go/failsafehttp"
	"github.com/hashicorp/go-retryablehttp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/backstay-go/backstay/httpclient"
	"github.com/backstay-go/backstay/retry"
)

// get makes one request and reports whether it was answered 200.
func get(ctx context.Context, client *http.Client, host int) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://%d.test/", host), nil)
	if err != nil {
		panic(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return false
	}
	_ = resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// over is a strategy that wraps the transport.
func over(name string, wrap func(http.RoundTripper) *http.Client) Strategy {
	return Strategy{Name: name, New: func(target Target, _ int) (Call, func()) {
		client := wrap(transport{target})
		return func(ctx context.Context, host int) bool { return get(ctx, client, host) }, nil
	}}
}

// NoRetry is one attempt for each call.
func NoRetry() Strategy {
	return over("no retry", func(rt http.RoundTripper) *http.Client { return &http.Client{Transport: rt} })
}

// Backstay is httpclient.New with no option.
func Backstay() Strategy {
	return over("backstay", func(rt http.RoundTripper) *http.Client { return &http.Client{Transport: httpclient.New(rt)} })
}

// Resends is the client of "Metastable Failures in the Wild": up to four times more, at once, whatever happens.
func Resends() Strategy {
	return over("4 resends at once", func(rt http.RoundTripper) *http.Client {
		return &http.Client{Transport: httpclient.New(rt, retry.New(retry.Config{Attempts: 5, Delay: -1, Jitter: retry.None}))}
	})
}

// Failsafe is failsafe-go's HTTP retry as it comes.
func Failsafe() Strategy {
	return over("failsafe-go retry", func(rt http.RoundTripper) *http.Client {
		return &http.Client{Transport: failsafehttp.NewRoundTripper(rt, failsafehttp.NewRetryPolicyBuilder().Build())}
	})
}

// FailsafeBudget adds its budget, as it comes.
func FailsafeBudget() Strategy {
	return over("failsafe-go retry + budget", func(rt http.RoundTripper) *http.Client {
		return &http.Client{Transport: failsafehttp.NewRoundTripper(rt, failsafehttp.NewRetryPolicyBuilder().WithBudget(budget.New()).Build())}
	})
}

// FailsafeBest is the best that failsafe-go offers: its adaptive limiter around a retry with a budget and a breaker that opens for 5 s.
func FailsafeBest() Strategy {
	return over("failsafe-go adaptive + budget + breaker 5s", func(rt http.RoundTripper) *http.Client {
		return &http.Client{Transport: failsafehttp.NewRoundTripper(rt,
			adaptivelimiter.NewWithDefaults[*http.Response](),
			failsafehttp.NewRetryPolicyBuilder().WithBudget(budget.New()).Build(),
			circuitbreaker.NewBuilder[*http.Response]().WithDelay(5*time.Second).Build())}
	})
}

// Retryable is go-retryablehttp as it comes.
func Retryable() Strategy {
	return over("go-retryablehttp", func(rt http.RoundTripper) *http.Client {
		c := retryablehttp.NewClient()
		c.Logger = nil
		c.HTTPClient = &http.Client{Transport: rt}
		return c.StandardClient()
	})
}

// Backoff is cenkalti/backoff alone, as it comes: a loop, no policy, bounded by 15 minutes.
func Backoff() Strategy {
	return Strategy{Name: "backoff v5 alone", New: func(target Target, _ int) (Call, func()) {
		client := &http.Client{Transport: transport{target}}
		return func(ctx context.Context, host int) bool {
			ok, err := backoff.Retry(ctx, func() (bool, error) {
				if !get(ctx, client, host) {
					return false, errBusy
				}
				return true, nil
			})
			return err == nil && ok
		}, nil
	}}
}

// GRPC is grpc-go with the example of gRFC A6 as its service config: four attempts, 0.1 s to 1 s. gRPC makes no retries unless a config
// asks for them.
func GRPC(throttled bool) Strategy {
	name, throttle := "grpc-go A6 without throttle", ""
	if throttled {
		name, throttle = "grpc-go A6 + throttle 10/0.1", `"retryThrottling": {"maxTokens": 10, "tokenRatio": 0.1},`
	}
	config := `{` + throttle + `"methodConfig": [{"name": [{}], "retryPolicy": {"maxAttempts": 4, "initialBackoff": "0.1s", "maxBackoff": "1s",
		"backoffMultiplier": 2, "retryableStatusCodes": ["UNAVAILABLE"]}}]}`
	return Strategy{Name: name, New: func(target Target, hosts int) (Call, func()) {
		calls, stops := make([]func(context.Context) bool, hosts), make([]func(), hosts)
		for host := range hosts {
			calls[host], stops[host] = dial(func(ctx context.Context) error { return target(ctx, host) }, config)
		}
		return func(ctx context.Context, host int) bool { return calls[host](ctx) }, func() {
			for _, stop := range stops {
				stop()
			}
		}
	}}
}

// dial connects a real gRPC client to a real gRPC server in front of the target.
func dial(target func(context.Context) error, config string) (func(context.Context) bool, func()) {
	lis := bufconn.Listen(1 << 20)
	srv := grpc.NewServer(grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		if err := stream.RecvMsg(&emptypb.Empty{}); err != nil {
			return err
		}
		switch err := target(stream.Context()); {
		case err == nil:
			return stream.SendMsg(&emptypb.Empty{})
		case errors.Is(err, errBusy), errors.Is(err, errAttempt):
			return status.Error(codes.Unavailable, err.Error())
		default:
			return err
		}
	}))
	served := make(chan struct{})
	go func() { defer close(served); _ = srv.Serve(lis) }()
	conn, err := grpc.NewClient("passthrough:leaf", grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultServiceConfig(config),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) }))
	if err != nil {
		panic(err)
	}
	call := func(ctx context.Context) bool {
		return conn.Invoke(ctx, "/leaf.Leaf/Get", &emptypb.Empty{}, &emptypb.Empty{}) == nil
	}
	return call, func() {
		_ = conn.Close()
		srv.Stop()
		<-served
	}
}

// Peers are the strategies of others, with their defaults, and the best settings where they have more.
func Peers() []Strategy {
	return []Strategy{Failsafe(), FailsafeBudget(), FailsafeBest(), Retryable(), Backoff(), GRPC(false), GRPC(true)}
}

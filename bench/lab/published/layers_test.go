package published_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/failsafe-go/failsafe-go"
	"github.com/failsafe-go/failsafe-go/retrypolicy"
	"google.golang.org/grpc/test/bufconn"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/budget"
	"github.com/backstay-go/backstay/httpclient"
	"github.com/backstay-go/backstay/retry"
	"github.com/backstay-go/backstay/standard"
)

// errLeaf is how the lowest layer always ends.
var errLeaf = errors.New("leaf fails")

// nested makes one call through layers that lie in one process, each with what wrap puts around the one below, and returns how often the leaf was called.
func nested(layers int, wrap func(func(context.Context) error) func(context.Context) error) (hits int) {
	call := func(context.Context) error {
		hits++
		return errLeaf
	}
	for range layers {
		call = wrap(call)
	}
	_ = call(context.Background())
	return hits
}

// services is a chain of HTTP servers on connections in memory, each of which calls the next with a client of its own: as many processes as far as
// the clients can tell, since nothing but HTTP passes between them. The last one answers 503, always.
type services struct {
	front *http.Client // of the first service
	hits  int          // at the leaf; requests come one after another
	stop  []func()
}

// relay makes the services tell by httpclient.Relay that a call below them failed.
func serve(layers int, relay bool, client func(http.RoundTripper) *http.Client) *services {
	s := &services{}
	handler := http.Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		s.hits++
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	for range layers {
		listener := bufconn.Listen(1 << 16)
		server := &http.Server{Handler: handler, ReadHeaderTimeout: time.Minute}
		served := make(chan struct{})
		go func() {
			defer close(served)
			_ = server.Serve(listener)
		}()
		transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return listener.DialContext(ctx) }}
		below := client(transport)
		s.front = below
		s.stop = append(s.stop, transport.CloseIdleConnections, func() {
			_ = server.Close()
			<-served
		})
		handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !relay {
				w.WriteHeader(get(r.Context(), below))
				return
			}
			req, err := http.NewRequestWithContext(r.Context(), http.MethodGet, "http://next.test/", nil)
			if err != nil {
				panic(err)
			}
			resp, err := below.Do(req)
			if !httpclient.Relay(w, resp, err) {
				_ = resp.Body.Close()
			}
		})
	}
	return s
}

// get makes a request and returns the status; what is no answer is a 503, as a service makes of it.
func get(ctx context.Context, client *http.Client) int {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://next.test/", nil)
	if err != nil {
		panic(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return http.StatusServiceUnavailable
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	return resp.StatusCode
}

func (s *services) close() {
	for _, stop := range s.stop {
		stop()
	}
}

// TestLayeredRetries (R4) puts three attempts on each of five layers.
func TestLayeredRetries(t *testing.T) {
	tab := compare(t, "AWS Builders' Library, Timeouts, retries, and backoff with jitter: five layers of three attempts call the lowest 243 times (as quoted)")
	synctest.Test(t, func(t *testing.T) {
		for layers := 1; layers <= 5; layers++ {
			power := math.Pow(3, float64(layers))
			naive := nested(layers, func(next func(context.Context) error) func(context.Context) error {
				policy := retrypolicy.NewWithDefaults[any]()
				return func(ctx context.Context) error {
					return failsafe.With[any](policy).WithContext(ctx).RunWithExecution(func(e failsafe.Execution[any]) error { return next(e.Context()) })
				}
			})
			tab.within(fmt.Sprintf("one call, layers %d: failsafe-go's retry (the law itself)", layers), power, float64(naive), 0)

			ours := nested(layers, func(next func(context.Context) error) func(context.Context) error {
				p := standard.New(standard.Config{})
				return func(ctx context.Context) error { return backstay.Run(ctx, p, next) }
			})
			tab.atMost(fmt.Sprintf("one call, layers %d: Backstay, one process", layers), number(power), float64(ours), 3)

			plain := func(rt http.RoundTripper) *http.Client { return &http.Client{Transport: httpclient.New(rt)} }
			s := serve(layers, false, plain)
			get(t.Context(), s.front)
			s.close()
			tab.atMost(fmt.Sprintf("one call, layers %d: Backstay, a process for each", layers), number(power), float64(s.hits), float64(1+2*layers))

			s = serve(layers, true, plain)
			get(t.Context(), s.front)
			s.close()
			tab.atMost(fmt.Sprintf("one call, layers %d: Backstay, a process for each, whose handlers relay", layers), number(power), float64(s.hits), 3)
		}

		const calls = 1000
		last := func(rt http.RoundTripper) *http.Client { return &http.Client{Transport: httpclient.New(rt)} }
		s := serve(5, false, last)
		for range calls {
			get(t.Context(), s.front)
			time.Sleep(10 * time.Millisecond)
		}
		s.close()
		tab.atMost("1,000 calls at 100/s, 5 processes, Backstay: calls of the leaf for each", "243", float64(s.hits)/calls, 1)

		// Without breakers the budgets stand alone: each layer may add a tenth to what it is asked for, and its start once.
		s = serve(5, false, func(rt http.RoundTripper) *http.Client {
			return &http.Client{Transport: httpclient.New(rt, retry.New(retry.Config{Budget: budget.New(budget.Config{})}))}
		})
		for range calls {
			get(t.Context(), s.front)
			time.Sleep(10 * time.Millisecond)
		}
		s.close()
		tab.atMost("the same, with a retry and its budget alone (1.1⁵ and the start)", "243", float64(s.hits)/calls, math.Pow(1.1, 5)*1.05)
	})
}

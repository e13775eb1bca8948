package http

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/failsafe-go/failsafe-go/bulkhead"
	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"github.com/failsafe-go/failsafe-go/failsafehttp"
	"github.com/failsafe-go/failsafe-go/timeout"
	"github.com/hashicorp/go-retryablehttp"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/httpclient"
)

// client is one way to call: wrap puts its middleware around a transport.
type client struct {
	name string
	wrap func(http.RoundTripper) *http.Client
}

// clients returns all, the bare one first, then one that has nothing but a deadline of the standard library's. The middleware of Backstay and of failsafe-go has the same five policies; go-retryablehttp has
// a retry and nothing else.
func clients() []client {
	return []client{
		{"bare", func(rt http.RoundTripper) *http.Client { return &http.Client{Transport: rt} }},
		{"deadline", func(rt http.RoundTripper) *http.Client { return &http.Client{Transport: deadlines{rt}} }},
		{"backstay", func(rt http.RoundTripper) *http.Client { return &http.Client{Transport: httpclient.New(rt)} }},
		{"failsafe", func(rt http.RoundTripper) *http.Client {
			return &http.Client{Transport: failsafehttp.NewRoundTripper(rt,
				timeout.New[*http.Response](30*time.Second),
				failsafehttp.NewRetryPolicyBuilder().Build(),
				bulkhead.New[*http.Response](1000),
				circuitbreaker.NewWithDefaults[*http.Response](),
				timeout.New[*http.Response](10*time.Second),
			)}
		}},
		{"retryablehttp", func(rt http.RoundTripper) *http.Client {
			c := retryablehttp.NewClient()
			c.Logger = nil
			c.HTTPClient = &http.Client{Transport: rt}
			return c.StandardClient()
		}},
	}
}

// deadlines gives each request a deadline that ends with the body.
type deadlines struct{ base http.RoundTripper }

func (d deadlines) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithTimeout(req.Context(), 10*time.Second)
	resp, err := d.base.RoundTrip(req.WithContext(ctx))
	if err != nil {
		cancel()
		return nil, err
	}
	resp.Body = cancelling{resp.Body, cancel}
	return resp, nil
}

// cancelling is a body whose end cancels.
type cancelling struct {
	io.ReadCloser
	cancel context.CancelFunc
}

func (c cancelling) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	if err != nil {
		c.cancel()
	}
	return n, err
}

func (c cancelling) Close() error {
	c.cancel()
	return c.ReadCloser.Close()
}

// transport returns one of its own for each client, so that none profits from the connections of another.
func transport() *http.Transport {
	return &http.Transport{MaxIdleConnsPerHost: 64}
}

// read makes the request and reads its answer to the end. refused reports that a limit of the client's let it not be made.
func read(b *testing.B, c *http.Client, req *http.Request, want int) (refused bool) {
	res, err := c.Do(req)
	if err != nil {
		if refused = errors.Is(err, backstay.ErrRejected); !refused {
			b.Error(err)
		}
		return refused
	}
	n, err := io.Copy(io.Discard, res.Body)
	res.Body.Close()
	if err != nil || res.StatusCode != http.StatusOK || n != int64(want) {
		b.Errorf("got status %d, %d bytes and error %v, want 200, %d and nil", res.StatusCode, n, err, want)
	}
	return false
}

// serveKiB answers 1 KiB.
func serveKiB(b *testing.B) string {
	answer := bytes.Repeat([]byte("x"), 1024)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(len(answer)))
		w.Write(answer)
	}))
	b.Cleanup(s.Close)
	return s.URL
}

// get makes a request to what serveKiB serves.
func get(b *testing.B, c *http.Client, url string) {
	req, err := http.NewRequestWithContext(b.Context(), http.MethodGet, url, nil)
	if err != nil {
		b.Fatal(err)
	}
	if read(b, c, req, 1024) {
		b.Fatal("got a refusal for calls that come one after the other")
	}
}

// swallowMB reads 1 MiB, which is its second result, and answers nothing.
func swallowMB(b *testing.B) (string, []byte) {
	body := bytes.Repeat([]byte("x"), 1<<20)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n, err := io.Copy(io.Discard, r.Body); err != nil || n != int64(len(body)) {
			w.WriteHeader(http.StatusBadRequest)
		}
	}))
	b.Cleanup(s.Close)
	return s.URL, body
}

// post makes a request to what swallowMB serves, with a body that can be replayed (GetBody).
func post(b *testing.B, c *http.Client, url string, body []byte) {
	req, err := http.NewRequestWithContext(b.Context(), http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		b.Fatal(err)
	}
	if read(b, c, req, 0) {
		b.Fatal("got a refusal for calls that come one after the other")
	}
}

// BenchmarkHTTPGet is a GET after the other, with an answer of 1 KiB.
func BenchmarkHTTPGet(b *testing.B) {
	url := serveKiB(b)
	for _, c := range clients() {
		b.Run(c.name, func(b *testing.B) {
			rt := transport()
			defer rt.CloseIdleConnections()
			cl := c.wrap(rt)
			b.ReportAllocs()
			for b.Loop() {
				get(b, cl, url)
			}
		})
	}
}

// BenchmarkHTTPGetPaired is BenchmarkHTTPGet with turns of 50 requests.
func BenchmarkHTTPGetPaired(b *testing.B) {
	url := serveKiB(b)
	takeTurns(b, 50, func(c *http.Client) { get(b, c, url) })
}

// BenchmarkHTTPPost1MBPaired is BenchmarkHTTPPost1MB with turns of 5 requests.
func BenchmarkHTTPPost1MBPaired(b *testing.B) {
	url, body := swallowMB(b)
	takeTurns(b, 5, func(c *http.Client) { post(b, c, url, body) })
}

// takeTurns compares the clients where a machine is too noisy for one after the other: they take turns of some requests each, and each reports the median of
// its turns over that of the bare one. ns/op is the time of a turn of all.
func takeTurns(b *testing.B, requests int, send func(*http.Client)) {
	all := clients()
	var of []*http.Client
	for _, c := range all {
		rt := transport()
		defer rt.CloseIdleConnections()
		of = append(of, c.wrap(rt))
	}
	times := make([][]time.Duration, len(of))
	for round := 0; b.Loop(); round++ {
		for i := range of {
			k := (round + i) % len(of) // nobody is always the first
			began := time.Now()
			for range requests {
				send(of[k])
			}
			times[k] = append(times[k], time.Since(began))
		}
	}
	var bare float64
	for k, t := range times {
		slices.Sort(t)
		median := float64(t[len(t)/2])
		if k == 0 {
			bare = median
		}
		b.ReportMetric(median/bare, all[k].name+"/bare")
	}
}

// BenchmarkHTTPGetParallel is the same from 16 goroutines for each processor, which is more than server and processors can do at once. A call that
// the client's limit refuses is made again until it is let through, and counted as refused/op.
func BenchmarkHTTPGetParallel(b *testing.B) {
	url := serveKiB(b)
	for _, c := range clients() {
		b.Run(c.name, func(b *testing.B) {
			rt := transport()
			defer rt.CloseIdleConnections()
			cl := c.wrap(rt)
			b.ReportAllocs()
			b.SetParallelism(16)
			var refused atomic.Int64
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					req, err := http.NewRequestWithContext(b.Context(), http.MethodGet, url, nil)
					if err != nil {
						b.Error(err)
						return
					}
					for read(b, cl, req, 1024) {
						refused.Add(1)
						runtime.Gosched()
					}
				}
			})
			b.ReportMetric(float64(refused.Load())/float64(b.N), "refused/op")
		})
	}
}

// BenchmarkHTTPPost1MB is a POST of 1 MiB after the other.
func BenchmarkHTTPPost1MB(b *testing.B) {
	url, body := swallowMB(b)
	for _, c := range clients() {
		b.Run(c.name, func(b *testing.B) {
			rt := transport()
			defer rt.CloseIdleConnections()
			cl := c.wrap(rt)
			b.ReportAllocs()
			b.SetBytes(int64(len(body)))
			for b.Loop() {
				post(b, cl, url, body)
			}
		})
	}
}

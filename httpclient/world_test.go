package httpclient_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/httpclient"
	"github.com/backstay-go/backstay/internal/pipenet"
	"github.com/backstay-go/backstay/retry"
)

// world is a real server and a real transport over pipes, inside a bubble.
type world struct {
	t        *testing.T
	listener *pipenet.Listener
	hits     atomic.Int32
	base     *http.Transport
}

// inWorld runs story in a bubble with a server that answers by handle, which gets the number of the hit, from 1.
func inWorld(t *testing.T, handle func(w http.ResponseWriter, r *http.Request, hit int), story func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, listener: pipenet.Listen()}
		w.base = &http.Transport{DialContext: w.listener.DialContext}
		srv := &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			handle(rw, r, int(w.hits.Add(1)))
		})}
		served := make(chan struct{})
		go func() { defer close(served); _ = srv.Serve(w.listener) }()
		story(t, w)
		w.base.CloseIdleConnections()
		_ = srv.Close()
		<-served
	})
}

func (w *world) client(parts ...backstay.Policy) *http.Client {
	return &http.Client{Transport: httpclient.New(w.base, parts...)}
}

// wantHits checks how many requests have reached the server.
func (w *world) wantHits(want int) {
	w.t.Helper()
	if got := int(w.hits.Load()); got != want {
		w.t.Errorf("requests that reached the server: got %d, want %d", got, want)
	}
}

// fast is a retry of n attempts with a fixed wait, so that tests can tell times.
func fast(n int) *retry.Retry {
	return retry.New(retry.Config{Attempts: n, Delay: 10 * time.Millisecond, Jitter: retry.None, Schedule: retry.Constant})
}

// statuses answers with one status after the other, then with 200, and a body that names the hit.
func statuses(codes ...int) func(http.ResponseWriter, *http.Request, int) {
	return func(w http.ResponseWriter, r *http.Request, hit int) {
		_, _ = io.Copy(io.Discard, r.Body)
		if hit <= len(codes) {
			w.WriteHeader(codes[hit-1])
		}
		_, _ = io.WriteString(w, "hit "+string(rune('0'+hit)))
	}
}

// read returns the status and the whole body of an answer.
func read(t *testing.T, resp *http.Response, err error) (int, string) {
	t.Helper()
	if err != nil {
		t.Fatalf("the request failed: %v", err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("reading the body failed: %v", err)
	}
	return resp.StatusCode, string(b)
}

func newRequest(t *testing.T, ctx context.Context, method string, body io.Reader) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, method, "http://example.com/items", body)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

// closeCounter is a request body that counts how often it is closed.
type closeCounter struct {
	io.Reader
	closed atomic.Int32
}

func (c *closeCounter) Close() error { c.closed.Add(1); return nil }

// plain hides what a reader is, so that http.NewRequest makes no GetBody.
func plain(s string) *closeCounter { return &closeCounter{Reader: strings.NewReader(s)} }

// roundTripper is a function as a transport.
type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

var errBoom = errors.New("boom")

func mustURL(s string) *url.URL {
	u, err := url.Parse(s)
	if err != nil {
		panic(err)
	}
	return u
}

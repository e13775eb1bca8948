package httpclient_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/breaker"
	"github.com/backstay-go/backstay/httpclient"
	"github.com/backstay-go/backstay/retry"
)

// attemptsOf makes one request over base, or the default transport, and says how many attempts it took and whether a breaker
// counted failures.
func attemptsOf(t *testing.T, base http.RoundTripper, method, url string, body io.Reader, change func(*http.Request)) (attempts int, failed bool, err error) {
	t.Helper()
	b := breaker.New(breaker.Config{Consecutive: -1})
	n := 0
	count := backstay.PolicyFunc(func(next backstay.Handler) backstay.Handler {
		return func(ctx context.Context, call *backstay.Call) backstay.Outcome { n++; return next(ctx, call) }
	})
	client := &http.Client{Transport: httpclient.New(base, retry.New(retry.Config{Attempts: 3, Delay: -1}), count, b)}
	req, err := http.NewRequest(method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(req)
	}
	resp, err := client.Do(req)
	if err == nil {
		_ = resp.Body.Close()
	}
	return n, b.Snapshot().Failures > 0, err
}

// Transport case 25: what will fail the same way again is tried once, and faults of the request are no breaker's failure.
func TestPermanentErrors(t *testing.T) {
	ok := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	secure := httptest.NewTLSServer(ok)
	defer secure.Close()
	secure.Config.ErrorLog = nil
	clear := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/loop":
			http.Redirect(w, r, "/loop", http.StatusFound)
		case "/bad":
			w.Header().Set("Location", "http://%zz/")
			w.WriteHeader(http.StatusFound)
		}
	}))
	defer clear.Close()
	pool := secure.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	cases := []struct {
		name   string
		base   http.RoundTripper
		url    string
		change func(*http.Request)
		fails  bool // counts as a failure of the dependency
		want   int
	}{
		{"self-signed", &http.Transport{}, secure.URL, nil, true, 1},
		{"expired", &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, Time: func() time.Time { return time.Now().AddDate(200, 0, 0) }}}, secure.URL, nil, true, 1},
		{"wrong host", &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, ServerName: "elsewhere.test"}}, secure.URL, nil, true, 1},
		{"TLS to a plain server", &http.Transport{}, strings.Replace(clear.URL, "http:", "https:", 1), nil, true, 1},
		{"unknown scheme", &http.Transport{}, "gopher://example.com/", nil, false, 1},
		{"no host", &http.Transport{}, "http:///x", nil, false, 1},
		{"bad header name", &http.Transport{}, clear.URL, func(r *http.Request) { r.Header["a b"] = []string{"x"} }, false, 1},
		{"bad header value", &http.Transport{}, clear.URL, func(r *http.Request) { r.Header["X"] = []string{"a\nb"} }, false, 1},
		{"malformed Location", &http.Transport{}, clear.URL + "/bad", nil, false, 1},
		{"redirect loop", &http.Transport{}, clear.URL + "/loop", nil, false, 10},
		{"no such host", failing(&net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", IsNotFound: true}}), "http://example.com/", nil, true, 1},
		{"hook's error", failing(http.ErrUseLastResponse), "http://example.com/", nil, true, 1},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got, failed, err := attemptsOf(t, c.base, "GET", c.url, nil, c.change)
			if err == nil {
				t.Fatal("no error")
			}
			if got != c.want {
				t.Errorf("attempts: got %d, want %d (%v)", got, c.want, err)
			}
			if failed != c.fails {
				t.Errorf("counted as a failure: got %v, want %v (%v)", failed, c.fails, err)
			}
		})
	}
}

// failing is a transport that fails with err.
func failing(err error) http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		if r.Body != nil {
			_ = r.Body.Close()
		}
		return nil, err
	})
}

// Transport cases 26 and 28: an error is repeated when the request may be, and any request that was never sent.
func TestTransportErrors(t *testing.T) {
	refused := &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
	reset := &net.OpError{Op: "read", Err: syscall.ECONNRESET}
	cases := []struct {
		name   string
		err    error
		method string
		want   int
	}{
		{"refused GET", refused, "GET", 3},
		{"refused POST", refused, "POST", 3},
		{"proxy refused POST", &net.OpError{Op: "proxyconnect", Err: syscall.ECONNREFUSED}, "POST", 3},
		{"reset GET", reset, "GET", 3},
		{"reset PUT", reset, "PUT", 3},
		{"unexpected EOF GET", io.ErrUnexpectedEOF, "GET", 3},
		{"temporary DNS error", &net.OpError{Op: "dial", Err: &net.DNSError{Err: "server misbehaving", IsTemporary: true}}, "POST", 3},
		{"no such host", &net.OpError{Op: "dial", Err: &net.DNSError{IsNotFound: true}}, "GET", 1},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got, _, _ := attemptsOf(t, failing(c.err), c.method, "http://example.com/", strings.NewReader("x"), nil)
			if got != c.want {
				t.Errorf("attempts: got %d, want %d", got, c.want)
			}
		})
	}
}

// Transport case 26 on a socket: a POST is repeated after a refused dial, not after its connection was reset, and a GET after both.
func TestRefusedAndReset(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var conns atomic.Int32
	served := make(chan struct{})
	go func() {
		defer close(served)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conns.Add(1)
			_, _ = c.Read(make([]byte, 4096))
			_ = c.(*net.TCPConn).SetLinger(0)
			_ = c.Close()
		}
	}()
	for method, want := range map[string]int{"POST": 1, "GET": 3} {
		conns.Store(0)
		got, _, err := attemptsOf(t, &http.Transport{}, method, "http://"+l.Addr().String(), strings.NewReader("x"), nil)
		if err == nil || got != want || int(conns.Load()) != want {
			t.Errorf("%s, reset: got %d attempts on %d connections and %v, want %d", method, got, conns.Load(), err, want)
		}
	}
	_ = l.Close()
	<-served
	for _, method := range []string{"POST", "GET"} {
		got, _, err := attemptsOf(t, &http.Transport{}, method, "http://"+l.Addr().String(), strings.NewReader("x"), nil)
		if err == nil || got != 3 {
			t.Errorf("%s, refused: got %d attempts and %v, want 3", method, got, err)
		}
	}
}

// Transport case 30: answers that say that the server works.
func TestClientErrorsAreSuccesses(t *testing.T) {
	for _, code := range []int{400, 401, 403, 404, 409, 422, 501} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }))
		got, failed, err := attemptsOf(t, nil, "GET", srv.URL, nil, nil)
		if got != 1 || failed || err != nil {
			t.Errorf("%d: got %d attempts, failure %v, error %v; want 1, false, nil", code, got, failed, err)
		}
		srv.Close()
	}
}

func TestStatuses(t *testing.T) {
	cases := []struct {
		code     int
		attempts int  // of three, when the request may be repeated
		failure  bool // for a breaker
	}{{408, 3, false}, {425, 3, false}, {429, 3, false}, {500, 3, true}, {502, 3, true}, {503, 3, true}, {504, 3, true}, {505, 1, true}, {507, 1, true}}
	for _, c := range cases {
		base := roundTripper(func(r *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: c.code, Body: http.NoBody, Header: http.Header{}}, nil
		})
		t.Run(fmt.Sprint(c.code), func(t *testing.T) {
			got, failed, _ := attemptsOf(t, base, "GET", "http://example.com/", nil, nil)
			if got != c.attempts || failed != c.failure {
				t.Errorf("GET: got %d attempts, a failure: %v; want %d, %v", got, failed, c.attempts, c.failure)
			}
			for _, m := range []struct {
				name string
				ctx  context.Context
				part backstay.Policy
				want int
			}{
				{"GET", context.Background(), nil, c.attempts},
				{"POST", context.Background(), nil, 1},
				{"POST", backstay.WithIdempotencyKey(context.Background(), "k"), nil, 1},
				{"POST", backstay.WithIdempotencyKey(context.Background(), "k"), httpclient.TrustKeys(), c.attempts},
				{"POST", context.Background(), httpclient.IdempotencyKeys(), c.attempts},
				{"POST", httpclient.Idempotent(context.Background()), nil, c.attempts},
				{"GET", httpclient.NoRetry(context.Background()), nil, 1},
				{"GET", httpclient.Attempts(context.Background(), 2), nil, min(2, c.attempts)},
			} {
				n := 0
				count := roundTripper(func(r *http.Request) (*http.Response, error) { n++; return base(r) })
				client := &http.Client{Transport: httpclient.New(count, retry.New(retry.Config{Attempts: 3, Delay: -1}), m.part)}
				resp, err := client.Do(newRequest(t, m.ctx, m.name, strings.NewReader("x")))
				if code, _ := read(t, resp, err); code != c.code {
					t.Errorf("status: got %d, want %d", code, c.code)
				}
				if n != m.want {
					t.Errorf("%s with %v: got %d attempts, want %d", m.name, m.part != nil, n, m.want)
				}
			}
		})
	}
}

// Transport case 29: server hints, in all their forms.
func TestRetryAfter(t *testing.T) {
	date := time.Date(2005, 1, 1, 0, 0, 0, 0, time.UTC) // the server's clock; the bubble's is five years behind
	cases := []struct {
		name     string
		header   []string
		min, max time.Duration
		hits     int
	}{
		{"seconds", []string{"1"}, time.Second, 1100 * time.Millisecond, 2},
		{"a date one second ahead of the server's own clock", []string{date.Add(time.Second).Format(http.TimeFormat)}, time.Second, 1100 * time.Millisecond, 2},
		{"a date in the past", []string{date.Add(-time.Hour).Format(http.TimeFormat)}, 0, 10 * time.Millisecond, 2},
		{"negative", []string{"-5"}, 10 * time.Millisecond, 10 * time.Millisecond, 2},
		{"garbage", []string{"abc"}, 10 * time.Millisecond, 10 * time.Millisecond, 2},
		{"far beyond the cap", []string{"99999999999"}, 0, 0, 1},
		{"overflowing", []string{"99999999999999999999999999"}, 0, 0, 1},
		{"overflowing to one second", []string{"18446744073709551617"}, 0, 0, 1},
		{"two lines, the first unreadable", []string{"soon", "1"}, time.Second, 1100 * time.Millisecond, 2},
		{"two lines", []string{"1", "7"}, time.Second, 1100 * time.Millisecond, 2},
	}
	for _, c := range cases {
		for _, code := range []int{429, 503} {
			t.Run(fmt.Sprintf("%d %s", code, c.name), func(t *testing.T) {
				inWorld(t, func(w http.ResponseWriter, _ *http.Request, hit int) {
					if hit == 1 {
						w.Header()["Retry-After"] = c.header
						w.Header().Set("Date", date.Format(http.TimeFormat))
						w.WriteHeader(code)
					}
				}, func(t *testing.T, w *world) {
					start := time.Now()
					resp, err := w.client(fast(2)).Get("http://example.com/")
					read(t, resp, err)
					if took := time.Since(start); took < c.min || took > c.max {
						t.Errorf("waited %v, want %v to %v", took, c.min, c.max)
					}
					w.wantHits(c.hits)
				})
			})
		}
	}
}

func FuzzRetryAfter(f *testing.F) {
	for _, s := range []string{"1", "-5", "abc", "99999999999", "Sat, 01 Jan 2000 00:00:01 GMT", "", " 3 ", "3\x00"} {
		f.Add(s, "Sat, 01 Jan 2000 00:00:00 GMT")
	}
	f.Fuzz(func(t *testing.T, value, date string) {
		var seen []backstay.Event
		base := roundTripper(func(*http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 503, Body: http.NoBody, Header: http.Header{"Retry-After": {value}, "Date": {date}}}, nil
		})
		watch := backstay.ObserverFunc(func(_ context.Context, e backstay.Event) { seen = append(seen, e) })
		pipeline := backstay.Chain(retry.New(retry.Config{Attempts: 2, Delay: time.Hour, Jitter: retry.None, MaxDelay: time.Hour})).Observe(watch)
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		req, _ := http.NewRequestWithContext(httpclient.With(ctx, backstay.Attempts(1)), "GET", "http://example.com/", nil)
		resp, err := httpclient.New(base, pipeline).RoundTrip(req)
		if err != nil || resp.StatusCode != 503 {
			t.Fatalf("got %v, %v", resp, err)
		}
		for _, e := range seen {
			if e.Wait < 0 {
				t.Errorf("a negative wait from %q: %v", value, e.Wait)
			}
		}
	})
}

// Transport case 31: when attempts run out, the caller gets the last answer; in error mode an error that has it all.
func TestExhausted(t *testing.T) {
	inWorld(t, statuses(503, 503, 503), func(t *testing.T, w *world) {
		resp, err := w.client(fast(3)).Get("http://example.com/")
		if code, body := read(t, resp, err); code != 503 || body != "hit 3" {
			t.Errorf("got %d %q, want the third answer, whole", code, body)
		}
		w.wantHits(3)
	})
	inWorld(t, statuses(503, 503, 503), func(t *testing.T, w *world) {
		_, err := w.client(fast(3), httpclient.ErrorMode()).Get("http://user:secret@example.com/a?token=secret")
		var ex *retry.ExhaustedError
		var status *httpclient.StatusError
		if !errors.As(err, &ex) || ex.Attempts != 3 {
			t.Errorf("error: got %v, want a *retry.ExhaustedError of 3 attempts", err)
		}
		if !errors.As(err, &status) || status.Code != 503 || string(status.Snippet) != "hit 3" {
			t.Errorf("error: got %+v, want a *StatusError with the snippet", status)
		}
		if status != nil && strings.Contains(status.Error(), "secret") {
			t.Errorf("the error tells a secret: %v", status)
		}
		if got := w.listener.Dialed(); got != 1 {
			t.Errorf("connections: got %d, want 1", got)
		}
	})
}

// A POST that was answered "too busy" with a time is repeated only where the client says that this is safe.
func TestRetryRejected(t *testing.T) {
	busy := func(w http.ResponseWriter, _ *http.Request, hit int) {
		if hit == 1 {
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(429)
		}
	}
	for _, c := range []struct {
		part backstay.Policy
		want int
	}{{nil, 1}, {httpclient.RetryRejected(), 2}} {
		inWorld(t, busy, func(t *testing.T, w *world) {
			resp, err := w.client(fast(3), c.part).Post("http://example.com/", "", strings.NewReader("x"))
			read(t, resp, err)
			w.wantHits(c.want)
		})
	}
}

// A transport that returns both a response and an error breaks its contract; the response is closed all the same.
func TestResponseAndError(t *testing.T) {
	body := plain("x")
	base := roundTripper(func(*http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: 200, Body: body}, errBoom
	})
	_, err := httpclient.New(base, fast(1)).RoundTrip(newRequest(t, context.Background(), "GET", nil))
	if !errors.Is(err, errBoom) || body.closed.Load() != 1 {
		t.Errorf("got %v, body closed %d times; want boom, once", err, body.closed.Load())
	}
}

// What the server says of repeating goes before what its status says, and only downwards: nothing makes an unsafe request repeatable.
func TestServerSaysNo(t *testing.T) {
	for _, tc := range []struct {
		name, method, header string
		status, want         int
	}{
		{"no", "GET", "false", 503, 1},
		{"no, quota", "GET", "false", 429, 1},
		{"yes", "GET", "true", 503, 3},
		{"yes, unsafe", "POST", "true", 503, 1},
		{"yes, not an ending to repeat", "GET", "true", 404, 1},
		{"something else", "GET", "maybe", 503, 3},
	} {
		t.Run(tc.name, func(t *testing.T) {
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("X-Should-Retry", tc.header)
				w.WriteHeader(tc.status)
			}))
			defer srv.Close()
			got, failed, err := attemptsOf(t, nil, tc.method, srv.URL, nil, nil)
			if got != tc.want || failed != (tc.status == 503) || err != nil {
				t.Errorf("got %d attempts, breaker's failure %v, error %v; want %d, %v, none", got, failed, err, tc.want, tc.status == 503)
			}
		})
	}
}

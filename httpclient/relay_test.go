package httpclient_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/httpclient"
)

// closing is a body that knows whether it was closed.
type closing struct {
	io.Reader
	closed bool
}

func (c *closing) Close() error { c.closed = true; return nil }

func TestRelay(t *testing.T) {
	refused := &backstay.Rejected{Policy: "breaker", Err: errors.New("secret")}
	for _, tc := range []struct {
		status int // of the dependency; 0: err in its place
		err    error
		want   int // 0: nothing to relay
	}{
		{status: 200}, {status: 304}, {status: 404}, {status: 408},
		{status: 429, want: 503}, {status: 500, want: 502}, {status: 502, want: 502}, {status: 503, want: 503}, {status: 504, want: 504}, {status: 507, want: 502},
		{err: errors.New("secret"), want: 502},
		{err: &url.Error{Op: "Get", URL: "http://secret", Err: refused}, want: 503},
		{err: &url.Error{Op: "Get", URL: "http://secret", Err: context.DeadlineExceeded}, want: 504},
	} {
		t.Run(fmt.Sprint(tc.status, tc.err), func(t *testing.T) {
			var resp *http.Response
			body := &closing{Reader: strings.NewReader("secret")}
			if tc.status != 0 {
				resp = &http.Response{StatusCode: tc.status, Header: http.Header{"Set-Cookie": {"secret"}}, Body: body}
			}
			w := httptest.NewRecorder()
			relayed := httpclient.Relay(w, resp, tc.err)
			if relayed != (tc.want != 0) || body.closed != (relayed && resp != nil) {
				t.Fatalf("got relayed %v, body closed %v", relayed, body.closed)
			}
			if !relayed {
				if w.Body.Len() > 0 || len(w.Header()) > 0 {
					t.Errorf("what is no failure was answered: %v %q", w.Header(), w.Body)
				}
				return
			}
			if w.Code != tc.want || w.Header().Get("X-Should-Retry") != "false" {
				t.Errorf("got %d, X-Should-Retry %q; want %d, false", w.Code, w.Header().Get("X-Should-Retry"), tc.want)
			}
			if got := fmt.Sprint(w.Header(), w.Body); strings.Contains(got, "secret") {
				t.Errorf("the answer tells what the dependency said: %s", got)
			}
		})
	}
}

// A service whose own dependency fails is asked once, since it has made its attempts.
func TestRelayedOnce(t *testing.T) {
	leaf := 0
	inWorld(t, func(w http.ResponseWriter, _ *http.Request, _ int) {
		leaf++
		w.WriteHeader(http.StatusServiceUnavailable)
	}, func(t *testing.T, below *world) {
		inner := below.client(fast(3))
		middle := 0
		handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			middle++
			resp, err := inner.Get("http://example.com/")
			if !httpclient.Relay(w, resp, err) {
				t.Error("a 503 was not relayed")
			}
		})
		outer := &http.Client{Transport: httpclient.New(handlerTripper{handler}, fast(3))}
		resp, err := outer.Get("http://example.com/")
		if got, _ := read(t, resp, err); got != 503 || leaf != 3 || middle != 1 {
			t.Errorf("got %d, %d requests at the service and %d at its dependency; want 503, 1, 3", got, middle, leaf)
		}
	})
}

// handlerTripper is another process, as far as a client can tell: nothing of the context passes.
type handlerTripper struct{ http.Handler }

func (h handlerTripper) RoundTrip(req *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req.WithContext(context.Background()))
	resp := w.Result()
	resp.Request = req
	return resp, nil
}

func ExampleRelay() {
	warehouse := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }))
	defer warehouse.Close()
	inventory := &http.Client{Transport: httpclient.New(nil)}
	shop := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		req, err := http.NewRequestWithContext(r.Context(), http.MethodGet, warehouse.URL, nil)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		resp, err := inventory.Do(req)
		if httpclient.Relay(w, resp, err) {
			return
		}
		defer func() { _ = resp.Body.Close() }()
		_, _ = io.Copy(w, resp.Body)
	}))
	defer shop.Close()

	client := &http.Client{Transport: httpclient.New(nil)}
	resp, err := client.Get(shop.URL)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = resp.Body.Close() }()
	fmt.Println(resp.StatusCode, resp.Header.Get("X-Should-Retry"))
	// Output: 502 false
}

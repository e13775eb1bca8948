package httpclient_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/breaker"
	"github.com/backstay-go/backstay/bulkhead"
	"github.com/backstay-go/backstay/hedge"
	"github.com/backstay-go/backstay/httpclient"
	"github.com/backstay-go/backstay/retry"
	"github.com/backstay-go/backstay/standard"
	"github.com/backstay-go/backstay/timeout"
)

// Transport case 32: a breaker that opens between two attempts ends the call with the first one's answer.
func TestBreakerOpensBetweenAttempts(t *testing.T) {
	inWorld(t, statuses(503, 503, 503), func(t *testing.T, w *world) {
		b := breaker.New(breaker.Config{Consecutive: 1, Spread: -1, OpenFor: time.Minute, MaxOpenFor: time.Minute})
		ctx, report := httpclient.WithCallInfo(context.Background())
		start := time.Now()
		resp, err := w.client(fast(5), b).Do(newRequest(t, ctx, "GET", nil))
		if code, body := read(t, resp, err); code != 503 || body != "hit 1" {
			t.Errorf("got %d %q, want the first answer, whole", code, body)
		}
		if took := time.Since(start); took != 10*time.Millisecond {
			t.Errorf("took %v, want the one wait of 10ms", took)
		}
		w.wantHits(1)
		if info := report.Info(); !errors.Is(info.Rejected, breaker.ErrOpen) || info.Attempts != 1 {
			t.Errorf("call info: got %+v, want one attempt and breaker.ErrOpen", info)
		}
	})
}

// Transport case 33: a permit is held until the body is closed, read to its end, or the caller's context is over.
func TestPermitLivesAsLongAsTheBody(t *testing.T) {
	ends := map[string]func(resp *http.Response, cancel func()){
		"close":  func(resp *http.Response, _ func()) { _ = resp.Body.Close(); _ = resp.Body.Close() },
		"EOF":    func(resp *http.Response, _ func()) { _, _ = io.ReadAll(resp.Body) },
		"cancel": func(_ *http.Response, cancel func()) { cancel() },
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			inWorld(t, statuses(), func(t *testing.T, w *world) {
				b := bulkhead.New(bulkhead.Config{Limit: 1})
				c := w.client(b)
				ctx, cancel := context.WithCancel(context.Background())
				defer cancel()
				first, err := c.Do(newRequest(t, ctx, "GET", nil))
				if err != nil {
					t.Fatal(err)
				}
				if _, err := c.Get("http://example.com/"); !errors.Is(err, bulkhead.ErrFull) {
					t.Errorf("the second call while the first body is open: got %v, want bulkhead.ErrFull", err)
				}
				end(first, cancel)
				synctest.Wait()
				resp, err := c.Get("http://example.com/")
				read(t, resp, err)
				if got := b.Snapshot().InUse; got != 0 {
					t.Errorf("permits at the end: got %d, want 0", got)
				}
				_ = first.Body.Close()
			})
		})
	}
}

// Transport case 35: any number of hosts costs bounded memory, and one that is down stays known under churn.
func TestManyHosts(t *testing.T) {
	stack := standard.Build(standard.Config{Breaker: breaker.Config{Consecutive: 1, Spread: -1, OpenFor: time.Hour, MaxOpenFor: time.Hour}})
	base := roundTripper(func(r *http.Request) (*http.Response, error) {
		code := 200
		if r.URL.Host == "down" {
			code = 500
		}
		return &http.Response{StatusCode: code, Body: http.NoBody, Header: http.Header{}}, nil
	})
	client := &http.Client{Transport: httpclient.New(base, stack.Pipeline())}
	before := runtime.NumGoroutine()
	get := func(host string) {
		resp, err := client.Post("http://"+host+"/", "", nil)
		if err == nil {
			_ = resp.Body.Close()
		}
	}
	hosts := 100_000
	if underRace {
		hosts = 10_000
	}
	get("down")
	for i := range hosts {
		get(fmt.Sprintf("host%d", i))
	}
	if got := stack.Breakers.Stats().Keys; got > 1024 {
		t.Errorf("breakers: got %d, want at most 1024", got)
	}
	b, ok := stack.Breakers.Lookup("http://down:80")
	if !ok || b.State() != breaker.Open {
		t.Errorf("the breaker of the host that is down: got %v, want it open", ok)
	}
	if got := runtime.NumGoroutine(); got > before+2 {
		t.Errorf("goroutines: got %d, want about %d", got, before)
	}
}

// One million hosts leave the heap flat.
func TestHeapOverManyHosts(t *testing.T) {
	if testing.Short() || underRace {
		t.Skip("a million requests; skipped by -short and under the race detector")
	}
	base := roundTripper(func(*http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: 200, Body: http.NoBody, Header: http.Header{}}, nil
	})
	rt := httpclient.New(base)
	heap := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	const total = 1_000_000
	var early int64
	for i := range total {
		req := &http.Request{Method: "GET", Header: http.Header{}}
		req.URL = mustURL(fmt.Sprintf("http://h%x.example.com/", uint64(i)*0x9e3779b97f4a7c15))
		resp, err := rt.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if i == total/5 {
			early = heap()
		}
	}
	if late := heap(); late > early+max(early/20, 2<<20) {
		t.Errorf("heap: %d bytes at 20%% of the run, %d at its end; want at most 5%% or 2 MiB more", early, late)
	}
	runtime.KeepAlive(rt)
}

// Transport case 36: one host, one key.
func TestOrigin(t *testing.T) {
	for in, want := range map[string]string{
		"http://example.com":               "http://example.com:80",
		"HTTP://EXAMPLE.com:80/a?b":        "http://example.com:80",
		"http://example.com:/":             "http://example.com:80",
		"https://user:pw@Example.com/path": "https://example.com:443",
		"https://example.com:8443":         "https://example.com:8443",
		"http://[::1]/":                    "http://[::1]:80",
		"http://[::1]:8080/":               "http://[::1]:8080",
	} {
		if got := httpclient.Origin(mustURL(in)); got != want {
			t.Errorf("Origin(%q): got %q, want %q", in, got, want)
		}
	}
	inWorld(t, statuses(), func(t *testing.T, w *world) {
		stack := standard.Build(standard.Config{})
		c := w.client(stack.Pipeline())
		for _, u := range []string{"HTTP://EXAMPLE.com:80/a", "http://example.com/b"} {
			req, _ := http.NewRequest("GET", u, nil)
			req.Host = "override"
			resp, err := c.Do(req)
			read(t, resp, err)
		}
		if got := stack.Breakers.Stats().Keys; got != 1 {
			t.Errorf("keys: got %d, want 1", got)
		}
	})
}

// Transport case 37: a hedged GET, over HTTP/1.1 and HTTP/2: the winner's body is whole although the loser was cancelled.
func TestHedge(t *testing.T) {
	want := strings.Repeat("x", 1<<20)
	for _, proto := range []string{"HTTP/1.1", "HTTP/2.0"} {
		t.Run(proto, func(t *testing.T) {
			var mu sync.Mutex
			hits := 0
			slow := make(chan struct{})
			srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				mu.Lock()
				hits++
				first := hits == 1
				mu.Unlock()
				if first {
					<-r.Context().Done() // never answers; ends when the loser is cancelled
					close(slow)
					return
				}
				_, _ = io.WriteString(w, want)
			}))
			srv.EnableHTTP2 = proto == "HTTP/2.0"
			srv.StartTLS()
			base := srv.Client().Transport.(*http.Transport)
			client := &http.Client{Transport: httpclient.New(base, hedge.New(hedge.Config{Delay: 50 * time.Millisecond}), timeout.New(time.Minute))}
			resp, err := client.Get(srv.URL)
			if err != nil {
				t.Fatal(err)
			}
			<-slow // the loser has been cancelled before the winner's body is read
			if resp.Proto != proto {
				t.Errorf("protocol: got %s, want %s", resp.Proto, proto)
			}
			if _, got := read(t, resp, nil); got != want {
				t.Errorf("body: got %d bytes, want %d", len(got), len(want))
			}
			base.CloseIdleConnections()
			srv.Close()
		})
	}
}

// Transport case 39: a POST is not hedged, and hedges draw on the budget.
func TestPostIsNotHedged(t *testing.T) {
	inWorld(t, func(w http.ResponseWriter, r *http.Request, _ int) { time.Sleep(time.Second) }, func(t *testing.T, w *world) {
		resp, err := w.client(hedge.New(hedge.Config{Delay: 50 * time.Millisecond})).Post("http://example.com/", "", strings.NewReader("x"))
		read(t, resp, err)
		w.wantHits(1)
	})
}

// Transport case 40: redirects to another host carry neither the signature nor the key.
func TestCrossOriginRedirect(t *testing.T) {
	type seen struct{ host, signature, key string }
	var got []seen
	inWorld(t, func(w http.ResponseWriter, r *http.Request, hit int) {
		got = append(got, seen{r.Host, r.Header.Get("X-Signature"), r.Header.Get("Idempotency-Key")})
		switch hit {
		case 1:
			http.Redirect(w, r, "http://a.test/next", http.StatusTemporaryRedirect)
		case 2:
			http.Redirect(w, r, "http://b.test/", http.StatusTemporaryRedirect)
		}
	}, func(t *testing.T, w *world) {
		c := w.client(fast(1), httpclient.IdempotencyKeys(), httpclient.OnAttempt(func(a *httpclient.Attempt) error {
			a.Request.Header.Set("X-Signature", "s")
			return nil
		}))
		resp, err := c.Post("http://a.test/", "", strings.NewReader("x"))
		read(t, resp, err)
	})
	if len(got) != 3 {
		t.Fatalf("requests: got %+v, want three", got)
	}
	if got[0].key == "" || got[1] != got[0] {
		t.Errorf("within the origin: got %+v and %+v, want the same signature and key", got[0], got[1])
	}
	if got[2] != (seen{host: "b.test"}) {
		t.Errorf("at the other host: got %+v, want neither", got[2])
	}
}

// Transport case 41: one of ours inside another of ours does not multiply, and Lint says so.
func TestNestedTransports(t *testing.T) {
	inWorld(t, statuses(slices.Repeat([]int{503}, 20)...), func(t *testing.T, w *world) {
		inner := httpclient.New(w.base, fast(3))
		outer := httpclient.New(inner, fast(3))
		resp, err := (&http.Client{Transport: outer}).Get("http://example.com/")
		read(t, resp, err)
		w.wantHits(3)
		if found := fmt.Sprint(outer.Lint()); !strings.Contains(found, "nested-transport") {
			t.Errorf("Lint: got %v, want nested-transport", found)
		}
	})
}

// Transport case 42: the default budget bounds what a storm of failing calls adds, and every caller gets its answer.
func TestDefaultBudget(t *testing.T) {
	inWorld(t, func(w http.ResponseWriter, _ *http.Request, _ int) {
		time.Sleep(10 * time.Millisecond)
		w.WriteHeader(503)
	}, func(t *testing.T, w *world) {
		c := w.client()
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				resp, err := c.Get("http://example.com/")
				if err != nil || resp.StatusCode != 503 {
					t.Errorf("got %v, %v, want the server's 503", resp, err)
					return
				}
				_ = resp.Body.Close()
			})
		}
		wg.Wait()
		if got := w.hits.Load(); got < 100 || got > 112 {
			t.Errorf("requests for 100 failing calls: got %d, want 100 to 112", got)
		}
	})
}

// A fallback's response reaches the caller.
func TestFallbackResponse(t *testing.T) {
	inWorld(t, statuses(503), func(t *testing.T, w *world) {
		cached := backstay.PolicyFunc(func(next backstay.Handler) backstay.Handler {
			return func(ctx context.Context, call *backstay.Call) backstay.Outcome {
				out := next(ctx, call)
				if out.Class != backstay.Failure {
					return out
				}
				out.Release()
				return backstay.Outcome{Value: &http.Response{StatusCode: 299, Body: io.NopCloser(strings.NewReader("cached"))}}
			}
		})
		c := w.client(cached, fast(1))
		resp, err := c.Get("http://example.com/")
		if code, body := read(t, resp, err); code != 299 || body != "cached" {
			t.Errorf("got %d %q, want the fallback's", code, body)
		}
	})
}

// One breaker value serves functions and HTTP.
func TestSharedBreaker(t *testing.T) {
	inWorld(t, statuses(503), func(t *testing.T, w *world) {
		b := breaker.New(breaker.Config{Consecutive: 1, Spread: -1, OpenFor: time.Minute, MaxOpenFor: time.Minute})
		resp, err := w.client(b).Get("http://example.com/")
		read(t, resp, err)
		if err := backstay.Run(context.Background(), backstay.Chain(b), func(context.Context) error { return nil }); !errors.Is(err, breaker.ErrOpen) {
			t.Errorf("a function through the breaker that HTTP opened: got %v, want breaker.ErrOpen", err)
		}
	})
}

// Nothing is left behind after responses were dropped, hedged, timed out and closed.
func TestNoGoroutineLeft(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(503); _, _ = io.WriteString(w, "x") }))
	base := &http.Transport{TLSClientConfig: &tls.Config{}}
	client := &http.Client{Transport: httpclient.New(base, timeout.New(time.Minute), retry.New(retry.Config{Attempts: 3, Delay: -1}), timeout.New(time.Second))}
	before := runtime.NumGoroutine()
	for range 30 {
		resp, err := client.Get(srv.URL)
		read(t, resp, err)
	}
	base.CloseIdleConnections()
	srv.Close()
	for deadline := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > before; runtime.Gosched() {
		if time.Now().After(deadline) {
			buf := make([]byte, 1<<16)
			t.Fatalf("goroutines: got %d, want %d\n%s", runtime.NumGoroutine(), before, buf[:runtime.Stack(buf, true)])
		}
	}
}

// New with no policy prints the standard pipeline, in its order.
func TestString(t *testing.T) {
	got := httpclient.New(nil).String()
	last := -1
	for _, stage := range []string{`timeout "total" (30s)`, "retry", "adaptive", "breaker", `timeout "attempt" (10s)`, "call"} {
		i := strings.Index(got, stage)
		if i <= last {
			t.Errorf("%q is missing or out of order in\n%s", stage, got)
		}
		last = i
	}
	if found := httpclient.New(nil).Lint(); found != nil {
		t.Errorf("Lint of the default: got %v, want nothing", found)
	}
}

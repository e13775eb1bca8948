package httpclient_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/breaker"
	"github.com/backstay-go/backstay/bulkhead"
	"github.com/backstay-go/backstay/httpclient"
	"github.com/backstay-go/backstay/retry"
	"github.com/backstay-go/backstay/standard"
	"github.com/backstay-go/backstay/timeout"
)

// Transport case 1: dropped responses are drained, so that their connection serves again.
func TestOneConnection(t *testing.T) {
	body := strings.Repeat("x", 2000)
	inWorld(t, func(w http.ResponseWriter, r *http.Request, hit int) {
		if hit%3 != 0 {
			w.WriteHeader(503)
		}
		_, _ = io.WriteString(w, body)
	}, func(t *testing.T, w *world) {
		c := w.client(fast(3))
		for range 10 {
			resp, err := c.Get("http://example.com/")
			if code, got := read(t, resp, err); code != 200 || got != body {
				t.Errorf("got status %d and %d bytes, want 200 and %d", code, len(got), len(body))
			}
		}
		w.wantHits(30)
		if got := w.listener.Dialed(); got != 1 {
			t.Errorf("connections: got %d, want 1", got)
		}
	})
}

// Transport case 2: draining is bounded in bytes and in time.
func TestDrainIsBounded(t *testing.T) {
	for name, endless := range map[string]func(w http.ResponseWriter, r *http.Request){
		"stalls": func(w http.ResponseWriter, r *http.Request) {
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		},
		"never ends": func(w http.ResponseWriter, r *http.Request) {
			for chunk := make([]byte, 4096); ; {
				if _, err := w.Write(chunk); err != nil {
					return
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w http.ResponseWriter, r *http.Request, hit int) {
				if hit == 1 {
					w.WriteHeader(503)
					endless(w, r)
				}
			}, func(t *testing.T, w *world) {
				start := time.Now()
				resp, err := w.client(fast(2)).Get("http://example.com/")
				if code, _ := read(t, resp, err); code != 200 {
					t.Errorf("status: got %d, want 200", code)
				}
				if took := time.Since(start); took > 260*time.Millisecond {
					t.Errorf("took %v, want at most the drain's 250ms and the wait's 10ms", took)
				}
			})
		})
	}
}

// Transport cases 3 and 4: bodies are sent again from GetBody, or from what was kept while they were streamed.
func TestBodyIsSentAgain(t *testing.T) {
	small, large := "0123456789", strings.Repeat("y", 64<<10+1)
	cases := []struct {
		name, method string
		body         io.Reader
		key          bool
		hits         int
		status       int
		want         string
	}{
		{"POST with a key and GetBody", "POST", strings.NewReader(small), true, 2, 200, small},
		{"PUT without GetBody, small", "PUT", plain(small), false, 2, 200, small},
		{"PUT without GetBody, of exactly the cap", "PUT", plain(large[:64<<10]), false, 2, 200, large[:64<<10]},
		{"PUT without GetBody, over the cap", "PUT", plain(large), false, 1, 503, large},
		{"PUT with GetBody, over the cap", "PUT", strings.NewReader(large), false, 2, 200, large},
		{"POST without a key", "POST", strings.NewReader(small), false, 1, 503, small},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			var mu sync.Mutex
			var bodies, lengths []string
			inWorld(t, func(w http.ResponseWriter, r *http.Request, hit int) {
				b, err := io.ReadAll(r.Body)
				if err != nil {
					t.Errorf("hit %d: reading the body: %v", hit, err)
				}
				mu.Lock()
				defer mu.Unlock()
				bodies, lengths = append(bodies, string(b)), append(lengths, r.Header.Get("Content-Length"))
				if hit == 1 {
					w.WriteHeader(503)
				}
			}, func(t *testing.T, w *world) {
				ctx := context.Background()
				if c.key {
					ctx = backstay.WithIdempotencyKey(ctx, "k1")
				}
				resp, err := w.client(fast(3), httpclient.TrustKeys()).Do(newRequest(t, ctx, c.method, c.body))
				if code, _ := read(t, resp, err); code != c.status {
					t.Errorf("status: got %d, want %d", code, c.status)
				}
				w.wantHits(c.hits)
				for i, b := range bodies {
					if b != c.want {
						t.Errorf("body of attempt %d: got %d bytes, want the %d sent", i+1, len(b), len(c.want))
					}
					if lengths[i] != lengths[0] {
						t.Errorf("Content-Length of attempt %d: got %q, want %q", i+1, lengths[i], lengths[0])
					}
				}
			})
		})
	}
}

// Transport case 5: nothing is read ahead, whatever the pipeline: a caller may write its body while it reads the response.
func TestStreamingUpload(t *testing.T) {
	for name, parts := range map[string][]backstay.Policy{
		"breaker only": {httpclient.PerHost(breaker.Config{})},
		"timeout only": {timeout.New(time.Minute)},
		"standard":     {standard.New(standard.Config{})},
	} {
		for _, method := range []string{"POST", "PUT"} {
			t.Run(name+" "+method, func(t *testing.T) {
				inWorld(t, func(w http.ResponseWriter, r *http.Request, _ int) {
					_, _ = io.ReadFull(r.Body, make([]byte, 1))
					ctl := http.NewResponseController(w)
					_ = ctl.EnableFullDuplex()
					_ = ctl.Flush()
					_, _ = io.Copy(w, r.Body)
				}, func(t *testing.T, w *world) {
					pr, pw := io.Pipe()
					go func() { _, _ = pw.Write([]byte("a")) }()
					resp, err := w.client(parts...).Do(newRequest(t, context.Background(), method, pr))
					if err != nil {
						t.Fatalf("with the body still open: %v", err)
					}
					_, _ = pw.Write([]byte("b"))
					_ = pw.Close()
					if _, got := read(t, resp, nil); got != "b" {
						t.Errorf("echo: got %q, want %q", got, "b")
					}
				})
			})
		}
	}
}

// Transport case 6: the caller's body is closed and its request unchanged on every way out.
func TestCallersRequest(t *testing.T) {
	open := breaker.New(breaker.Config{Mode: breaker.ForcedOpen})
	full := bulkhead.New(bulkhead.Config{Limit: 1})
	if err := full.Acquire(context.Background()); err != nil {
		t.Fatal(err)
	}
	over, cancel := context.WithCancel(context.Background())
	cancel()
	cases := []struct {
		name    string
		ctx     context.Context
		parts   []backstay.Policy
		getBody func() (io.ReadCloser, error)
		codes   []int
	}{
		{"success", context.Background(), nil, nil, nil},
		{"exhausted", context.Background(), []backstay.Policy{fast(2)}, nil, []int{503, 503}},
		{"breaker open", context.Background(), []backstay.Policy{open}, nil, nil},
		{"bulkhead full", context.Background(), []backstay.Policy{full}, nil, nil},
		{"context over", over, nil, nil, nil},
		{"GetBody fails", context.Background(), []backstay.Policy{fast(2)}, func() (io.ReadCloser, error) { return nil, errBoom }, []int{503}},
		{"hook fails", context.Background(), []backstay.Policy{httpclient.OnAttempt(func(*httpclient.Attempt) error { return errBoom })}, nil, nil},
		{"key fails", backstay.WithOperation(context.Background(), func() (backstay.Operation, error) { return backstay.Operation{}, errBoom }), nil, nil, nil},
	}
	for _, c := range cases {
		for _, method := range []string{"PUT", "POST"} {
			t.Run(c.name+" "+method, func(t *testing.T) {
				inWorld(t, statuses(c.codes...), func(t *testing.T, w *world) {
					body := plain("abc")
					req := newRequest(t, c.ctx, method, body)
					req.GetBody = c.getBody
					req.Header.Set("X-Mine", "1")
					header, url := maps.Clone(req.Header), *req.URL
					resp, err := w.client(append(c.parts, httpclient.AttemptHeader("X-Attempt"))...).Transport.RoundTrip(req)
					if err == nil {
						_, _ = io.Copy(io.Discard, resp.Body)
						_ = resp.Body.Close()
					}
					synctest.Wait()
					if body.closed.Load() == 0 {
						t.Error("the caller's body was not closed")
					}
					if req.Body != io.ReadCloser(body) || *req.URL != url || !maps.EqualFunc(req.Header, header, func(a, b []string) bool { return fmt.Sprint(a) == fmt.Sprint(b) }) {
						t.Errorf("the caller's request was changed: %+v", req)
					}
					if resp != nil && resp.Request != req {
						t.Error("resp.Request is not the caller's request")
					}
				})
			})
		}
	}
}

// Transport case 8: one template request, cloned by many, shares nothing that is written.
func TestTemplateRequest(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Attempt") == "1" {
			w.WriteHeader(503)
		}
		_, _ = io.WriteString(w, r.Header.Get("X-Signed"))
	}))
	defer srv.Close()
	base := &http.Transport{MaxIdleConnsPerHost: 100}
	defer base.CloseIdleConnections()
	client := &http.Client{Transport: httpclient.New(base, fast(3), httpclient.AttemptHeader("X-Attempt"),
		httpclient.OnAttempt(func(a *httpclient.Attempt) error {
			a.Request.Header.Add("X-Signed", a.Request.Header.Get("X-Id"))
			return nil
		}))}
	template, err := http.NewRequest("GET", srv.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() {
			req := template.Clone(context.Background())
			req.Header.Set("X-Id", fmt.Sprint(i))
			resp, err := client.Do(req)
			if err != nil {
				t.Errorf("request %d: %v", i, err)
				return
			}
			defer func() { _ = resp.Body.Close() }()
			if b, _ := io.ReadAll(resp.Body); string(b) != fmt.Sprint(i) {
				t.Errorf("request %d was signed %q", i, b)
			}
		})
	}
	wg.Wait()
}

// Transport case 9: answers without a body.
func TestNoBody(t *testing.T) {
	for _, c := range []struct {
		method string
		code   int
	}{{"HEAD", 200}, {"GET", 204}, {"GET", 304}, {"HEAD", 503}} {
		inWorld(t, func(w http.ResponseWriter, _ *http.Request, _ int) { w.WriteHeader(c.code) }, func(t *testing.T, w *world) {
			resp, err := w.client(standard.New(standard.Config{Retry: retry.Config{Attempts: 2}})).Do(newRequest(t, context.Background(), c.method, nil))
			if code, _ := read(t, resp, err); code != c.code {
				t.Errorf("%s: got %d, want %d", c.method, code, c.code)
			}
		})
	}
}

// Transport case 10: trailers arrive on the response that the caller holds.
func TestTrailer(t *testing.T) {
	inWorld(t, func(w http.ResponseWriter, _ *http.Request, _ int) {
		w.Header().Set("Trailer", "X-Sum")
		_, _ = io.WriteString(w, "body")
		w.Header().Set("X-Sum", "42")
	}, func(t *testing.T, w *world) {
		resp, err := w.client().Get("http://example.com/")
		if _, body := read(t, resp, err); body != "body" {
			t.Errorf("body: got %q", body)
		}
		if got := resp.Trailer.Get("X-Sum"); got != "42" {
			t.Errorf("trailer: got %q, want 42", got)
		}
	})
}

// Transport case 12: a body that breaks off is the caller's to see, unless it is buffered; then the attempt has failed.
func TestTruncatedBody(t *testing.T) {
	truncated := func(w http.ResponseWriter, _ *http.Request, hit int) {
		if hit > 1 {
			_, _ = io.WriteString(w, "whole")
			return
		}
		w.Header().Set("Content-Length", "100")
		_, _ = io.WriteString(w, "abc")
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
	inWorld(t, truncated, func(t *testing.T, w *world) {
		resp, err := w.client(fast(3)).Get("http://example.com/")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(resp.Body); err != io.ErrUnexpectedEOF {
			t.Errorf("reading: got %v, want %v", err, io.ErrUnexpectedEOF)
		}
		_ = resp.Body.Close()
		w.wantHits(1)
	})
	inWorld(t, truncated, func(t *testing.T, w *world) {
		resp, err := w.client(fast(3), httpclient.BufferResponse(4<<10)).Get("http://example.com/")
		if _, body := read(t, resp, err); body != "whole" {
			t.Errorf("body: got %q, want that of the second attempt", body)
		}
		w.wantHits(2)
	})
}

// A body longer than the buffer comes whole.
func TestBufferedLargeBody(t *testing.T) {
	want := strings.Repeat("0123456789", 1000)
	inWorld(t, func(w http.ResponseWriter, _ *http.Request, _ int) { _, _ = io.WriteString(w, want) }, func(t *testing.T, w *world) {
		resp, err := w.client(httpclient.BufferResponse(100)).Get("http://example.com/")
		if _, got := read(t, resp, err); got != want {
			t.Errorf("body: got %d bytes, want %d", len(got), len(want))
		}
	})
}

// Transport case 13: closing idle connections passes through every layer, and a host that fails does not cost another its connections.
func TestIdleConnections(t *testing.T) {
	inWorld(t, func(w http.ResponseWriter, r *http.Request, _ int) {
		if r.Host == "bad" {
			w.WriteHeader(503)
		}
	}, func(t *testing.T, w *world) {
		c := w.client(fast(3))
		get := func(url string) {
			resp, err := c.Get(url)
			read(t, resp, err)
		}
		get("http://good/")
		for range 5 {
			get("http://bad/")
			get("http://good/")
		}
		if got := w.listener.Dialed(); got != 2 {
			t.Errorf("connections to two hosts: got %d, want 2", got)
		}
		c.CloseIdleConnections()
		get("http://good/")
		if got := w.listener.Dialed(); got != 3 {
			t.Errorf("connections after CloseIdleConnections: got %d, want 3", got)
		}
	})
}

// Transport case 14: an upgraded connection is the caller's, with no timer on it, and its permit comes back on Close.
func TestUpgrade(t *testing.T) {
	hall := bulkhead.New(bulkhead.Config{Limit: 1})
	inWorld(t, func(w http.ResponseWriter, r *http.Request, _ int) {
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		_ = rw.Flush()
		go func() { _, _ = io.Copy(conn, rw); _ = conn.Close() }()
	}, func(t *testing.T, w *world) {
		req := newRequest(t, context.Background(), "GET", nil)
		req.Header.Set("Connection", "Upgrade")
		req.Header.Set("Upgrade", "echo")
		resp, err := w.client(timeout.New(time.Minute), fast(3), hall, httpclient.PerHost(breaker.Config{}), timeout.New(time.Second)).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		conn, ok := resp.Body.(io.ReadWriteCloser)
		if !ok {
			t.Fatalf("the body is a %T, which cannot be written", resp.Body)
		}
		for range 3 {
			time.Sleep(time.Hour)
			if _, err := conn.Write([]byte("ping")); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, 4)
			if _, err := io.ReadFull(conn, got); err != nil || string(got) != "ping" {
				t.Fatalf("echo: got %q and %v", got, err)
			}
		}
		if got := hall.Snapshot().InUse; got != 1 {
			t.Errorf("permits while the connection is open: got %d, want 1", got)
		}
		_ = conn.Close()
		if got := hall.Snapshot().InUse; got != 0 {
			t.Errorf("permits after Close: got %d, want 0", got)
		}
	})
}

// A 1 GiB upload that is streamed leaves the heap flat.
func TestLargeUploadIsNotKept(t *testing.T) {
	if testing.Short() || underRace {
		t.Skip("1 GiB through a socket; skipped by -short and under the race detector")
	}
	const size = 1 << 30
	var got int64
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got, _ = io.Copy(io.Discard, r.Body)
	}))
	defer srv.Close()
	base := &http.Transport{}
	defer base.CloseIdleConnections()
	// A busy machine may take longer than the default timeouts.
	client := &http.Client{Transport: httpclient.New(base, standard.New(standard.Config{Total: -1, Attempt: -1}))}
	var before, most runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	chunk := make([]byte, 1<<20)
	sent := 0
	src := readerFunc(func(p []byte) (int, error) {
		if sent >= size {
			return 0, io.EOF
		}
		if sent == size/2 {
			runtime.GC()
			runtime.ReadMemStats(&most)
		}
		n := copy(p, chunk)
		n = min(n, size/2-sent%(size/2))
		sent += n
		return n, nil
	})
	req, err := http.NewRequest("PUT", srv.URL, src)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(req)
	read(t, resp, err)
	if got != size {
		t.Errorf("the server got %d bytes, want %d", got, size)
	}
	if grown := int64(most.HeapAlloc) - int64(before.HeapAlloc); grown > 2<<20 {
		t.Errorf("heap in the middle of the upload: %d bytes more than before, want at most 2 MiB", grown)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// A record read by attempts that overlap gives each the whole body.
func TestOverlappingAttempts(t *testing.T) {
	want := strings.Repeat("abc", 1000)
	var bodies [2]bytes.Buffer
	hit := make(chan int, 2)
	n := 0
	base := roundTripper(func(r *http.Request) (*http.Response, error) {
		n++
		i := n - 1
		half := make([]byte, 1500)
		_, _ = io.ReadFull(r.Body, half)
		bodies[i].Write(half)
		go func() { // the transport goes on to read after it has answered
			_, _ = io.Copy(&bodies[i], r.Body)
			_ = r.Body.Close()
			hit <- i
		}()
		code := 200
		if i == 0 {
			code = 503
		}
		return &http.Response{StatusCode: code, Body: http.NoBody, Header: http.Header{}}, nil
	})
	client := &http.Client{Transport: httpclient.New(base, retry.New(retry.Config{Attempts: 2, Delay: -1}))}
	req, _ := http.NewRequest("PUT", "http://example.com/", plain(want))
	resp, err := client.Do(req)
	if code, _ := read(t, resp, err); code != 200 {
		t.Errorf("status: got %d", code)
	}
	<-hit
	<-hit
	for i := range bodies {
		if got := bodies[i].String(); got != want {
			t.Errorf("attempt %d got %d bytes, want %d", i+1, len(got), len(want))
		}
	}
}

package httpclient_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/breaker"
	"github.com/backstay-go/backstay/httpclient"
	"github.com/backstay-go/backstay/retry"
	"github.com/backstay-go/backstay/timeout"
)

// Transport case 16: a timed-out attempt is repeated, and the caller's context lives on.
func TestAttemptTimeoutIsRepeated(t *testing.T) {
	inWorld(t, func(w http.ResponseWriter, r *http.Request, hit int) {
		if hit == 1 {
			select {
			case <-time.After(time.Second):
			case <-r.Context().Done():
			}
		}
	}, func(t *testing.T, w *world) {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		resp, err := w.client(fast(3), timeout.New(100*time.Millisecond)).Do(newRequest(t, ctx, "GET", nil))
		if code, _ := read(t, resp, err); code != 200 {
			t.Errorf("status: got %d, want 200", code)
		}
		w.wantHits(2)
		if ctx.Err() != nil {
			t.Errorf("the caller's context: got %v, want nil", ctx.Err())
		}
	})
}

// trickle answers with headers at once and a byte each pause.
func trickle(n int, pause time.Duration) func(http.ResponseWriter, *http.Request, int) {
	return func(w http.ResponseWriter, r *http.Request, _ int) {
		w.Header().Set("Content-Length", fmt.Sprint(n))
		ctl := http.NewResponseController(w)
		_ = ctl.Flush()
		for range n {
			select {
			case <-time.After(pause):
			case <-r.Context().Done():
				return
			}
			_, _ = w.Write([]byte("x"))
			_ = ctl.Flush()
		}
	}
}

// Transport case 17: no timer of ours cuts a body that comes.
func TestSlowBodyIsNotCut(t *testing.T) {
	inWorld(t, trickle(20, 50*time.Millisecond), func(t *testing.T, w *world) {
		resp, err := w.client(timeout.New(200*time.Millisecond), fast(3), timeout.New(100*time.Millisecond), httpclient.ProgressTimeout(200*time.Millisecond)).Get("http://example.com/")
		if _, body := read(t, resp, err); len(body) != 20 {
			t.Errorf("body: got %d bytes, want 20", len(body))
		}
	})
}

// A caller that is slow to read is not a server that is slow to send.
func TestSlowReaderIsNotCut(t *testing.T) {
	inWorld(t, func(w http.ResponseWriter, _ *http.Request, _ int) {
		_, _ = io.WriteString(w, strings.Repeat("x", 100_000))
	}, func(t *testing.T, w *world) {
		resp, err := w.client(httpclient.ProgressTimeout(time.Second)).Get("http://example.com/")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		n, buf := 0, make([]byte, 10_000)
		for err == nil {
			time.Sleep(time.Minute)
			var m int
			m, err = resp.Body.Read(buf)
			n += m
		}
		if err != io.EOF || n != 100_000 {
			t.Errorf("got %d bytes and %v, want 100000 and EOF", n, err)
		}
	})
}

// Transport case 18: a body that stalls fails the Read in time, as a timeout, and the breaker hears of it.
func TestStalledBody(t *testing.T) {
	inWorld(t, func(w http.ResponseWriter, r *http.Request, _ int) {
		w.Header().Set("Content-Length", "100")
		_, _ = io.WriteString(w, "abc")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}, func(t *testing.T, w *world) {
		b := breaker.New(breaker.Config{Consecutive: 1, Spread: -1})
		resp, err := w.client(fast(3), b, timeout.New(time.Second), httpclient.ProgressTimeout(100*time.Millisecond)).Get("http://example.com/")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		start := time.Now()
		_, err = io.ReadAll(resp.Body)
		if took := time.Since(start); took > 150*time.Millisecond {
			t.Errorf("the Read failed after %v, want at most 150ms", took)
		}
		var timely interface{ Timeout() bool }
		if !errors.Is(err, timeout.ErrExceeded) || !errors.Is(err, context.DeadlineExceeded) || !errors.As(err, &timely) || !timely.Timeout() {
			t.Errorf("error: got %v, want one that is timeout.ErrExceeded and context.DeadlineExceeded, with Timeout() true", err)
		}
		if _, ok := err.(interface{ Timeout() bool }); !ok {
			t.Errorf("%T has no Timeout method of its own", err)
		}
		if got := b.State(); got != breaker.Open {
			t.Errorf("the breaker after one stalled body, with a limit of one failure: got %v, want open", got)
		}
		w.wantHits(1)
	})
}

// Transport case 13 of fusion-demo, opencrabs: an event stream has no timer.
func TestEventStream(t *testing.T) {
	inWorld(t, func(w http.ResponseWriter, _ *http.Request, _ int) {
		w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
		ctl := http.NewResponseController(w)
		for range 3 {
			_, _ = io.WriteString(w, "data: x\n\n")
			_ = ctl.Flush()
			time.Sleep(time.Hour)
		}
	}, func(t *testing.T, w *world) {
		resp, err := w.client().Get("http://example.com/")
		if _, body := read(t, resp, err); strings.Count(body, "data") != 3 {
			t.Errorf("got %q, want three events", body)
		}
	})
}

// Transport case 21: a wait that does not fit is not begun, and the last answer comes back at once.
func TestWaitThatDoesNotFit(t *testing.T) {
	inWorld(t, statuses(503, 503), func(t *testing.T, w *world) {
		ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
		defer cancel()
		start := time.Now()
		resp, err := w.client(retry.New(retry.Config{Delay: time.Second, Jitter: retry.None})).Do(newRequest(t, ctx, "GET", nil))
		if code, body := read(t, resp, err); code != 503 || body != "hit 1" {
			t.Errorf("got %d %q, want the first answer", code, body)
		}
		if took := time.Since(start); took > 50*time.Millisecond {
			t.Errorf("took %v, want less than 50ms", took)
		}
	})
}

// Transport case 22: a cancelled wait ends at once, and its error tells both why and what had been answered.
func TestCancelledWait(t *testing.T) {
	inWorld(t, statuses(503, 503), func(t *testing.T, w *world) {
		mine := errors.New("user went away")
		ctx, cancel := context.WithCancelCause(context.Background())
		start := time.Now()
		time.AfterFunc(100*time.Millisecond, func() { cancel(mine) })
		_, err := w.client(retry.New(retry.Config{Delay: time.Second, Jitter: retry.None})).Do(newRequest(t, ctx, "GET", nil))
		if took := time.Since(start); took > 110*time.Millisecond {
			t.Errorf("took %v, want at most 110ms", took)
		}
		var status *httpclient.StatusError
		if !errors.Is(err, mine) || !errors.Is(err, context.Canceled) || !errors.As(err, &status) || status.Code != 503 {
			t.Errorf("error: got %v, want one with the cause, context.Canceled and the 503", err)
		}
	})
}

// Transport case 24: http.Client's own timeout keeps its words.
func TestClientTimeoutDuringWait(t *testing.T) {
	inWorld(t, func(w http.ResponseWriter, r *http.Request, _ int) { <-r.Context().Done() }, func(t *testing.T, w *world) {
		c := w.client(fast(3))
		c.Timeout = 50 * time.Millisecond
		_, err := c.Get("http://example.com/")
		if err == nil || !strings.Contains(err.Error(), "(Client.Timeout exceeded while awaiting headers)") || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want http.Client's timeout", err)
		}
	})
}

// A caller's cancellation is returned as such, also with a cause of its own, and no breaker counts it.
func TestCallersCancel(t *testing.T) {
	inWorld(t, func(w http.ResponseWriter, r *http.Request, _ int) { <-r.Context().Done() }, func(t *testing.T, w *world) {
		b := breaker.New(breaker.Config{Consecutive: 1, Spread: -1})
		mine := errors.New("user went away")
		ctx, cancel := context.WithCancelCause(context.Background())
		time.AfterFunc(time.Second, func() { cancel(mine) })
		_, err := w.client(timeout.New(time.Minute), fast(3), b, timeout.New(10*time.Second)).Do(newRequest(t, ctx, "GET", nil))
		if !errors.Is(err, mine) || !errors.Is(err, context.Canceled) {
			t.Errorf("error: got %v, want one with the cause and context.Canceled", err)
		}
		if errors.Is(err, timeout.ErrExceeded) {
			t.Errorf("error: %v claims to be a timeout of ours", err)
		}
		if got := b.State(); got != breaker.Closed {
			t.Errorf("breaker: got %v, want closed", got)
		}
		w.wantHits(1)
	})
}

// The total timeout ends the call, and is told from the attempt's.
func TestTotalTimeout(t *testing.T) {
	inWorld(t, func(w http.ResponseWriter, r *http.Request, _ int) { <-r.Context().Done() }, func(t *testing.T, w *world) {
		start := time.Now()
		total := timeout.NewWith(timeout.Config{Name: "total", Limit: 250 * time.Millisecond})
		_, err := w.client(total, fast(5), timeout.NewWith(timeout.Config{Name: "attempt", Limit: 100 * time.Millisecond})).Get("http://example.com/")
		if took := time.Since(start); took != 250*time.Millisecond {
			t.Errorf("took %v, want 250ms", took)
		}
		var e *timeout.Error
		if !errors.As(err, &e) || e.Name != "total" {
			t.Errorf("got %v, want the total timeout", err)
		}
	})
}

// The deadline and the attempt are told to servers that want them.
func TestHeaders(t *testing.T) {
	var got []string
	inWorld(t, func(w http.ResponseWriter, r *http.Request, hit int) {
		got = append(got, r.Header.Get("X-Attempt")+"/"+r.Header.Get("X-Left"))
		if hit == 1 {
			w.WriteHeader(503)
		}
	}, func(t *testing.T, w *world) {
		resp, err := w.client(fast(2), timeout.New(time.Second), httpclient.AttemptHeader("X-Attempt"), httpclient.DeadlineHeader("X-Left")).Get("http://example.com/")
		read(t, resp, err)
		if want := "[1/1000 2/1000]"; fmt.Sprint(got) != want {
			t.Errorf("headers: got %v, want %v", got, want)
		}
	})
}

var _ = backstay.No

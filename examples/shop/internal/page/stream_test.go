package page_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backstay-go/backstay/examples/shop/internal/page"
	"github.com/backstay-go/backstay/internal/pipenet"
)

func zipped(t *testing.T, text string) int {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Len()
}

// message is a server-sent event, or a comment.
type message struct {
	at          time.Time
	event, data string
	comment     bool
}

// host serves a page within a bubble.
type host struct {
	t         *testing.T
	client    *http.Client
	snapshots atomic.Int64
}

func newHost(t *testing.T, config page.Config) *host {
	h := &host{t: t}
	snapshot := config.Snapshot
	config.Snapshot = func() page.Snapshot { h.snapshots.Add(1); return snapshot() }
	listener := pipenet.Listen()
	server := &http.Server{Handler: page.New(config)}
	go func() { _ = server.Serve(listener) }()
	transport := &http.Transport{DialContext: listener.DialContext}
	h.client = &http.Client{Transport: transport}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		_ = server.Close()
		synctest.Wait()
	})
	return h
}

// open opens a stream.
func (h *host) open(ctx context.Context) *http.Response {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://localhost/live", nil)
	if err != nil {
		h.t.Fatal(err)
	}
	res, err := h.client.Do(r)
	if err != nil {
		h.t.Fatal(err)
	}
	return res
}

// watch reads a stream until its end.
func (h *host) watch(ctx context.Context) <-chan message {
	res := h.open(ctx)
	got := make(chan message, 1000)
	go func() {
		defer close(got)
		defer res.Body.Close()
		read(res.Body, got)
	}()
	return got
}

func read(body io.Reader, got chan<- message) {
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, 4<<20)
	var m message
	for lines.Scan() {
		field, value, _ := strings.Cut(lines.Text(), ": ")
		switch field {
		case "event":
			m.event = value
		case "data":
			m.data = value
		case "":
			if strings.HasPrefix(lines.Text(), ":") {
				m.comment = true
			} else if m != (message{}) {
				m.at = time.Now()
				got <- m
				m = message{}
			}
		}
	}
}

func all(got <-chan message) []message {
	var list []message
	for m := range got {
		list = append(list, m)
	}
	return list
}

// TestStream holds that viewers share one snapshot, twice a second, and get the whole page first, then what changed.
func TestStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(time.Now(), 1)
		h := newHost(t, page.Config{Actions: f, Snapshot: func() page.Snapshot { f.advance(time.Now()); return f.Snapshot() }})
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second+100*time.Millisecond)
		defer cancel()
		var viewers []<-chan message
		for range 20 {
			viewers = append(viewers, h.watch(ctx))
		}
		for i, viewer := range viewers {
			list := all(viewer)
			if len(list) < 10 || len(list) > 22 {
				t.Errorf("viewer %d: got %d updates in 10 s, want 10 (the shop changes each second) to 22 (two a second)", i, len(list))
			}
			whole, part := len(list[0].data), len(list[1].data)
			if list[0].event != "parts" || !strings.Contains(list[0].data, `"faults"`) || part >= whole {
				t.Errorf("viewer %d: got %s of %d bytes, then %d, want the whole page first", i, list[0].event, whole, part)
			}
			var update struct{ Parts map[string]string }
			if err := json.Unmarshal([]byte(list[1].data), &update); err != nil || update.Parts["faults"] != "" {
				t.Errorf("viewer %d: got %v with %q, want only what changed", i, err, update.Parts["faults"])
			}
		}
		if n := h.snapshots.Load(); n > 22 {
			t.Errorf("got %d snapshots for 20 viewers in 10 s, want at most 22", n)
		}
	})
}

// TestStreamIsCapped holds that no more than so many streams are open, and that one that ends makes room.
func TestStreamIsCapped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(time.Now(), 1)
		h := newHost(t, page.Config{Actions: f, Snapshot: f.Snapshot, Viewers: 1})
		ctx, cancel := context.WithCancel(context.Background())
		first := h.watch(ctx)
		res := h.open(context.Background())
		if res.StatusCode != http.StatusServiceUnavailable || res.Header.Get("Retry-After") == "" {
			t.Errorf("second viewer: got %d, Retry-After %q, want 503 with one", res.StatusCode, res.Header.Get("Retry-After"))
		}
		_ = res.Body.Close()
		cancel()
		all(first)
		synctest.Wait()
		res = h.open(t.Context())
		if res.StatusCode != http.StatusOK {
			t.Errorf("after the first left: got %d, want 200", res.StatusCode)
		}
		_ = res.Body.Close()
	})
}

// TestStreamBeats holds that a stream with nothing to say shows that it lives.
func TestStreamBeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(time.Now(), 1)
		h := newHost(t, page.Config{Actions: f, Snapshot: f.Snapshot}) // does not advance
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		list := all(h.watch(ctx))
		if len(list) < 4 || len(list) > 5 {
			t.Fatalf("got %d messages in a minute, want the page and 3 or 4 comments", len(list))
		}
		for i, m := range list[1:] {
			if gap := m.at.Sub(list[i].at); !m.comment || gap > 16*time.Second {
				t.Errorf("message %d: got comment %t after %s, want a comment within 16s", i+1, m.comment, gap)
			}
		}
	})
}

// TestStreamGap holds that a viewer that was late is told so and gets the whole page; nobody waits for it.
func TestStreamGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(time.Now(), 1)
		h := newHost(t, page.Config{Actions: f, Snapshot: func() page.Snapshot { f.advance(time.Now()); return f.Snapshot() }})
		ctx, cancel := context.WithTimeout(context.Background(), 8*time.Second)
		defer cancel()
		steady := h.watch(ctx)
		late := h.open(ctx)
		time.Sleep(3 * time.Second) // does not read; the pipe holds nothing
		got := make(chan message, 1000)
		go func() { defer close(got); defer late.Body.Close(); read(late.Body, got) }()
		list := all(got)
		gap := -1
		for i, m := range list {
			if m.event == "gap" {
				gap = i
			}
		}
		if gap < 0 || gap+1 == len(list) || !strings.Contains(list[gap+1].data, `"faults"`) {
			t.Errorf("got a gap at %d of %d messages, want one followed by the whole page", gap, len(list))
		}
		if n := len(all(steady)); n < 8 {
			t.Errorf("the other viewer got %d updates in 8 s, want one for each second at least", n)
		}
	})
}

// TestStreamDrops holds that a viewer that does not read at all loses its place.
func TestStreamDrops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(time.Now(), 1)
		h := newHost(t, page.Config{Actions: f, Snapshot: f.Snapshot, Viewers: 1})
		stuck := h.open(t.Context())
		defer stuck.Body.Close()
		time.Sleep(6 * time.Second)
		res := h.open(t.Context())
		defer res.Body.Close()
		if res.StatusCode != http.StatusOK {
			t.Errorf("got %d 6 s after the viewer with the only place stopped reading, want 200", res.StatusCode)
		}
	})
}

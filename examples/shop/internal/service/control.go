package service

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strconv"
	"time"

	"github.com/backstay-go/backstay/examples/shop/internal/fault"
	"github.com/backstay-go/backstay/examples/shop/internal/link"
)

// Report is how a service stands.
type Report struct {
	PID    int            `json:"pid"`
	Faults fault.Set      `json:"faults"`
	Links  []link.Reading `json:"links"`
	Notes  []Note         `json:"notes"`
}

// Memory is what a process holds after a garbage collection.
type Memory struct {
	PID        int    `json:"pid"`
	Heap       uint64 `json:"heap"` // bytes
	Goroutines int    `json:"goroutines"`
}

func (h *Host) routes() {
	h.Control.HandleFunc("GET /report", func(w http.ResponseWriter, r *http.Request) {
		after, _ := strconv.Atoi(r.FormValue("after"))
		report := Report{PID: pid, Faults: h.Faults.Get(), Notes: h.Feed.After(after)}
		for _, l := range h.links {
			report.Links = append(report.Links, l.Read())
		}
		Answer(w, report, nil)
	})
	h.Control.HandleFunc("GET /memory", func(w http.ResponseWriter, _ *http.Request) { Answer(w, ReadMemory(), nil) })
	Take(h.Control, "PUT /faults", func(_ context.Context, s fault.Set) error {
		h.Faults.Set(s)
		return nil
	})
	Take(h.Control, "PUT /protection", func(_ context.Context, on bool) error {
		h.Protection.Set(on)
		return nil
	})
}

// ReadMemory collects garbage and looks at what is left.
func ReadMemory() Memory {
	runtime.GC()
	runtime.GC() // the first one empties pools only halfway
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return Memory{pid, m.HeapAlloc, runtime.NumGoroutine()}
}

// Answer writes v, or the error.
func Answer(w http.ResponseWriter, v any, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) //nolint:errchkjson // the other side has gone: nobody to tell
}

// Take adds a route that takes a value.
func Take[T any](mux *http.ServeMux, pattern string, do func(context.Context, T) error) {
	mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		var v T
		err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20)).Decode(&v)
		if err == nil {
			err = do(r.Context(), v)
		}
		Answer(w, struct{}{}, err)
	})
}

// Question adds a route that answers a question.
func Question[Q, A any](mux *http.ServeMux, pattern string, answer func(context.Context, Q) (A, error)) {
	mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		var q Q
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20)).Decode(&q); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		a, err := answer(r.Context(), q)
		Answer(w, a, err)
	})
}

// Remote is a service as the shop sees it, by its control address.
type Remote struct {
	Name    string
	Control string
}

// controls is how the shop reaches its services: over loopback, and never for long.
var controls = &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 4, IdleConnTimeout: 5 * time.Second}}

// Get reads from the service.
func (r Remote) Get(ctx context.Context, path string, into any) error {
	return r.do(ctx, http.MethodGet, path, nil, into)
}

// Put tells the service something.
func (r Remote) Put(ctx context.Context, path string, v any) error {
	return r.do(ctx, http.MethodPut, path, v, nil)
}

// Ask reads from the service by a question that has a body.
func (r Remote) Ask(ctx context.Context, path string, v, into any) error {
	return r.do(ctx, http.MethodPost, path, v, into)
}

func (r Remote) do(ctx context.Context, method, path string, v, into any) error {
	var body io.Reader
	if v != nil {
		data, err := json.Marshal(v)
		if err != nil {
			return err
		}
		body = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+r.Control+path, body)
	if err != nil {
		return err
	}
	resp, err := controls.Do(req)
	if err != nil {
		return fmt.Errorf("%s: %w", r.Name, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
		return fmt.Errorf("%s: %s: %s", r.Name, resp.Status, bytes.TrimSpace(text))
	}
	if into == nil {
		_, err = io.Copy(io.Discard, resp.Body)
		return err
	}
	return json.NewDecoder(resp.Body).Decode(into)
}

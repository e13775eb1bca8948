package main

import (
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"time"
)

// The parts of the story.
const (
	single = "single faults"
	down   = "down"
	back   = "back"
)

// phases is what the server goes through.
var phases = []struct {
	name   string
	part   string
	lasts  time.Duration
	answer func(n int64, w http.ResponseWriter, r *http.Request) // to the n-th request of a client
}{
	{"well", single, 1000 * time.Millisecond, func(int64, http.ResponseWriter, *http.Request) {}},
	{"503 for 1 in 15", single, 1500 * time.Millisecond, oneIn15(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })},
	{"stalls 1 in 15", single, 1500 * time.Millisecond, oneIn15(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-time.After(3 * time.Second):
		case <-r.Context().Done():
		}
	})},
	{"429 for 1 in 15", single, 1500 * time.Millisecond, oneIn15(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "1")
		w.WriteHeader(http.StatusTooManyRequests)
	})},
	{"well", single, 1500 * time.Millisecond, func(int64, http.ResponseWriter, *http.Request) {}},
	{"down", down, 2500 * time.Millisecond, func(_ int64, w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }},
	{"well again", back, 3000 * time.Millisecond, func(int64, http.ResponseWriter, *http.Request) {}},
}

func oneIn15(h http.HandlerFunc) func(int64, http.ResponseWriter, *http.Request) {
	return func(n int64, w http.ResponseWriter, r *http.Request) {
		if n%15 == 0 {
			h(w, r)
		}
	}
}

// server is one client's real HTTP server.
type server struct {
	*httptest.Server
	phase    *atomic.Int64
	requests atomic.Int64
}

func newServer(phase *atomic.Int64) *server {
	s := &server{phase: phase}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		phases[s.phase.Load()].answer(s.requests.Add(1), w, r)
	}))
	return s
}

package lab

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Server is a leaf service in virtual time: workers that take a fixed time for each job, and a queue in front of them. It never learns that a
// client has gone, as a handler that runs does not. Everybody who calls it gives up after the same attempt timeout, so that only
// the policies in front of it differ.
type Server struct {
	jobs    chan chan struct{}
	work    time.Duration
	attempt time.Duration
	start   time.Time
	stall   [2]time.Duration // from when to when, since start, nobody works
	slow    float64          // while it stalls a job takes this many times as long; 0: until the end of the stall
	refuse  bool             // answers 503 after work, always
	workers sync.WaitGroup
}

// errAttempt is the attempt timeout, as a transport reports it.
var errAttempt = &attemptTimeout{}

type attemptTimeout struct{}

func (*attemptTimeout) Error() string        { return "attempt timed out" }
func (*attemptTimeout) Timeout() bool        { return true }
func (*attemptTimeout) Is(target error) bool { return target == context.DeadlineExceeded }

var errBusy = errors.New("503")

// start starts the server of a scenario. Call stop when nobody calls it any more.
func (s Scenario) start() *Server {
	srv := &Server{jobs: make(chan chan struct{}, s.Queue), work: s.Work, attempt: s.Attempt, start: time.Now(), stall: s.Stall, slow: s.Slow, refuse: s.Refuse}
	for range s.Workers {
		srv.workers.Go(func() {
			for done := range srv.jobs {
				time.Sleep(srv.work)
				if now := time.Since(srv.start); now < srv.stall[0] || now >= srv.stall[1] {
					// works
				} else if srv.slow > 1 {
					time.Sleep(time.Duration(float64(srv.work) * (srv.slow - 1)))
				} else {
					time.Sleep(srv.stall[1] - now)
				}
				close(done)
			}
		})
	}
	return srv
}

func (s *Server) stop() {
	close(s.jobs)
	s.workers.Wait()
}

// call makes one attempt: nil, errBusy, errAttempt, or why ctx ended.
func (s *Server) call(ctx context.Context) error {
	timer := time.NewTimer(s.attempt)
	defer timer.Stop()
	if s.refuse {
		time.Sleep(s.work)
		return errBusy
	}
	done := make(chan struct{})
	select {
	case s.jobs <- done:
	default:
		return errBusy
	}
	select {
	case <-done:
		return nil
	case <-timer.C:
		return errAttempt
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// transport is the server as an http.RoundTripper that counts attempts.
type transport struct {
	server *Server
	count  func()
}

func (t transport) RoundTrip(req *http.Request) (*http.Response, error) {
	t.count()
	status := http.StatusOK
	switch err := t.server.call(req.Context()); err {
	case nil:
	case errBusy:
		status = http.StatusServiceUnavailable
	default:
		return nil, err
	}
	return &http.Response{
		StatusCode: status, Status: http.StatusText(status), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{}, Body: io.NopCloser(strings.NewReader("")), ContentLength: 0, Request: req,
	}, nil
}

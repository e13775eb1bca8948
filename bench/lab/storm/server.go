package storm

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Server is a leaf service in virtual time: workers that take a fixed time for each job, and a queue in front of them. It never learns that a
// client has gone, as a handler that runs does not. Everybody who calls it gives up after the same attempt timeout, so that only
// the policies in front of it differ.
type Server struct {
	Scenario
	replicas []chan chan struct{}
	start    time.Time
	workers  sync.WaitGroup
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
	srv := &Server{Scenario: s, start: time.Now()}
	for range max(s.Replicas, 1) {
		jobs := make(chan chan struct{}, s.Queue)
		srv.replicas = append(srv.replicas, jobs)
		for range s.Workers {
			srv.workers.Go(func() {
				for done := range jobs {
					time.Sleep(s.Work)
					srv.fault()
					close(done)
				}
			})
		}
	}
	return srv
}

func (s *Server) faulty() bool {
	now := time.Since(s.start)
	return now >= s.Fault[0] && now < s.Fault[1]
}

// fault is what a fault adds to a job.
func (s *Server) fault() {
	switch {
	case !s.faulty() || s.Replicas > 0:
	case s.Slow > 1:
		time.Sleep(time.Duration(float64(s.Work) * (s.Slow - 1)))
	default:
		time.Sleep(s.Fault[1] - time.Since(s.start))
	}
}

func (s *Server) stop() {
	for _, jobs := range s.replicas {
		close(jobs)
	}
	s.workers.Wait()
}

// call makes one attempt at one replica.
func (s *Server) call(ctx context.Context, replica int) error {
	if s.Refuse || 2*replica < s.Replicas && s.faulty() {
		time.Sleep(min(s.Work, time.Millisecond))
		return errBusy
	}
	timer := time.NewTimer(s.Attempt)
	defer timer.Stop()
	done := make(chan struct{})
	select {
	case s.replicas[replica] <- done:
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

// transport is a target as an http.RoundTripper. Its hosts are http://0.test, http://1.test, …
type transport struct{ target Target }

func (t transport) RoundTrip(req *http.Request) (*http.Response, error) {
	name, _, _ := strings.Cut(req.URL.Host, ".")
	host, err := strconv.Atoi(name)
	if err != nil {
		return nil, err
	}
	status := http.StatusOK
	switch err := t.target(req.Context(), host); err {
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

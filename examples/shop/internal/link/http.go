package link

import (
	"net/http"
	"strconv"
	"time"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/httpclient"
)

// deadlineHeader tells a server in milliseconds how long the caller will wait. gRPC has this built in; for HTTP the two agree on a header.
const deadlineHeader = "Attempt-Timeout-Ms"

// HTTP returns a client for an HTTP service that honours idempotency keys.
func (l *Link) HTTP() *http.Client {
	base := http.DefaultTransport.(*http.Transport).Clone()
	base.MaxIdleConnsPerHost, base.IdleConnTimeout = 64, 5*time.Second
	return &http.Client{Transport: &roundTripper{
		link: l,
		base: base,
		safe: httpclient.New(base, l.stack.Pipeline(), httpclient.TrustKeys(), httpclient.DeadlineHeader(deadlineHeader)),
	}}
}

// Patience returns how long the caller of an HTTP request will wait, and false when it has not said.
func Patience(r *http.Request) (time.Duration, bool) {
	ms, err := strconv.Atoi(r.Header.Get(deadlineHeader))
	return time.Duration(ms) * time.Millisecond, err == nil && ms > 0
}

type roundTripper struct {
	link *Link
	base *http.Transport
	safe http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (t *roundTripper) RoundTrip(r *http.Request) (*http.Response, error) {
	if t.link.protection.On() {
		return t.safe.RoundTrip(r)
	}
	return t.blindly(r)
}

// CloseIdleConnections is called by http.Client.
func (t *roundTripper) CloseIdleConnections() { t.base.CloseIdleConnections() }

// blindly is the naive client: it tries again at once, whatever the answer was, and waits as long as it takes.
func (t *roundTripper) blindly(r *http.Request) (*http.Response, error) {
	op, err := backstay.TakeOperation(r.Context())
	if err != nil {
		return nil, err
	}
	defer t.link.meter.Begin()()
	start := time.Now()
	for attempt := 1; ; attempt++ {
		again := r.Clone(r.Context())
		if r.GetBody != nil {
			if again.Body, err = r.GetBody(); err != nil {
				return nil, err
			}
		}
		setOperation(again.Header, op)
		resp, err := t.base.RoundTrip(again)
		bad := err != nil || resp.StatusCode >= 500 || resp.StatusCode == http.StatusTooManyRequests
		if bad && attempt < blindAttempts && r.Context().Err() == nil {
			if resp != nil {
				resp.Body.Close()
			}
			time.Sleep(blindWait)
			continue
		}
		t.link.meter.Call(attempt, time.Since(start), bad)
		return resp, err
	}
}

// setOperation writes the headers that package guard reads on the other side.
func setOperation(h http.Header, op backstay.Operation) {
	if op.Key == "" {
		return
	}
	h.Set("Idempotency-Key", op.Key)
	if op.Op != "" {
		h.Set("Saga-Op", op.Op)
		h.Set("Saga-Epoch", strconv.FormatInt(op.Epoch, 10))
	}
}

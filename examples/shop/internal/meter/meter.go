// Package meter measures the calls from one service to another, over the last ten seconds.
package meter

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/backstay-go/backstay"
)

// seconds is how far back a meter looks.
const seconds = 10

// Meter counts. It is a backstay.Observer of the pipeline that makes the calls; a client without one reports by Call.
type Meter struct {
	inFlight atomic.Int64

	mu      sync.Mutex
	buckets [seconds]bucket // by second, modulo; guarded by mu
	why     string          // why the breaker opened last; guarded by mu
}

type bucket struct {
	second   int64
	calls    int
	attempts int
	failures int
	took     Histogram
}

// Reading is what a meter shows.
type Reading struct {
	Calls    float64       `json:"calls"`    // a second
	Attempts float64       `json:"attempts"` // for each call
	Failures float64       `json:"failures"` // share of calls
	P99      time.Duration `json:"p99"`
	InFlight int           `json:"inFlight"`
	Why      string        `json:"why"` // why the breaker opened last
}

// Observe implements backstay.Observer.
func (m *Meter) Observe(_ context.Context, e backstay.Event) {
	switch e.Kind {
	case backstay.EventCall:
		m.Call(e.Attempt, e.Elapsed, e.Err != nil && e.Class != backstay.Success)
	case backstay.EventState:
		if e.To == "open" {
			m.mu.Lock()
			m.why = e.Reason
			if e.Err != nil {
				m.why += ": " + e.Err.Error()
			}
			m.mu.Unlock()
		}
	}
}

// Begin counts a call in flight until the function that it returns is called.
func (m *Meter) Begin() (end func()) {
	m.inFlight.Add(1)
	return func() { m.inFlight.Add(-1) }
}

// Call counts a call that has ended.
func (m *Meter) Call(attempts int, took time.Duration, failed bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b := m.at(time.Now().Unix())
	b.calls++
	b.attempts += attempts
	if failed {
		b.failures++
	}
	b.took.Add(took)
}

func (m *Meter) at(second int64) *bucket {
	b := &m.buckets[second%seconds]
	if b.second != second {
		*b = bucket{second: second}
	}
	return b
}

// Read returns what there is of the last ten seconds.
func (m *Meter) Read() Reading {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now().Unix()
	var sum bucket
	for i := range m.buckets {
		b := &m.buckets[i]
		if now-b.second >= seconds {
			continue
		}
		sum.calls += b.calls
		sum.attempts += b.attempts
		sum.failures += b.failures
		sum.took.Merge(&b.took)
	}
	r := Reading{Calls: float64(sum.calls) / seconds, InFlight: int(m.inFlight.Load()), Why: m.why}
	if sum.calls > 0 {
		r.Attempts = float64(sum.attempts) / float64(sum.calls)
		r.Failures = float64(sum.failures) / float64(sum.calls)
		r.P99 = sum.took.Quantile(0.99)
	}
	return r
}

package backstay

import (
	"context"
	"sync"
	"time"
)

// Report is what became of one call: how many attempts it took and why. It is filled while the call runs and complete when it has returned. All
// methods are safe for concurrent use.
type Report struct {
	mu   sync.Mutex
	info ReportInfo // guarded by mu
}

// ReportInfo is a copy of a [Report]'s content.
type ReportInfo struct {
	Attempts int           // attempts made
	Waited   time.Duration // time scheduled for waits between attempts
	Elapsed  time.Duration // how long the call took; 0 while it runs
	Errors   []error       // why each attempt failed, in the order in which they ended
	Stopped  string        // why the retry gave up; "" when it did not
	Rejected error         // the last refusal by a policy; nil: none
	Hedges   int           // attempts started beside another
}

// WithReport returns a context whose next call writes to the report.
func WithReport(ctx context.Context) (context.Context, *Report) {
	r := &Report{}
	return WithObserver(ctx, r), r
}

// Info returns what is known so far.
func (r *Report) Info() ReportInfo {
	r.mu.Lock()
	defer r.mu.Unlock()
	info := r.info
	info.Errors = append([]error(nil), info.Errors...)
	return info
}

// Observe implements [Observer].
func (r *Report) Observe(_ context.Context, e Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch e.Kind {
	case EventAttempt:
		r.info.Attempts++
		if e.Err != nil {
			r.info.Errors = append(r.info.Errors, e.Err)
		}
	case EventRetry:
		r.info.Waited += e.Wait
	case EventStop:
		r.info.Stopped = e.Reason
	case EventReject:
		r.info.Rejected = e.Err
	case EventHedge:
		r.info.Hedges++
	case EventCall:
		r.info.Elapsed = e.Elapsed
	}
}

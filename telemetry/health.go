package telemetry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/backstay-go/backstay"
)

// State says how a process, or a part of one, is.
type State uint8

const (
	OK       State = iota // it does its work
	Degraded              // it works, and something it depends on does not: a breaker is open
	Failed                // it does not do its work
)

var stateNames = [...]string{"ok", "degraded", "failed"}

// String returns "ok", "degraded" or "failed".
func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return fmt.Sprintf("state %d", s)
}

// MarshalText returns what String returns.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads what MarshalText returns.
func (s *State) UnmarshalText(text []byte) error {
	i := slices.Index(stateNames[:], string(text))
	if i < 0 {
		return errors.New("telemetry: no such state of health; there are ok, degraded and failed")
	}
	*s = State(i)
	return nil
}

// Report is how a process is at one moment.
type Report struct {
	State State  `json:"state"` // that of the worst part
	Parts []Part `json:"parts"` // in the order in which they were added
}

// Part is how one part of a process is.
type Part struct {
	Name    string   `json:"name"`
	State   State    `json:"state"`
	Details []string `json:"details,omitempty"` // what is wrong, at most 20 lines
	Err     error    `json:"-"`                 // of a check that failed
}

// Health makes reports of health of the parts that it is told of, and serves them over HTTP. The zero value has no parts and is ok. All methods are safe
// for concurrent use.
//
// An open breaker is a fault of what is called and not of the caller: the process is then degraded, and its page still answers 200. To take it out of service, or
// to restart it, would turn the fault of one dependency into one of everything that depends on this. The page answers 503 only when a check
// fails: a relay that has stopped, sagas that nobody here can run. It is for readiness and for people; a liveness probe needs no more than an answer.
type Health struct {
	// ShowErrors has the page show the texts of checks' errors. They may hold secrets: an address, a name, what a driver says. Set it before use. Default: the
	// kinds of errors alone, see [ErrorType].
	ShowErrors bool
	// Timeout bounds each check. Set it before use. Default 2 s.
	Timeout time.Duration

	mu    sync.Mutex
	parts []healthPart // guarded by mu
}

type healthPart struct {
	name  string
	check func(context.Context) Part
}

// Add has reports ask check, such as a saga engine's Health. An error means that the part has failed, or when it is marked by [AsDegraded] that it is degraded.
// A check that takes longer than Timeout has failed; it is waited for no longer, so it should end with its context.
func (h *Health) Add(name string, check func(ctx context.Context) error) {
	h.add(name, func(ctx context.Context) Part { return judged(check(ctx)) })
}

// Watch has reports look at the breakers, limits and budgets of g: a pipeline, a transport's Pipeline(), a keyed policy.
func (h *Health) Watch(name string, g backstay.Gauged) {
	h.add(name, func(context.Context) Part { return gauged(g) })
}

func (h *Health) add(name string, check func(context.Context) Part) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.parts = append(h.parts, healthPart{name, check})
}

// AsDegraded marks an error of a check: the part works, if less well than it should. Nil stays nil.
func AsDegraded(err error) error {
	if err == nil {
		return nil
	}
	return &degraded{err}
}

type degraded struct{ error }

func (d *degraded) Unwrap() error { return d.error }

func judged(err error) Part {
	if err == nil {
		return Part{}
	}
	p := Part{State: Failed, Err: err}
	if _, ok := errors.AsType[*degraded](err); ok {
		p.State = Degraded
	}
	return p
}

// mostDetails bounds what is said of one part.
const mostDetails = 20

// gauged looks at numbers of policies.
func gauged(g backstay.Gauged) (p Part) {
	type limit struct{ policy, name, key string }
	inUse, limits := map[limit]float64{}, map[limit]float64{}
	more := 0
	say := func(format string, args ...any) {
		p.State = Degraded
		if len(p.Details) < mostDetails {
			p.Details = append(p.Details, fmt.Sprintf(format, args...))
		} else {
			more++
		}
	}
	g.Gauges(func(n backstay.Gauge) {
		l := limit{n.Policy, n.Name, n.Key}
		switch n.Kind {
		case backstay.GaugeState:
			if n.Value > 0 && refuses(n.State) {
				say("%s %q: %s", n.Policy, who(n), n.State)
			}
		case backstay.GaugeTokens:
			if n.Policy == "budget" && n.Value < 1 {
				say("retry budget %q: empty", who(n))
			}
		case backstay.GaugeInUse:
			inUse[l] = n.Value
		case backstay.GaugeLimit:
			limits[l] = n.Value
		}
		if used, most := inUse[l], limits[l]; most > 0 && used >= most {
			say("%s %q: full, %g of %g", n.Policy, who(n), used, most)
			delete(limits, l)
		}
	})
	if more > 0 {
		p.Details = append(p.Details, fmt.Sprintf("and %d more", more))
	}
	return p
}

// refuses reports whether a breaker in this state refuses calls.
func refuses(state string) bool {
	switch state {
	case "open", "due", "half-open", "forced-open":
		return true
	}
	return false
}

func who(n backstay.Gauge) string {
	if n.Key != "" {
		return n.Key
	}
	return n.Name
}

// Report asks all parts, at the same time, and returns how they are.
func (h *Health) Report(ctx context.Context) Report {
	h.mu.Lock()
	parts := slices.Clone(h.parts)
	h.mu.Unlock()
	limit := h.Timeout
	if limit <= 0 {
		limit = 2 * time.Second
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	answers := make([]chan Part, len(parts))
	for i, p := range parts {
		answers[i] = make(chan Part, 1)
		go ask(ctx, p, answers[i])
	}
	r := Report{Parts: make([]Part, len(parts))}
	for i, p := range parts {
		select {
		case r.Parts[i] = <-answers[i]:
		case <-ctx.Done():
			select {
			case r.Parts[i] = <-answers[i]: // both at once
			default:
				r.Parts[i] = Part{State: Failed, Err: context.Cause(ctx)}
			}
		}
		r.Parts[i].Name = p.name
		r.State = max(r.State, r.Parts[i].State)
	}
	return r
}

// ask runs one check. One that panics has failed.
func ask(ctx context.Context, p healthPart, answer chan<- Part) {
	part := Part{State: Failed, Err: errors.New("telemetry: the check panicked or ended its goroutine")}
	defer func() {
		_ = recover()
		answer <- part
	}()
	part = p.check(ctx)
}

// ServeHTTP answers with the report as JSON: 200 when it is ok or degraded, 503 when it is failed. It only reads.
func (h *Health) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	report := h.Report(r.Context())
	for i := range report.Parts {
		p := &report.Parts[i]
		switch {
		case p.Err == nil:
		case h.ShowErrors:
			p.Details = append(p.Details, p.Err.Error())
		default:
			p.Details = append(p.Details, "error: "+ErrorType(p.Err))
		}
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	if report.State == Failed {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_ = json.NewEncoder(w).Encode(report) //nolint:errchkjson // the client has gone: nobody to tell
}

package guard

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/textproto"
	"slices"
	"strconv"
)

// The headers that carry a call, as httpclient sends them from a saga's step.
const (
	HeaderKey   = "Idempotency-Key"
	HeaderOp    = "Saga-Op"
	HeaderEpoch = "Saga-Epoch"
	// HeaderGuard is on every answer that the guard had a part in: "ran",
	// "replayed", "nothing", "running" or "poisoned".
	HeaderGuard = "Saga-Guard"
)

// HTTPConfig changes what [HTTP] does. The zero value is ready.
type HTTPConfig struct {
	// MaxBody is the largest answer that is stored, in bytes; 0: 64 KiB,
	// most MaxResult/2. An answer that is larger fails with 500, and its
	// transaction is rolled back: what could not be replayed is not done.
	MaxBody int
	// Keyless lets unsafe requests without a key through, unguarded and
	// without a transaction. Otherwise they get 400.
	Keyless bool
	// Scope names whose keys these are, such as the authenticated caller's
	// tenant; it is put before the key, so that nobody reads an answer of
	// somebody else by guessing. nil: all callers share one space.
	Scope func(*http.Request) string
	// Keep lists answer headers that are stored and replayed besides
	// Content-Type, Content-Language, ETag and Location. Cookies are stored only when
	// they are named here.
	Keep []string
}

// Validate returns all faults of c.
func (c HTTPConfig) Validate() error {
	var errs []error
	if c.MaxBody < 0 || c.MaxBody > MaxResult/2 {
		errs = append(errs, fmt.Errorf("guard.HTTPConfig.MaxBody: %d: want 0 to %d", c.MaxBody, MaxResult/2))
	}
	for _, h := range c.Keep {
		if h == "" {
			errs = append(errs, errors.New("guard.HTTPConfig.Keep: an empty name"))
		}
	}
	return errors.Join(errs...)
}

// stored is an answer as the row keeps it.
type stored struct {
	For    string      `json:"for"` // method and path of the request
	Status int         `json:"status"`
	Header http.Header `json:"header,omitempty"`
	Body   []byte      `json:"body,omitempty"`
}

// errRollback carries an answer of 400 and more out of the transaction.
var errRollback = errors.New("guard: the handler said no")

// HTTP returns a handler that runs next at most once for each key and op.
//
//   - A request whose method is GET, HEAD, OPTIONS or TRACE goes to next as it
//     is.
//   - The first request of a key runs next inside run's transaction, which next
//     finds with [TxFrom]. Its answer is held back until the commit. An answer
//     below 400 commits and is stored; one of 400 and more rolls back and is
//     not stored, so the next request with the key runs again. A panic rolls
//     back and goes on.
//   - A later request gets the stored status, headers and body.
//   - While the first is running, later ones get 409 with Retry-After. So does
//     one whose transaction fell to a deadlock, because its body is read by then.
//   - An undo (Saga-Op: compensate) of an action that never came gets 204; an
//     action after its undo gets 410; neither runs next. The undo's handler finds
//     the action's answer with [ActionBody].
//   - The same key on another method or path gets 422.
//   - Too long or malformed keys get 400, failures of the database 503 with
//     Retry-After: nothing is known then, and the same request again finds out.
//
// Answers cannot be streamed: they leave after the commit.
//
// HTTP panics if cfg is not valid.
func HTTP(run Runner, next http.Handler, cfg HTTPConfig) http.Handler {
	if err := cfg.Validate(); err != nil {
		panic(err)
	}
	if cfg.MaxBody == 0 {
		cfg.MaxBody = 64 << 10
	}
	keep := []string{"Content-Type", "Content-Language", "Etag", "Location"}
	for _, h := range cfg.Keep {
		keep = append(keep, textproto.CanonicalMIMEHeaderKey(h))
	}
	cfg.Keep = keep
	return &middleware{run: run, next: next, cfg: cfg}
}

type middleware struct {
	run  Runner
	next http.Handler
	cfg  HTTPConfig
}

type actionKey struct{}

// ActionBody returns the stored answer of the action that the running handler
// is to undo, and false when the request is no undo.
func ActionBody(ctx context.Context) (status int, body []byte, ok bool) {
	s, ok := ctx.Value(actionKey{}).(stored)
	return s.Status, s.Body, ok
}

func (m *middleware) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		m.next.ServeHTTP(w, r)
		return
	}
	call, err := m.call(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if call.Key == "" {
		m.next.ServeHTTP(w, r)
		return
	}
	var rec *recorder
	a, err := m.run.Run(r.Context(), call, func(ctx context.Context, prior []byte) ([]byte, error) {
		if rec != nil {
			// A new transaction after a deadlock, but the request's body
			// is read. The first one was rolled back: let the client repeat.
			return nil, ErrRunning
		}
		rec = &recorder{header: http.Header{}, limit: m.cfg.MaxBody}
		return m.handle(ctx, r, rec, prior)
	})
	switch {
	case err == nil:
		m.answer(w, r, rec, a)
	case errors.Is(err, errRollback):
		rec.send(w, "ran")
	default:
		refuse(w, err)
	}
}

// call reads the request's headers. An empty key in the answer means that the
// request is let through.
func (m *middleware) call(r *http.Request) (Call, error) {
	keys := r.Header.Values(HeaderKey)
	switch {
	case len(keys) == 0 && m.cfg.Keyless:
		return Call{}, nil
	case len(keys) != 1 || keys[0] == "":
		return Call{}, fmt.Errorf("want one %s header", HeaderKey)
	}
	c := Call{Key: keys[0], Op: Op(r.Header.Get(HeaderOp))}
	if s := r.Header.Get(HeaderEpoch); s != "" {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil || n < 0 {
			return Call{}, fmt.Errorf("%s: want a number", HeaderEpoch)
		}
		c.Epoch = n
	}
	if m.cfg.Scope != nil {
		c.Key = m.cfg.Scope(r) + "|" + c.Key
	}
	return c, c.Validate()
}

// handle runs the handler and makes the row's result of its answer.
func (m *middleware) handle(ctx context.Context, r *http.Request, rec *recorder, prior []byte) ([]byte, error) {
	if prior != nil {
		var s stored
		if err := json.Unmarshal(prior, &s); err != nil {
			return nil, fmt.Errorf("guard: stored answer: %w", err)
		}
		ctx = context.WithValue(ctx, actionKey{}, s)
	}
	m.next.ServeHTTP(rec, r.WithContext(ctx))
	if rec.status == 0 {
		rec.WriteHeader(http.StatusOK)
	}
	switch {
	case rec.over:
		return nil, fmt.Errorf("%w: the answer has more than %d bytes", ErrTooLarge, m.cfg.MaxBody)
	case rec.status >= 400:
		return nil, errRollback
	}
	s := stored{For: r.Method + " " + r.URL.Path, Status: rec.status, Body: rec.body}
	for name, values := range rec.sent {
		if slices.Contains(m.cfg.Keep, name) {
			if s.Header == nil {
				s.Header = http.Header{}
			}
			s.Header[name] = values
		}
	}
	return json.Marshal(s)
}

// answer writes what a committed call came to.
func (m *middleware) answer(w http.ResponseWriter, r *http.Request, rec *recorder, a Answer) {
	switch a.How {
	case Ran:
		rec.send(w, "ran")
	case Nothing:
		w.Header().Set(HeaderGuard, "nothing")
		w.WriteHeader(http.StatusNoContent)
	default:
		var s stored
		if err := json.Unmarshal(a.Result, &s); err != nil {
			refuse(w, fmt.Errorf("guard: stored answer: %w", err))
			return
		}
		if s.For != r.Method+" "+r.URL.Path {
			http.Error(w, "this "+HeaderKey+" was used for another request", http.StatusUnprocessableEntity)
			return
		}
		maps.Copy(w.Header(), s.Header)
		w.Header().Set(HeaderGuard, "replayed")
		w.WriteHeader(s.Status)
		w.Write(s.Body)
	}
}

// refuse answers for a call that was not made, or of which nothing is known.
// The database's own words stay out of the answer.
func refuse(w http.ResponseWriter, err error) {
	switch {
	case errors.Is(err, ErrPoisoned):
		w.Header().Set(HeaderGuard, "poisoned")
		http.Error(w, ErrPoisoned.Error(), http.StatusGone)
	case errors.Is(err, ErrTooLarge):
		http.Error(w, ErrTooLarge.Error(), http.StatusInternalServerError)
	case busyError(err):
		w.Header().Set(HeaderGuard, "running")
		w.Header().Set("Retry-After", "1")
		http.Error(w, ErrRunning.Error(), http.StatusConflict)
	default:
		w.Header().Set("Retry-After", "1")
		http.Error(w, "guard: the database did not answer; the outcome is unknown", http.StatusServiceUnavailable)
	}
}

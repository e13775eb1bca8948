package httpclient

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/breaker"
	"github.com/backstay-go/backstay/internal/deadline"
	"github.com/backstay-go/backstay/standard"
	"github.com/backstay-go/backstay/telemetry"
)

// Transport is an http.RoundTripper that makes each request through a pipeline of policies. Make one with [New]; it is safe for concurrent
// use and is meant to be kept as long as the client.
type Transport struct {
	base     http.RoundTripper
	pipeline *backstay.Pipeline
	settings settings
	repeats  bool // some policy may make more than one attempt
	latest   atomic.Pointer[named]
	spans    telemetry.Spans
	rounds   deadline.Limit // of attempts without a timeout of their own
}

// named is the origin of a URL's scheme and host. Most clients talk to one host most of the time.
type named struct{ scheme, host, origin string }

// origin is Origin, remembering the latest.
func (t *Transport) origin(u *url.URL) string {
	if u == nil {
		return ""
	}
	if n := t.latest.Load(); n != nil && n.scheme == u.Scheme && n.host == u.Host {
		return n.origin
	}
	n := &named{u.Scheme, u.Host, Origin(u)}
	t.latest.Store(n)
	return n.origin
}

// settings is what the options change.
type settings struct {
	keyBy        func(*http.Request) string
	nameBy       func(*http.Request) string
	onAttempt    []func(*Attempt) error
	crossOrigin  bool // OnAttempt also runs on hops to another origin
	trustKeys    bool
	makeKeys     bool
	retryRefused bool
	errorMode    bool
	bodyCap      int64
	bufferCap    int64
	idle         time.Duration // 0: by the kind of answer
	noSpans      bool
	noMetrics    bool
	metrics      telemetry.Config
	attemptName  string
	deadlineName string
}

// New returns a transport over base; nil means http.DefaultTransport. parts are policies, outermost first, and options, in any mix. Without a
// policy the pipeline is that of [standard.New] with the zero Config.
//
// Leave http.Client.Timeout at 0: it would cover bodies and waits too, and nothing could be repeated after it.
func New(base http.RoundTripper, parts ...backstay.Policy) *Transport {
	if base == nil {
		base = http.DefaultTransport
	}
	t := &Transport{base: base, settings: settings{bodyCap: 64 << 10}, rounds: deadline.Limit{Shared: true}}
	var policies []backstay.Policy
	for _, p := range parts {
		if o, ok := p.(option); ok {
			o(&t.settings)
		} else if p != nil {
			policies = append(policies, p)
		}
	}
	switch only, single := singlePipeline(policies); {
	case len(policies) == 0:
		t.pipeline = standard.New(standard.Config{})
	case single:
		t.pipeline = only
	default:
		t.pipeline = backstay.Chain(policies...)
	}
	t.repeats = mayRepeat(t.pipeline.Describe())
	if !t.settings.noMetrics {
		t.settings.metrics.Calls = telemetry.HTTP
		t.pipeline = telemetry.Attach(t.pipeline, t.settings.metrics)
	}
	return t
}

// singlePipeline returns the pipeline that is the only part, which then keeps its observer.
func singlePipeline(policies []backstay.Policy) (*backstay.Pipeline, bool) {
	if len(policies) != 1 {
		return nil, false
	}
	p, ok := policies[0].(*backstay.Pipeline)
	return p, ok && p != nil
}

// mayRepeat reports whether a policy described by d may make more than one attempt. One that is not ours may.
func mayRepeat(d backstay.Description) bool {
	switch d.Kind {
	case "retry":
		return d.Attempts != 1
	case "breaker", "timeout", "bulkhead", "ratelimit", "fallback", "adaptive", "throttle", "chaos":
		return false
	case "pipeline", "per key":
		return slices.ContainsFunc(d.Inner, mayRepeat)
	}
	return true
}

// PerHost returns a policy that has a breaker for each host: [backstay.Keyed] with its defaults. The breakers are named by
// their host.
func PerHost(c breaker.Config) *backstay.Keyed[*breaker.Breaker] {
	if err := c.Validate(); err != nil {
		panic(err)
	}
	return backstay.NewKeyed(backstay.KeyedConfig{}, func(key string) *breaker.Breaker {
		own := c
		own.Name = key
		return breaker.New(own)
	})
}

// Pipeline returns the policies in use.
func (t *Transport) Pipeline() *backstay.Pipeline { return t.pipeline }

// String returns the nesting of the policies, outermost first.
func (t *Transport) String() string { return t.pipeline.String() }

// Lint returns what is wrong with the order or the numbers of the policies, and reports a Transport directly inside this one.
func (t *Transport) Lint() []backstay.Finding {
	found := t.pipeline.Lint()
	if _, ok := t.base.(*Transport); ok {
		found = append(found, backstay.Finding{
			Rule:    "nested-transport",
			Message: "a Backstay transport directly inside a Backstay transport: every policy acts twice, and the inner retry makes a single attempt; keep one",
		})
	}
	return found
}

// CloseIdleConnections closes those of the transport inside, if it can.
func (t *Transport) CloseIdleConnections() {
	if c, ok := t.base.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// RoundTrip implements http.RoundTripper. The request is not modified, and its body is closed in every case, which may be after RoundTrip has returned.
//
// When attempts run out the last response is returned with a nil error, whatever its status, and its body can be read. An error says that there is no
// response: of the transport inside, or a refusal by a policy (see backstay.ErrRejected).
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	x := &exchange{t: t, req: req}
	info, err := x.prepare()
	if err != nil {
		closeBody(req)
		return nil, err
	}
	defer x.body.finish() // also on panic: the caller's body is closed
	if t.settings.noSpans {
		return x.result(t.pipeline.HandleIn(telemetry.Events(req.Context()), &x.call, info, x))
	}
	ctx, span := t.spans.StartHTTP(req.Context(), req.Method, req.URL)
	if span == nil {
		return x.result(t.pipeline.HandleIn(ctx, &x.call, info, x))
	}
	errorType := errGone
	defer func() { span.End(errorType) }()
	resp, err := x.result(t.pipeline.HandleIn(ctx, &x.call, info, x))
	switch {
	case err != nil:
		errorType = telemetry.ErrorType(err)
	case resp.StatusCode >= http.StatusBadRequest:
		errorType = strconv.Itoa(resp.StatusCode)
	default:
		errorType = ""
	}
	return resp, err
}

// errGone is the error type of a call that panicked or ended its goroutine.
const errGone = "panic"

// result turns the outcome of a call into what a RoundTripper returns.
func (x *exchange) result(out backstay.Outcome) (*http.Response, error) {
	resp, _ := out.Value.(*http.Response)
	switch {
	case resp == nil && out.Err == nil:
		return nil, fmt.Errorf("%w: want *http.Response, a policy returned %T", backstay.ErrType, out.Value)
	case resp == nil:
		return nil, out.Err
	}
	a, ours := resp.Body.(holder)
	if ours && !a.answer().readable(x.req.Context()) {
		return nil, out.Err
	}
	if x.t.settings.errorMode && out.Err != nil {
		return nil, x.failed(resp, out)
	}
	return resp, nil
}

// failed returns the error of error mode, which carries a piece of the body, and lets go of the response.
func (x *exchange) failed(resp *http.Response, out backstay.Outcome) error {
	var status *StatusError
	if errors.As(out.Err, &status) && status.Snippet == nil {
		status.Snippet = snippet(resp.Body)
	}
	_ = resp.Body.Close()
	out.Release()
	return out.Err
}

func closeBody(req *http.Request) {
	if req.Body != nil {
		_ = req.Body.Close()
	}
}

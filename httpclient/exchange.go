package httpclient

import (
	"context"
	"crypto/rand"
	"net/http"
	"net/http/httptrace"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/internal/deadline"
)

// exchange is one request on its way: what its attempts share, in one piece of memory with the Call and the first answer.
type exchange struct {
	t      *Transport
	req    *http.Request // the caller's; never written to
	body   body
	op     backstay.Operation
	counts *backstay.Effects // nil for a safe request, or where nobody counts
	repeat bool              // the request may be made more than once
	cross  bool              // a redirect has led to another origin than the first request's

	answers atomic.Int32 // answers that came; the first is in first
	first   answer
	call    backstay.Call
}

// Attempt is what an OnAttempt hook sees of an attempt about to be made.
type Attempt struct {
	Request     *http.Request // the attempt's own copy, headers included; may be changed, signed above all
	Number      int           // of the attempt, from 1
	Previous    error         // why the attempt before failed; a *StatusError when it had an answer; nil for the first
	CrossOrigin bool          // a redirect has led to another origin than the first request's: mind your credentials
}

// prepare settles what is known before the first attempt.
func (x *exchange) prepare() (backstay.CallInfo, error) {
	s := &x.t.settings
	info := backstay.CallInfo{Name: x.req.Method, Holds: true}
	if info.Name == "" {
		info.Name = http.MethodGet
	}
	if s.nameBy != nil {
		info.Name = s.nameBy(x.req)
	}
	if s.keyBy != nil {
		info.Key = s.keyBy(x.req)
	} else {
		info.Key = x.t.origin(x.req.URL)
	}
	x.cross = x.req.Response != nil && crossOrigin(x.req)
	safe := idempotent(x.req.Method)
	if !safe {
		op, err := backstay.TakeOperation(x.req.Context())
		if err != nil {
			return info, err
		}
		x.op = op
		if x.op.Key == "" && s.makeKeys && !x.cross {
			x.op.Key = previousKey(x.req)
			if x.op.Key == "" {
				x.op.Key = rand.Text()
			}
		}
		if hasKey(x.req.Header) {
			x.op.Key = ""
		}
	}
	if !readOnly(x.req.Method) {
		x.counts = backstay.EffectsFrom(x.req.Context())
	}
	if opts := optionsFrom(x.req.Context()); len(opts) > 0 {
		info = applied(info, opts)
	}
	if info.Repeat == backstay.Unsaid {
		info.Repeat = backstay.No
		if safe || s.trustKeys && (x.op.Key != "" || hasKey(x.req.Header)) {
			info.Repeat = backstay.Yes
		}
	}
	x.repeat = info.Repeat == backstay.Yes
	x.body.init(x.req, x.t.repeats && x.repeat && info.Attempts != 1, s.bodyCap)
	return info, nil
}

// applied is a function of its own because info, whose address is taken, is allocated in it.
func applied(info backstay.CallInfo, opts []backstay.CallOption) backstay.CallInfo {
	for _, o := range opts {
		o(&info)
	}
	return info
}

// Attempt implements backstay.Attempter.
func (x *exchange) Attempt(ctx context.Context, call *backstay.Call) backstay.Outcome {
	// The context of the attempt is ours to cancel and to watch: the attempt timeout's, or one made for this.
	bound, own := ctx.(*deadline.Ctx)
	if !own {
		bound = deadline.Open(ctx, &x.t.rounds)
	}
	done := false
	defer func() {
		if !done && !own {
			bound.Cancel()
		}
	}()

	var sent *sentTrace
	var attemptCtx context.Context = bound
	if !x.repeat && x.t.repeats {
		sent = &sentTrace{}
		attemptCtx = httptrace.WithClientTrace(bound, &httptrace.ClientTrace{GotConn: sent.gotConn})
	}
	req, err := x.request(attemptCtx, call)
	if err != nil {
		return backstay.Outcome{Err: err, Class: backstay.Neutral, Again: backstay.No, Sent: backstay.SentNever}
	}
	x.counts.Begin()
	resp, err := x.t.base.RoundTrip(req)
	if err != nil {
		if resp != nil && resp.Body != nil {
			_ = resp.Body.Close() // against the contract of RoundTripper, but seen
		}
		out := x.failure(bound, err, sent)
		if out.Sent == backstay.SentNever {
			x.counts.NeverSent()
		}
		return out
	}
	done = true
	return x.answered(bound, resp)
}

// request returns the attempt's own copy of the request. Its header is the caller's unless something is added.
func (x *exchange) request(ctx context.Context, call *backstay.Call) (*http.Request, error) {
	s := &x.t.settings
	r := x.req.WithContext(ctx)
	body, err := x.body.next()
	if err != nil {
		return nil, err
	}
	r.Body = body
	hooks := s.onAttempt
	if x.cross && !s.crossOrigin {
		hooks = nil
	}
	if len(hooks) == 0 && x.op == (backstay.Operation{}) && s.attemptName == "" && s.deadlineName == "" {
		return r, nil
	}
	if r.Header = x.req.Header.Clone(); r.Header == nil {
		r.Header = http.Header{}
	}
	if !x.cross {
		setOperation(r.Header, x.op)
	}
	if s.attemptName != "" {
		r.Header.Set(s.attemptName, strconv.Itoa(call.Attempt()))
	}
	if s.deadlineName != "" {
		if at, ok := ctx.Deadline(); ok {
			r.Header.Set(s.deadlineName, strconv.FormatInt(max(time.Until(at).Milliseconds(), 0), 10))
		}
	}
	for _, hook := range hooks {
		a := &Attempt{Request: r, Number: call.Attempt(), Previous: call.Previous(), CrossOrigin: x.cross}
		if err := hook(a); err != nil {
			closeBody(r)
			return nil, err
		}
		r = a.Request
	}
	return r, nil
}

// answered turns a response into an outcome.
func (x *exchange) answered(bound *deadline.Ctx, resp *http.Response) backstay.Outcome {
	resp.Request = x.req // as with http.Transport: the caller's own
	out := x.classify(resp)
	if resp.Body == nil || resp.Body == http.NoBody {
		if resp.Body == nil {
			resp.Body = http.NoBody
		}
		if x.op.Key == "" {
			bound.Cancel()
			return out
		}
	}
	a := newAnswer(x, bound, resp)
	out.Held = a
	if x.t.settings.bufferCap > 0 && out.Class == backstay.Success {
		if err := a.buffer(x.t.settings.bufferCap); err != nil {
			a.Release()
			failed := x.failure(bound, err, nil)
			failed.Sent = backstay.SentYes
			return failed
		}
	}
	return out
}

// sentTrace learns whether an attempt ever had a connection: without one, nothing was sent.
type sentTrace struct{ got atomic.Bool }

func (s *sentTrace) gotConn(httptrace.GotConnInfo) { s.got.Store(true) }

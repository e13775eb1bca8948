package httpclient

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/internal/deadline"
	"github.com/backstay-go/backstay/timeout"
)

const (
	drainBytes = 64 << 10               // of a dropped response, so that its connection serves again
	drainTime  = 250 * time.Millisecond // for that; a connection is cheaper than a longer wait
	idleKnown  = 30 * time.Second       // without a byte, of a body whose length is known
	idleStream = 5 * time.Minute        // without a byte, of one that may be a stream (as Envoy's stream idle timeout)
)

// answer is a response's body: it ends the attempt's context and gives back permits when it has been read, closed, or dropped. It
// implements backstay.Held.
type answer struct {
	body   io.ReadCloser // the transport's
	bound  *deadline.Ctx // the attempt's context
	caller context.Context
	idle   time.Duration // how long a Read may take; 0: for ever
	stream bool          // an event stream: it ends when it ends
	length int64         // as the response said; -1: unknown
	key    string        // the idempotency key that it was sent with, for the next hop of a redirect

	kept   atomic.Pointer[bytes.Reader] // what was read of the body for the caller
	follow deadline.Link                // of bound

	mu      sync.Mutex
	ended   bool // guarded by mu, as is all below: nothing more will be read, hooks have run or are running
	dropped bool // Release was called
	follows bool // bound tells of its end, or is about to
	hooks   []func()
	broken  []func(error)
	room    [2]func()      // the first of hooks
	broom   [1]func(error) // the first of broken
}

// Ended implements deadline.Follower.
func (a *answer) Ended() { a.end() }

// holder is a body of ours.
type holder interface{ answer() *answer }

func (a *answer) answer() *answer { return a }

// upgraded is the body of a 101: a connection. It is not read to an end, so only Close ends it.
type upgraded struct {
	*answer
	io.Writer
}

func (u upgraded) Read(p []byte) (int, error) { return u.body.Read(p) }

func newAnswer(x *exchange, bound *deadline.Ctx, resp *http.Response) *answer {
	a := &x.first
	if x.answers.Add(1) > 1 {
		a = &answer{}
	}
	a.body, a.bound, a.caller, a.length, a.key = resp.Body, bound, x.req.Context(), resp.ContentLength, x.op.Key
	if resp.StatusCode == http.StatusSwitchingProtocols {
		if w, ok := resp.Body.(io.Writer); ok {
			resp.Body = upgraded{a, w}
			return a
		}
	}
	a.stream = isEventStream(resp.Header)
	switch idle := x.t.settings.idle; {
	case idle != 0:
		a.idle = max(idle, 0)
	case a.stream || len(x.req.Header["Upgrade"]) > 0:
	case resp.ContentLength >= 0:
		a.idle = idleKnown
	default:
		a.idle = idleStream
	}
	resp.Body = a
	return a
}

func isEventStream(h http.Header) bool {
	const kind = "text/event-stream"
	values := h["Content-Type"] // as Get, without making the key canonical
	if len(values) == 0 {
		return false
	}
	v := strings.TrimSpace(values[0])
	return len(v) >= len(kind) && strings.EqualFold(v[:len(kind)], kind) && (len(v) == len(kind) || strings.ContainsRune("; \t", rune(v[len(kind)])))
}

// Read implements io.Reader. The progress timeout runs only inside it.
func (a *answer) Read(p []byte) (int, error) {
	if kept := a.kept.Load(); kept != nil {
		return kept.Read(p)
	}
	if a.idle <= 0 {
		n, err := a.body.Read(p)
		if err != nil {
			a.end()
		}
		return n, err
	}
	a.bound.Watch(a.idle, errStalled)
	n, err := a.body.Read(p)
	a.bound.Unwatch()
	if err != nil {
		err = a.readError(err)
		a.end()
	}
	return n, err
}

// errStalled is the cause of a context whose body made no progress.
var errStalled = &timeout.Error{Name: "body"}

// readError tells a stalled body from one that broke, and tells policies of either.
func (a *answer) readError(err error) error {
	if err == io.EOF {
		return err
	}
	if context.Cause(a.bound) == error(errStalled) {
		err = &timeout.Error{Name: "body", Limit: a.idle, Err: errNoProgress}
	} else if a.caller.Err() != nil {
		return err
	}
	a.mu.Lock()
	broken := a.broken
	a.broken = nil
	a.mu.Unlock()
	for _, f := range broken {
		f(err)
	}
	return err
}

var errNoProgress = errors.New("the response's body made no progress")

// Close implements io.Closer.
func (a *answer) Close() error {
	err := a.body.Close()
	a.end()
	return err
}

// end lets go of everything, once.
func (a *answer) end() {
	a.mu.Lock()
	if a.ended {
		a.mu.Unlock()
		return
	}
	a.ended = true
	hooks := a.hooks
	a.hooks = nil
	a.mu.Unlock()
	a.bound.Cancel() // which tells us, in vain
	for _, hook := range slices.Backward(hooks) {
		hook()
	}
}

// OnRelease implements backstay.Held. The caller's context, once it is over, lets go too: a body that nobody closes must not keep a permit.
func (a *answer) OnRelease(f func()) {
	a.mu.Lock()
	if a.ended {
		a.mu.Unlock()
		f()
		return
	}
	if a.hooks == nil {
		a.hooks = a.room[:0]
	}
	a.hooks = append(a.hooks, f)
	follow := !a.follows && a.caller.Done() != nil
	a.follows = a.follows || follow
	a.mu.Unlock()
	if follow && !a.bound.Tell(&a.follow, a) { // which the caller's end ends too
		a.end()
	}
}

// Owns implements backstay.Owner: the attempt's context ends with the body, and a total timeout's around it that nobody waits on needs no end.
func (a *answer) Owns(ctx context.Context) bool {
	c, ok := ctx.(*deadline.Ctx)
	return ok && (c == a.bound || !c.Real())
}

// OnBreak implements backstay.Breakable.
func (a *answer) OnBreak(f func(err error)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.broken == nil {
		a.broken = a.broom[:0]
	}
	a.broken = append(a.broken, f)
}

// Release implements backstay.Held: it drops the response, draining its body within bounds so that the connection can serve again. A body that
// ended within them is kept, and can still be read.
func (a *answer) Release() {
	a.mu.Lock()
	if a.dropped || a.ended {
		a.dropped = true
		a.mu.Unlock()
		return
	}
	a.dropped = true
	a.mu.Unlock()
	if a.length <= drainBytes && a.bound.Err() == nil {
		var buf bytes.Buffer
		a.bound.Watch(drainTime, errStalled)
		n, err := io.CopyN(&buf, a.body, drainBytes+1)
		a.bound.Unwatch()
		if n <= drainBytes && err == io.EOF {
			a.kept.Store(bytes.NewReader(buf.Bytes()))
		}
	}
	_ = a.body.Close()
	a.end()
}

// readable reports whether the response can be handed to the caller. One that was dropped before a wait for another attempt, which then was
// not made, can be if its body was kept; not when the wait ended with the caller's context, which is then the better answer.
func (a *answer) readable(caller context.Context) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return !a.dropped || (a.kept.Load() != nil || a.length == 0) && caller.Err() == nil
}

// buffer reads the body, up to limit bytes, so that one which breaks off fails the attempt. A longer body goes on from there.
func (a *answer) buffer(limit int64) error {
	if a.length > limit || a.stream {
		return nil
	}
	var buf bytes.Buffer
	n, err := io.CopyN(&buf, a.body, limit+1)
	if err != nil && err != io.EOF {
		return err
	}
	if n > limit {
		a.body = struct {
			io.Reader
			io.Closer
		}{io.MultiReader(&buf, a.body), a.body}
		return nil
	}
	a.kept.Store(bytes.NewReader(buf.Bytes()))
	_ = a.body.Close()
	return nil
}

// snippet returns the first KiB of a body.
func snippet(body io.Reader) []byte {
	b, _ := io.ReadAll(io.LimitReader(body, 1<<10))
	return b
}

var (
	_ backstay.Held      = (*answer)(nil)
	_ backstay.Breakable = (*answer)(nil)
	_ backstay.Owner     = (*answer)(nil)
)

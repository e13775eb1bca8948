package httpclient

import (
	"errors"
	"io"
	"net/http"
	"sync"
)

// body is the source of the attempts' request bodies. It has one of four forms:
//
//   - none;
//   - replayed by the caller's GetBody, the first attempt reading the caller's own body;
//   - recorded while the first attempt streams it, up to a cap: nothing is read ahead, so a body that is written while the
//     response is read still works, and a further attempt reads the record and goes on where that ends;
//   - streamed once: a record with a cap of nothing, which a further attempt can follow only when not a byte has been read.
type body struct {
	req    *http.Request
	single io.ReadCloser // the caller's body, until the first attempt takes it; used with get
	get    func() (io.ReadCloser, error)
	rec    *record

	mu    sync.Mutex
	taken bool // guarded by mu: single is an attempt's, which closes it
}

// errNotReplayable is why an attempt is not made: what the one before it has read is gone.
var errNotReplayable = errors.New("httpclient: the request's body cannot be sent again: it has no GetBody and is longer than the buffer")

// init looks at req. keep says whether to record a body that has no GetBody.
func (b *body) init(req *http.Request, keep bool, limit int64) {
	b.req = req
	switch {
	case req.Body == nil || req.Body == http.NoBody:
	case req.GetBody != nil:
		b.single, b.get = req.Body, req.GetBody
	default:
		if !keep || req.ContentLength > limit {
			limit = 0
		}
		b.rec = &record{src: req.Body, limit: limit}
	}
}

// next returns the body of the next attempt, which the transport closes.
func (b *body) next() (io.ReadCloser, error) {
	switch {
	case b.rec != nil:
		return b.rec.reader()
	case b.get != nil:
		b.mu.Lock()
		first := !b.taken
		b.taken = true
		b.mu.Unlock()
		if first {
			return b.single, nil
		}
		return b.get()
	}
	return b.req.Body, nil
}

// replayable reports whether a further attempt would get a whole body.
func (b *body) replayable() bool { return b.rec == nil || b.rec.replayable() }

// finish says that no further attempt will be made. What no attempt has taken is closed now, the rest by the attempt that has it.
func (b *body) finish() {
	switch {
	case b.rec != nil:
		b.rec.finish()
	case b.get != nil:
		b.mu.Lock()
		taken := b.taken
		b.taken = true
		b.mu.Unlock()
		if !taken {
			_ = b.single.Close()
		}
	}
}

// record is a body that several attempts read, one after the other or at the same time, each from the start, while what has been read is kept up
// to limit bytes. It closes its source when no attempt has it any more.
type record struct {
	src   io.ReadCloser
	limit int64

	reading sync.Mutex // held while reading from src: readers take turns. Taken before mu

	mu      sync.Mutex // guards all below; never held while src is read or closed
	kept    []byte     // what has been read
	gone    bool       // more was read than kept
	err     error      // how src ended
	readers int
	last    bool // no further attempt will be made
	closed  bool
}

func (r *record) reader() (io.ReadCloser, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.gone || r.closed {
		return nil, errNotReplayable
	}
	r.readers++
	return &recordReader{rec: r}, nil
}

func (r *record) replayable() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.gone
}

// finish says that no further attempt will be made.
func (r *record) finish() { _ = r.settle(func() { r.last = true }) }

// settle changes the state and closes src if nobody needs it any more, which also ends a Read that a closed attempt has left in it.
func (r *record) settle(change func()) error {
	r.mu.Lock()
	change()
	closing := r.last && r.readers == 0 && !r.closed
	r.closed = r.closed || closing
	r.mu.Unlock()
	if closing {
		return r.src.Close()
	}
	return nil
}

// recordReader is one attempt's view of a record.
type recordReader struct {
	rec    *record
	pos    int  // guarded by rec.mu, as is all below
	ahead  bool // it has read past what is kept
	closed bool
}

func (b *recordReader) Read(p []byte) (int, error) {
	if n, ready, err := b.recorded(p); ready {
		return n, err
	}
	r := b.rec
	r.reading.Lock()
	defer r.reading.Unlock()
	if n, ready, err := b.recorded(p); ready { // another attempt's Read went first
		return n, err
	}
	n, err := r.src.Read(p)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		r.err = err
	}
	switch {
	case n == 0 || b.ahead:
	case int64(len(r.kept)+n) <= r.limit:
		r.kept = append(r.kept, p[:n]...)
		b.pos += n
	default:
		r.gone, r.kept, b.ahead = true, nil, true
	}
	return n, err
}

// recorded serves a Read without the source, if it can.
func (b *recordReader) recorded(p []byte) (n int, ready bool, err error) {
	r := b.rec
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case b.closed:
		return 0, true, http.ErrBodyReadAfterClose
	case !b.ahead && b.pos < len(r.kept):
		n = copy(p, r.kept[b.pos:])
		b.pos += n
		return n, true, nil
	case r.gone && !b.ahead:
		return 0, true, errNotReplayable
	case r.err != nil:
		return 0, true, r.err
	}
	return 0, false, nil
}

// Close ends this attempt's view. What a Read that is still under way gets is recorded for the next.
func (b *recordReader) Close() error {
	return b.rec.settle(func() {
		if !b.closed {
			b.closed = true
			b.rec.readers--
		}
	})
}

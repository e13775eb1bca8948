package breaker

import (
	"context"
	"sync/atomic"

	"github.com/backstay-go/backstay"
)

// Permit is the right to make one call outside a [backstay.Pipeline], and the duty to say how it ended: a stream, a message, a
// connection. The first of Done, DoneErr and Cancel counts, later ones do nothing. All methods are safe for concurrent
// use, and on a nil Permit do nothing.
type Permit struct {
	b      *Breaker
	ticket ticket
	done   atomic.Bool
}

// Acquire asks for a permit. Its error is a *[backstay.Rejected] that is [ErrOpen]; the call must not be made then. A permit that never
// reports hinders nobody beyond ProbeTimeout, but counts as in use.
func (b *Breaker) Acquire(ctx context.Context) (*Permit, error) {
	if b == nil {
		return nil, nil
	}
	t, refused := b.admit(ctx, backstay.CallFrom(ctx))
	if refused != nil {
		return nil, refused
	}
	b.held.Add(1)
	return &Permit{b: b, ticket: t}, nil
}

// Done says how the call ended, to be judged by [backstay.Outcome.Judge] with ctx, the context of the caller.
func (p *Permit) Done(ctx context.Context, out backstay.Outcome) {
	if !p.close() {
		return
	}
	now := p.b.now()
	class := out.Judge(ctx, now-p.ticket.start, p.b.rules.Load().SlowCall)
	p.b.settle(ctx, backstay.CallFrom(ctx), p.ticket, now, class, out.Err)
}

// DoneErr is Done for a call of which only the error is known: nil is a success, others count as they do in [backstay.Do].
func (p *Permit) DoneErr(ctx context.Context, err error) { p.Done(ctx, backstay.Outcome{Err: err}) }

// Cancel gives the permit back unused: nothing is counted, and a probe's place is free again. Deferred right after Acquire, it
// makes sure that the permit reports.
func (p *Permit) Cancel(ctx context.Context) {
	if p.close() {
		p.b.settle(ctx, backstay.CallFrom(ctx), p.ticket, p.b.now(), backstay.Neutral, nil)
	}
}

func (p *Permit) close() bool {
	if p == nil || p.done.Swap(true) {
		return false
	}
	p.b.held.Add(-1)
	return true
}

package breaker

import (
	"context"
	"time"

	"github.com/backstay-go/backstay"
)

const kindName = "breaker"

// outbox holds changes of state until their observers have been told, in order, by one goroutine at a time and outside the lock: the one that makes a
// change, or one that is telling already. Guarded by the breaker's mu.
type outbox struct {
	waiting []news
	busy    bool // somebody is telling
}

// news is a change of state. It keeps no Call, as that is a context.
type news struct {
	epoch uint64
	event backstay.Event
	call  backstay.Observer // of the call that made the change; may be nil
}

// amend sets the open period of a change not told yet.
func (o *outbox) amend(epoch uint64, wait time.Duration) {
	for i := range o.waiting {
		if o.waiting[i].epoch == epoch {
			o.waiting[i].event.Wait = wait
		}
	}
}

// announce notes a change of state that has been made. Called with mu held.
func (b *Breaker) announce(from string, why cause) {
	n := news{epoch: b.epoch, event: backstay.Event{
		Kind: backstay.EventState, Policy: kindName, Name: b.rules.Load().Name, From: from, To: b.label(), Reason: why.reason, Err: why.err,
	}}
	if c := why.call; c != nil {
		n.call = c.Observer()
		n.event.Call, n.event.Key, n.event.Attempt = c.Name(), c.Key(), c.Attempt()
	}
	if b.state == Open {
		n.event.Wait = time.Duration(b.until.Load()) - b.since
	}
	if n.call != nil || b.rules.Load().Observer != nil || b.watchers.Any() {
		b.outbox.waiting = append(b.outbox.waiting, n)
	}
}

// unlock unlocks mu, and then does what a change of state asks for: OpenFunc is asked and observers are told.
func (b *Breaker) unlock(ctx context.Context) {
	if b.ask || len(b.outbox.waiting) > 0 {
		b.tell(ctx)
		return
	}
	b.mu.Unlock()
}

// tell is unlock when there is something to do.
func (b *Breaker) tell(ctx context.Context) {
	if b.ask {
		b.askOpenFunc()
	}
	if b.outbox.busy {
		b.mu.Unlock()
		return
	}
	b.outbox.busy = true
	locked := true
	defer func() { // an observer may also end the goroutine
		if !locked {
			b.mu.Lock()
		}
		b.outbox.busy = false
		b.mu.Unlock()
	}()
	for len(b.outbox.waiting) > 0 {
		n := b.outbox.waiting[0]
		b.outbox.waiting = b.outbox.waiting[1:]
		own := b.rules.Load().Observer
		b.mu.Unlock()
		locked = false
		observe(ctx, n.call, n.event)
		observe(ctx, own, n.event)
		if n.call == nil {
			b.watchers.Observe(ctx, n.event)
		}
		b.mu.Lock()
		locked = true
	}
	b.outbox.waiting = nil
}

// emit tells of what is no change of state.
func (b *Breaker) emit(ctx context.Context, call *backstay.Call, e backstay.Event) {
	r := b.rules.Load()
	e.Policy, e.Name = kindName, r.Name
	if call != nil {
		call.Emit(ctx, r.Observer, e)
		return
	}
	observe(ctx, r.Observer, e)
}

// observe tells o of e. Observers that panic, panic for themselves.
func observe(ctx context.Context, o backstay.Observer, e backstay.Event) {
	if o == nil {
		return
	}
	defer func() { _ = recover() }()
	o.Observe(ctx, e)
}

// Watch implements [backstay.Watchable]: o is told of changes of state that no observed call makes, by [Breaker.Trip] and [Breaker.SetMode], by permits, by a value
// that broke after its call.
func (b *Breaker) Watch(o backstay.Observer) (stop func()) {
	if b == nil {
		return func() {}
	}
	return b.watchers.Watch(o)
}

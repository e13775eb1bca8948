package backstay

import (
	"context"
	"time"
)

// EventKind says what happened.
type EventKind uint8

const (
	EventCall     EventKind = iota + 1 // a call ended: Elapsed, Attempt (how many were made), Class, Err
	EventAttempt                       // an attempt ended: Elapsed, Class, Err
	EventRetry                         // another attempt is scheduled: Wait, Reason (where the wait comes from), Err
	EventStop                          // a retry gave up: Reason, Err
	EventReject                        // a policy refused: Reason, Wait, Err
	EventShadow                        // a policy in shadow mode would have refused: Reason
	EventState                         // a state changed: From, To, Reason
	EventStale                         // a result of an earlier state was dropped
	EventWait                          // a call waited for a permit: Elapsed
	EventTimeout                       // a timeout fired: Elapsed
	EventAbandon                       // a function that ignores its context was left running; or has ended since (Reason "ended")
	EventHedge                         // a further attempt was started beside the first: Wait (after how long)
	EventWin                           // a hedged call was won: Attempt, Reason ("primary", "hedge")
	EventFallback                      // a fallback answered: Err (what it replaced)
	EventLimit                         // an adaptive limit changed: From, To
	EventEvict                         // a keyed policy was forgotten: Key, Reason
	EventUnkeyed                       // a call ran without its keyed policy, as all were in use: Key
	EventChaos                         // a fault was injected: Reason
)

var eventNames = [...]string{
	"", "call", "attempt", "retry", "stop", "reject", "shadow", "state", "stale", "wait", "timeout", "abandon",
	"hedge", "win", "fallback", "limit", "evict", "unkeyed", "chaos",
}

// String returns the kind in lower case.
func (k EventKind) String() string {
	if int(k) < len(eventNames) {
		return eventNames[k]
	}
	return "unknown"
}

// Event is something that a policy or a pipeline did. Which fields are set depends on Kind. Policy, Name, Call, From, To and
// Reason have few distinct values each; Key may have as many as there are hosts or tenants.
type Event struct {
	Kind    EventKind
	Policy  string        // the kind of policy, "" for the pipeline itself
	Name    string        // the policy's name, as its Config gave it
	Call    string        // the operation's name
	Key     string        // the state key
	Attempt int           // the attempt within the call, from 1
	Elapsed time.Duration // how long it took
	Wait    time.Duration // how long until the next attempt, or until a refusal ends
	From    string        // the state before
	To      string        // the state after
	Reason  string        // in a word or a few
	Class   Class         // what the ending counted as
	Err     error         // what went wrong; may carry secrets of the function that made it
}

// Observer is told of events. It is called on the goroutine of the call, outside all locks, and must not block. ctx is that of the
// call and carries its trace; state changes come in the order in which they happened, with the context of whichever call delivers them.
// A panic in Observe is swallowed: watching must not break a call.
type Observer interface {
	Observe(ctx context.Context, e Event)
}

// ObserverFunc is a function that is an [Observer].
type ObserverFunc func(ctx context.Context, e Event)

// Observe calls f.
func (f ObserverFunc) Observe(ctx context.Context, e Event) { f(ctx, e) }

// Observers returns one that tells all of them, in order. Nil ones are left out; with none left it is nil.
func Observers(observers ...Observer) Observer {
	var all multiObserver
	for _, o := range observers {
		if o != nil {
			all = append(all, o)
		}
	}
	switch len(all) {
	case 0:
		return nil
	case 1:
		return all[0]
	}
	return all
}

type multiObserver []Observer

func (m multiObserver) Observe(ctx context.Context, e Event) {
	for _, o := range m {
		observe(ctx, o, e)
	}
}

// observe tells o of e. Observers that panic, panic for themselves.
func observe(ctx context.Context, o Observer, e Event) {
	if o == nil {
		return
	}
	defer func() { _ = recover() }()
	o.Observe(ctx, e)
}

type observerKey struct{}

// WithObserver returns a context whose next call is also watched by o. Calls made inside that call are not.
func WithObserver(ctx context.Context, o Observer) context.Context {
	if o == nil {
		return ctx
	}
	return context.WithValue(ctx, observerKey{}, o)
}

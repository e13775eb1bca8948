package backstay

import (
	"context"
	"time"

	"github.com/backstay-go/backstay/internal/tap"
)

// EventKind says what happened.
type EventKind uint8

const (
	EventCall     EventKind = iota + 1 // a call ended: Elapsed, Attempt (how many were made), Class, Status, Err
	EventAttempt                       // an attempt ended: Elapsed, Class, Status, Err, Reason ("first", "retry", "hedge")
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
	Status  uint16        // the number of the answer's status, such as HTTP's 404; 0: none
	Err     error         // what went wrong; may carry secrets of the function that made it
}

// Observer is told of events. It is called on the goroutine of the call, outside all locks, and must not block. ctx is that of the
// call and carries its trace; state changes come in the order in which they happened, with the context of whichever call delivers them.
// A panic in Observe is swallowed: watching must not break a call.
type Observer interface {
	Observe(ctx context.Context, e Event)
}

// Enabler is the optional ability of an [Observer] to say that it would do nothing with the events of a call, as one for metrics where nothing
// collects them. A [Pipeline] asks once, before each call; a call that nobody watches makes no events and costs nothing more.
type Enabler interface {
	// Enabled reports whether the events of the call with this context are wanted. It is called for every call, so it must be quick.
	Enabled(ctx context.Context) bool
}

// ObserverFunc is a function that is an [Observer].
type ObserverFunc func(ctx context.Context, e Event)

// Observe calls f.
func (f ObserverFunc) Observe(ctx context.Context, e Event) { f(ctx, e) }

// Observers returns one that tells all of them, in order. Nil ones are left out; with none left it is nil.
func Observers(observers ...Observer) Observer {
	var all Observer
	for _, o := range observers {
		all = beside(all, o)
	}
	return all
}

// beside returns an observer that tells both, each of which may be nil.
func beside(first, second Observer) Observer {
	switch {
	case first == nil:
		return second
	case second == nil:
		return first
	}
	return &bothObservers{first, second}
}

// bothObservers is two of them. More are one inside the other: two are the rule, made for each call whose context has an observer, and this is one allocation.
type bothObservers struct{ first, second Observer }

func (b *bothObservers) Observe(ctx context.Context, e Event) {
	observe(ctx, b.first, &e)
	observe(ctx, b.second, &e)
}

// Enabled reports whether one of them wants events.
func (b *bothObservers) Enabled(ctx context.Context) bool {
	return wants(ctx, b.first) || wants(ctx, b.second)
}

func wants(ctx context.Context, o Observer) bool {
	e, ok := o.(Enabler)
	return !ok || e.Enabled(ctx)
}

// observe tells o of e. Observers that panic, panic for themselves.
func observe(ctx context.Context, o Observer, e *Event) {
	defer func() { _ = recover() }()
	o.Observe(ctx, *e)
}

// WithObserver returns a context whose next call is also watched by o, besides those that ctx has already. Calls made inside that call are not.
func WithObserver(ctx context.Context, o Observer) context.Context {
	if o == nil {
		return ctx
	}
	if outer, ok := ctx.Value(tap.Key{}).(Observer); ok {
		o = beside(outer, o)
	}
	return context.WithValue(ctx, tap.Key{}, o)
}

package outbox

import (
	"context"
	"errors"
	"time"
)

// Publisher hands messages to a broker. Its duties:
//
//  1. Publish writes result[i] for every batch[i] before it returns: nil when the broker has confirmed the message, else why not. A confirmation
//     that reads "duplicate" is a success. len(result) == len(batch), and the relay hands it over filled with [ErrNoResult].
//  2. It sends the whole batch before it waits, so that a batch costs one round trip and not len(batch).
//  3. It returns when ctx is over, at the latest; the relay always sets a deadline. What was sent and not confirmed by then is
//     [UnknownOutcome]. The deadline is the only way in which the relay ends a running Publish.
//  4. Unless KeepsKeyOrder reports true, a batch holds at most one message of each key, and the order within it means nothing. See [KeyOrderer].
//  5. It sends Message.ID in the place where the broker deduplicates, if it has one, so that a repetition is recognised.
//  6. It may be called by several goroutines at once. It does not change the messages and keeps none of them.
//  7. Errors hold no payload and no header's value.
type Publisher interface {
	Publish(ctx context.Context, batch []*Message, result []error)
}

// PublisherFunc is a function as a [Publisher].
type PublisherFunc func(ctx context.Context, batch []*Message, result []error)

// Publish calls f.
func (f PublisherFunc) Publish(ctx context.Context, batch []*Message, result []error) {
	f(ctx, batch, result)
}

// KeyOrderer is what a [Publisher] may also be. When KeepsKeyOrder reports true, batches hold runs: several messages of a key, in order,
// adjacent or not. Such a publisher promises that when a message of a key fails, every later message of that key in the batch fails too and
// is not appended by the broker, so that the run can be repeated from the failed one.
// It is asked once, when the relay starts.
type KeyOrderer interface{ KeepsKeyOrder() bool }

// Checker is what a [Publisher] may also be. Run calls Check once before the relay takes any partition; its error ends Run, unless it is marked with
// [Unavailable] or comes at the end of ctx (a lease, 5 s at the least): that, a broker away just now, is only logged. Check is given the horizon within which a message may be published again, the
// lease and the longest backoff; a broker whose window of duplicates is shorter will not recognise every repetition, which is worth
// an error marked with [Unavailable], since messages flow all the same.
type Checker interface {
	Check(ctx context.Context, horizon time.Duration) error
}

// The marks that a publisher puts on an error. Unmarked errors count as an attempt at the message: after RelayConfig.MaxAttempts
// of them it is treated as poison.
var (
	// ErrNoResult is what Publish finds in result; left there, it counts as [ErrUnknownOutcome].
	ErrNoResult = errors.New("outbox: the publisher gave no result")
	// ErrPermanent marks a message that the broker will never take. It is poison at once.
	ErrPermanent = errors.New("outbox: refused for good")
	// ErrTooLarge marks a message larger than the broker (at publication) or [Limits] (at enqueue) allow. It is poison at once.
	ErrTooLarge = errors.New("outbox: too large")
	// ErrUnknownOutcome marks a message that may or may not have been taken. It is published again, with the same id, and never counts as
	// an attempt that makes it poison.
	ErrUnknownOutcome = errors.New("outbox: outcome unknown")
	// ErrUnavailable marks a failure that says nothing about the message: no connection, no such stream yet, no leader.
	// It was not taken. It is published again and never counts as an attempt that makes it poison.
	ErrUnavailable = errors.New("outbox: broker unavailable")
)

// ErrSourceUnavailable marks an error of a [SourceChecker] that may pass: the database is away, or starting up.
var ErrSourceUnavailable = errors.New("outbox: database unavailable")

// SourceUnavailable marks err with [ErrSourceUnavailable]. Nil stays nil, as in the other marks.
func SourceUnavailable(err error) error { return mark(ErrSourceUnavailable, err) }

// Permanent marks err with [ErrPermanent]. Nil stays nil, as in the other marks; the text and the chain of err are kept.
func Permanent(err error) error { return mark(ErrPermanent, err) }

// TooLarge marks err with [ErrTooLarge].
func TooLarge(err error) error { return mark(ErrTooLarge, err) }

// UnknownOutcome marks err with [ErrUnknownOutcome].
func UnknownOutcome(err error) error { return mark(ErrUnknownOutcome, err) }

// Unavailable marks err with [ErrUnavailable].
func Unavailable(err error) error { return mark(ErrUnavailable, err) }

type marked struct{ mark, err error }

func mark(m, err error) error {
	if err == nil {
		return nil
	}
	return &marked{m, err}
}

func (e *marked) Error() string   { return e.mark.Error() + ": " + e.err.Error() }
func (e *marked) Unwrap() []error { return []error{e.mark, e.err} }

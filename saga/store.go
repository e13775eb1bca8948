package saga

import (
	"context"
	"errors"
	"time"
)

// Starter makes new instances. The engine is one (the instance runs here at once), a [Store] is
// one (its own transaction; any engine picks the instance up), and so is a store bound to the
// caller's transaction (sagasql's store.Tx(tx)), which must do all its work through that
// transaction and nothing else: the instance exists exactly when the caller commits.
type Starter interface {
	// Start makes one instance for each element of batch, in one transaction, and answers in the
	// same order. An instance whose (Tenant, Def, Key) exists already is not made: its Started
	// says so, with the input hash found, and the others are made all the same. Two concurrent
	// starts of one key make one instance, also within one batch; the loser sees the winner's. It must not leave the
	// caller's transaction failed when a key exists (PostgreSQL: ON CONFLICT DO NOTHING, never a
	// caught duplicate-key error).
	Start(ctx context.Context, batch []NewInstance) ([]Started, error)
}

// Store keeps sagas. The contract, in numbered duties; sagatest.TestStore checks each of them.
//
//  1. Time is the store's. Whatever is compared with a lease, a wake-up or a deadline comes from
//     the database's clock, never from the caller's; callers pass durations. Pulse.Now and
//     Claimed.Now carry that clock back, so that an engine can convert.
//  2. A node (Node: an id that an engine makes anew for every life of its lease) has a lease
//     that Beat creates and renews. A node whose lease is over may be declared dead by any Claim;
//     it stays dead: a later Beat of it answers Lost, a later Start under it makes an unowned
//     instance. A dead node must be remembered for as long as runs can still appear under it (a
//     transaction begun before its death may commit after it).
//  3. A live instance has at most one owner. Claim hands out an instance only when it has no
//     owner and its wake-up is due, or its owner is dead; the same statement raises its epoch by
//     one. Concurrent Claims are disjoint and do not wait for each other.
//  4. A checkpoint is written whole or not at all, and only if the run's epoch is the
//     checkpoint's and the run's last log number is Log[0].Seq-1 (or, with an empty Log, Seq).
//     Otherwise its Committed.Err is ErrFenced and nothing of it is written. The fence is the
//     first statement that touches the run, so that it locks the row and excludes a takeover.
//  5. One bad record does not fail the others of its batch: each has its own Committed.Err. The
//     error beside the results is for the batch as a whole (connection lost, context over) and
//     leaves it unknown whether any of it was written.
//  6. Commit is repeatable. A checkpoint whose last log number is already in the log under the
//     checkpoint's epoch was written before: it is reported as written, and not written twice.
//     That is how an engine resolves a commit whose outcome it never heard.
//  7. A checkpoint with a terminal State also deletes the run and releases the instance's locks,
//     in the same commit. A parked instance keeps its locks.
//  8. Mail is never lost and never read twice. Every Deliver raises the run's mail counter;
//     Committed.Mail and Claimed.Mail carry it. A checkpoint that releases the run with a
//     wake-up, made with Seen below the run's counter, is due at once instead. Mail brings a
//     waiting run's wake-up forward to now, except when the run is parked.
//  9. Start, Claim, Commit and Beat cost one round trip each, or as near to it as the database
//     allows, however large the batch; Claim does not slow down with the number of finished,
//     sleeping or parked instances.
//  10. Data, Note and Input are opaque and may hold any byte. Names (Def, Step, Event, Actor, Node,
//     Tenant, Key) are valid UTF-8 without NUL, at most 255 bytes.
//
// A store is safe for concurrent use. Its further abilities are the interfaces below; a full
// store has them all. Errors that are not in this package's family are taken for transient.
//
// Speed comes from what the engine does with this: it keeps the state of the instances that it
// owns, so that no step costs a read or a claim; each step costs one Checkpoint, which holds the
// step's result, the intents of what may run next, and for the last step the completion; a single
// goroutine commits whatever checkpoints it finds waiting (at most 256, no timer).
type Store interface {
	Starter
	// Claim hands out due instances of the wanted definitions, oldest wake-up first; among four
	// times Max due ones those of higher priority first. With ID set it takes that one instance,
	// due or not, whatever its definition: ErrBusy when a live node other than Node owns it,
	// ErrNotFound, ErrTerminal.
	Claim(ctx context.Context, want Claim) ([]Claimed, error)
	// Commit writes checkpoints; the answer has the same order. The batch and its logs are the caller's again once it returns:
	// a store that keeps entries copies them.
	Commit(ctx context.Context, batch []Checkpoint) ([]Committed, error)
	// Beat makes or renews the node's lease, or with TTL 0 ends it: then its runs become due for
	// others at once.
	Beat(ctx context.Context, beat Beat) (Pulse, error)
}

// Reader is the ability to look at instances. Pages go by key, not by offset.
type Reader interface {
	// Get reports one instance, or ErrNotFound.
	Get(ctx context.Context, id string) (Instance, error)
	// Find reports the instance of a business key, or ErrNotFound.
	Find(ctx context.Context, tenant, def, key string) (Instance, error)
	// List reports instances in ascending order of ID (which is the order of creation), those
	// after f.After, at most f.Limit.
	List(ctx context.Context, f Filter) ([]Instance, error)
	// History reports the log after number after, in order, at most limit entries.
	History(ctx context.Context, id string, after int64, limit int) ([]Entry, error)
}

// Mailbox is the ability to send signals and requests to instances.
type Mailbox interface {
	// Deliver keeps the mail, in one transaction that locks the run first, and reports what it
	// found there. A mail id seen before on (ID, Kind, Name) changes nothing (Delivered.Seen).
	// ErrNotFound, ErrTerminal. A run that was locked by its owner is waited for.
	Deliver(ctx context.Context, m Mail) (Delivered, error)
	// Mail reports the mail that no checkpoint has consumed yet, oldest first, and the run's
	// mail counter as of the same moment.
	Mail(ctx context.Context, id string) ([]Mail, int64, error)
}

// Keeper is the ability to keep definitions and to delete.
type Keeper interface {
	// Register keeps the shape of a definition's version; when another shape is kept for that
	// version already, it answers ErrShape and keeps the old one.
	Register(ctx context.Context, def Ref, hash string, shape []byte) error
	// Retain deletes at most limit instances that ended longer than age ago, each with its log,
	// mail and guard rows (those whose key begins with the id and a slash) in one transaction,
	// and reports how many it deleted.
	Retain(ctx context.Context, age time.Duration, limit int) (int, error)
	// Erase deletes the finished instance of a business key in the same way: ErrNotFound,
	// ErrBusy when it is still live.
	Erase(ctx context.Context, tenant, def, key string) error
}

// Transactor is the ability to run a step's body and its checkpoint in one transaction of the
// business database: the way of TxStep. A definition with such steps runs only on a store whose
// TxKind is theirs; see [BindTx].
type Transactor interface {
	// TxKind names the type of transaction that bodies get, such as "database/sql".
	TxKind() string
	// InTx begins a transaction, runs the fence of duty 4 for (at.ID, at.Epoch, at.Seq) as its
	// first statement, calls body, writes the checkpoint that body returns and commits.
	//
	// When body fails, everything is rolled back and InTx returns body's error as it is. When the
	// fence fails, body is not called and InTx returns ErrFenced. When the commit's outcome is
	// unknown, InTx finds it out by reading the log under the epoch on another connection, and
	// answers ErrUnknown only when it cannot; it never assumes failure. A serialization failure
	// or a deadlock rolls back and is reported as ErrRolledBack: the engine calls InTx again and
	// does not charge the step's attempts, up to ten times in a row.
	InTx(ctx context.Context, at Fence, body func(Tx) (Checkpoint, error)) (Committed, error)
}

// Tx is what a Transactor hands to the body of a step.
type Tx struct {
	// Handle is the transaction in the store's own type, such as *sql.Tx.
	Handle any
	// Lock takes a semantic lock within the transaction: see Locker.
	Lock func(ctx context.Context, resource string) error
}

// Fence names the position from which a checkpoint continues.
type Fence struct {
	ID    string
	Epoch int64
	Seq   int64 // last log number
}

// Locker is the ability to take semantic locks for an instance.
type Locker interface {
	// Lock makes the instance the holder of resource until it ends, under the epoch of at, in a
	// commit of its own. Taking a lock again is no error; ErrLocked when another instance holds
	// it, ErrFenced when the epoch is over.
	Lock(ctx context.Context, at Fence, resource string) error
}

// Listener is the ability to hear of due instances without polling.
type Listener interface {
	// Listen calls wake whenever instances may have become due, until ctx ends. It may call it
	// too often; what it misses, polling finds.
	Listen(ctx context.Context, wake func()) error
}

// Hinter is a Listener that hears more: of what is about to become due, and of mail for running instances. An engine prefers it
// to Listener.
type Hinter interface {
	// Hints calls hint until ctx ends or hearing fails; then the engine calls again after a while. The first call of hint says that hearing has
	// begun. Hints may come too often, twice and too late; what is missed, polling and beats find. hint does not block.
	Hints(ctx context.Context, hint func(Hint)) error
}

// Hint says what may have happened in the store. The zero Hint: instances may have become due.
type Hint struct {
	// Soon: not yet, but when a transaction ends that is going to commit about now.
	Soon bool
	// Mail names an instance that got mail: it has become due, or its owner is to look.
	Mail string
}

// Errors of stores. They wrap none and are compared with errors.Is.
var (
	// ErrFenced says that the instance is another owner's by now. Nothing was written; what the
	// body did may have had effect, and the new owner repeats it under the same key.
	ErrFenced = errors.New("saga: fenced: the instance has another owner")
	// ErrNotFound says that there is no such instance. Nothing was done.
	ErrNotFound = errors.New("saga: no such instance")
	// ErrTerminal says that the instance has ended. Nothing was done.
	ErrTerminal = errors.New("saga: the instance has ended")
	// ErrBusy says that the instance is live and cannot be taken or erased now. Nothing was done.
	ErrBusy = errors.New("saga: the instance is live")
	// ErrLocked says that another instance holds the semantic lock. Nothing was done; safe to
	// repeat.
	ErrLocked = errors.New("saga: resource locked by another instance")
	// ErrShape says that another shape is registered for this version of the definition.
	ErrShape = errors.New("saga: this version is registered with another shape")
	// ErrRolledBack says that the database undid the transaction for reasons of its own.
	// Nothing was written; safe to repeat.
	ErrRolledBack = errors.New("saga: transaction rolled back by the database")
	// ErrUnknown says that it could not be found out whether a commit took place. It is safe to
	// ask again, not to assume either way.
	ErrUnknown = errors.New("saga: outcome of the commit is unknown")
)

package outbox

import (
	"context"
	"time"
)

// Source is a store as a [Relay] sees it. Stores come from their own packages (box.Source(db)); this interface is for whoever writes another
// one, and outboxtest.TestStore says whether it is right. Its duties:
//
//  1. A message belongs to one of a fixed number of partitions, [PartitionOf] its key, and carries a sequence number that rises within a key in the order in
//     which serialised writers enqueued. Numbers may appear late (an older number after a newer one) and leave gaps.
//  2. A partition has at most one owner at a time by the database's clock. Every change of owner raises its epoch; every change
//     of its dead letters from outside raises its generation.
//  3. Read takes no locks and no transaction outlives a call.
//  4. Calls may come from several goroutines at once. An error leaves nothing done, or (a lost commit) is settled by the relay's
//     calling again: every call may be repeated.
type Source interface {
	// Lease renews, releases and claims, with the database's clock. It should leave no lock behind when its client dies in the middle. A call that its
	// client has given up may still be carried out, late: it must neither shorten what a later one has renewed, nor give back what a
	// later one has claimed, and Held names only what is held for TTL from the call at the least.
	Lease(ctx context.Context, r LeaseRequest) (Leases, error)
	// Read appends the next rows of each span to rows, in order of their sequence numbers within a partition.
	Read(ctx context.Context, spans []Span, limit int, rows []Row) ([]Row, error)
	// Settle deletes what is done and, fenced by the leases given, records attempts and parks.
	Settle(ctx context.Context, s Settlement) (Settled, error)
	// Tend moves up to limit messages that have come due into the outbox, and purges dead letters older than keep (none when
	// keep ≤ 0). Any relay may call it for all partitions.
	Tend(ctx context.Context, limit int, keep time.Duration) (Tended, error)
}

// Listener is what a [Source] may also be: one that can tell of new messages before the next poll. Listen blocks until ctx is over or the connection
// breaks; the relay calls it again after a pause. ready is called when listening works, hint for each hint heard: committed says that a message
// is there now, else one is about to be.
type Listener interface {
	Listen(ctx context.Context, ready func(), hint func(committed bool)) error
}

// WriterWatcher is what a [Source] may also be: one that knows of the transactions that have enqueued and not yet ended. The relay then starts its
// readings below what they may hold, however long they stay open. Without it, or while it fails with [errors.ErrUnsupported], a message whose
// transaction stays open for longer than RelayConfig.Lag may be overtaken by a later one of its key.
type WriterWatcher interface {
	// OldestWriter returns for how long, at the most, a transaction that is open when it is called has held a message; 0 when none has one.
	OldestWriter(ctx context.Context) (time.Duration, error)
}

// SourceChecker is what a [Source] may also be. Run calls Check first and ends with its error: no tables, a newer schema, too few connections. With an
// error that wraps [ErrSourceUnavailable], and when it has not answered by the end of its context (a lease, 5 s at the least), it is called again, after
// pauses that grow to RelayConfig.MaxBackoff.
type SourceChecker interface {
	Check(ctx context.Context) error
}

// Lease is the right to publish one partition.
type Lease struct {
	Part  int
	Epoch int64 // raised by every change of owner
	Gen   int64 // raised by every replay or discard of dead letters
}

// LeaseRequest is what a relay asks for.
type LeaseRequest struct {
	Relay   string        // the id of this run, unique among all relays
	TTL     time.Duration // how long the leases and the membership are to hold from now, by the database's clock
	Held    []Lease       // held until now: renewed if owner and epoch still agree
	Release []Lease       // to give back, where the epoch still agrees; not in Held
	Leave   bool          // give back everything and forget the relay; Held is ignored
}

// Leases is what a relay got.
type Leases struct {
	Held    []Held
	Share   int       // the partitions that this relay should hold: an equal part, the remainder spread over the first by id
	Relays  int       // relays alive, this one included
	Parts   int       // partitions in all
	Orphans int       // partitions without owner for more than twice the TTL
	Now     time.Time // the database's clock
}

// Held is one lease got. Parked and Attempts are filled when the lease is new or its generation differs from the one asked with.
type Held struct {
	Lease
	Parked   []string      // keys with dead letters that hold back the rest of their key
	Attempts map[int64]int // counted attempts by sequence number
}

// Span is where to read a partition: from the number From, which is included.
type Span struct {
	Part int
	From int64
}

// Row is one message read.
type Row struct {
	Message Message
	Part    int
}

// Settlement is what has become of messages.
type Settlement struct {
	Relay string
	Done  []Done
	Tries []Try
	Parks []Park
}

// Done names confirmed (or expired) messages of a partition, to delete. It is not fenced: what the broker has confirmed is done, whoever owns the partition.
type Done struct {
	Part  int
	Seqs  []int64
	Tried []int64 // those of Seqs that have counted attempts on record, to delete as well
}

// Try records a counted attempt. Fenced.
type Try struct {
	Lease    Lease
	Seq      int64
	Attempts int
	Error    string // without payload and header values
}

// Park moves messages of a partition to the dead letters. Fenced.
type Park struct {
	Lease    Lease
	Seqs     []int64 // rising
	Reason   string
	Attempts int
	Holds    bool // later messages of the same key wait with them
}

// Settled says what Settle did.
type Settled struct {
	Deleted int   // rows of Done that were still there
	Fenced  []int // partitions whose Tries or Parks were refused, since epoch or generation have moved on
}

// Tended says what Tend did.
type Tended struct {
	Due    int           // messages moved
	Next   time.Duration // until the next one comes due; negative: none is waiting
	Purged int           // dead letters deleted
}

// PartitionOf returns the partition of a key among n: FNV-1a of 32 bits modulo n. It is stored data's
// meaning and will never change. The empty key has no partition of its own; stores spread it.
func PartitionOf(key string, n int) int {
	h := uint32(2166136261)
	for i := range len(key) {
		h ^= uint32(key[i])
		h *= 16777619
	}
	return int(h % uint32(n))
}

// Share returns how many of n partitions the relay should hold, given the ids of all that are alive, its own among them: an equal part, and
// the remainder one each to the first by id. For authors of stores.
func Share(n int, alive []string, relay string) int {
	rank := 0
	for _, id := range alive {
		if id < relay {
			rank++
		}
	}
	share := n / len(alive)
	if rank < n%len(alive) {
		share++
	}
	return share
}

package outboxtest

import (
	"context"
	"testing"
	"time"

	"github.com/backstay-go/backstay/outbox"
)

// StoreTx is a transaction of a store under test.
type StoreTx interface {
	Enqueue(ctx context.Context, messages ...outbox.Message) error
	Commit() error
	Rollback() error
}

// Store is a store under test: an empty outbox of at least 4 partitions, of which nobody else knows.
type Store struct {
	Source outbox.Source
	Parts  int // its partitions
	// Begin starts a transaction.
	Begin func(ctx context.Context) (StoreTx, error)
	// DeadLetters, Replay and Discard are the store's own.
	DeadLetters     func(ctx context.Context, f outbox.DeadFilter) ([]outbox.DeadLetter, error)
	Replay, Discard func(ctx context.Context, f outbox.DeadFilter) (int, error)
	// OneWriter says that transactions cannot overlap, so that cases in which they do are left out.
	OneWriter bool
}

type storeRule struct {
	name, duty string
	test       func(*testing.T, Store)
}

var storeRules = []storeRule{
	{"Commit", "What was enqueued is read after the commit, whole, and not before.", testCommit},
	{"Rollback", "What was rolled back is never read.", testRollback},
	{"Order", "Numbers rise in the order of the arguments, over calls and over any number of messages in one call.", testOrder},
	{"Late", "A transaction that commits late, with an older number, is found by a read from that number on (duty 1).", testLate},
	{"Refuses", "A bad message is refused with an InvalidError and nothing is written.", testRefuses},
	{"Read", "Read gives at most limit rows of each span, in order, from the number given on.", testRead},
	{"Delete", "Settle deletes exactly the numbers given and counts them; a repetition deletes none.", testDelete},
	{"Lease", "A partition has one owner; a second relay gets its share after the first lets go, with a higher epoch (duty 2).", testLease},
	{"LateRelease", "What is given back is named with its epoch, so that a late call does not give back what was claimed since.", testLateRelease},
	{"Expiry", "A lease that is not renewed is another's after its time, by the database's clock.", testExpiry},
	{"Leave", "A relay that leaves frees its partitions at once and counts no more.", testLeave},
	{"Fence", "Attempts and dead letters of a relay that has lost its lease are refused and change nothing (duty 2).", testFence},
	{"Park", "Parking moves messages to the dead letters; the next owner knows the keys that they hold and the attempts.", testPark},
	{"Replay", "A replay brings a key back whole, with its old numbers, and makes the former generation's writes be refused.", testReplay},
	{"Discard", "Discarded dead letters are gone and hold nothing back.", testDiscard},
	{"Scheduled", "A message that is not due is not read; Tend moves it when it is, and says when to look again.", testScheduled},
	{"Gauges", "A source that tells how full it is counts what waits, what is scheduled and what is dead, and how old the oldest is.", testGauges},
	{"Bytes", "Payloads, headers, keys and times come back as they were.", testBytes},
}

// TestStore checks a store against the duties of [outbox.Source], each as a subtest that says what it checks. open returns a new, empty store
// each time.
func TestStore(t *testing.T, open func(t *testing.T) Store) {
	for _, r := range storeRules {
		t.Run(r.name, func(t *testing.T) {
			t.Cleanup(func() {
				if t.Failed() {
					t.Logf("the rule: %s", r.duty)
				}
			})
			r.test(t, open(t))
		})
	}
}

// enqueue commits messages in a transaction of their own.
func (s Store) enqueue(t *testing.T, messages ...outbox.Message) {
	t.Helper()
	tx := s.begin(t)
	if err := tx.Enqueue(t.Context(), messages...); err != nil {
		t.Fatalf("Enqueue: %v", err)
	}
	if err := tx.Commit(); err != nil {
		t.Fatalf("Commit: %v", err)
	}
}

func (s Store) begin(t *testing.T) StoreTx {
	t.Helper()
	tx, err := s.Begin(t.Context())
	if err != nil {
		t.Fatalf("Begin: %v", err)
	}
	return tx
}

// all reads everything, without a limit that matters.
func (s Store) all(t *testing.T) []outbox.Row {
	t.Helper()
	spans := make([]outbox.Span, s.Parts)
	for i := range spans {
		spans[i].Part = i
	}
	rows, err := s.Source.Read(t.Context(), spans, 1_000_000, nil)
	if err != nil {
		t.Fatalf("Read: %v", err)
	}
	return rows
}

func (s Store) lease(t *testing.T, r outbox.LeaseRequest) outbox.Leases {
	t.Helper()
	if r.TTL == 0 {
		r.TTL = time.Minute
	}
	got, err := s.Source.Lease(t.Context(), r)
	if err != nil {
		t.Fatalf("Lease: %v", err)
	}
	return got
}

func (s Store) settle(t *testing.T, st outbox.Settlement) outbox.Settled {
	t.Helper()
	got, err := s.Source.Settle(t.Context(), st)
	if err != nil {
		t.Fatalf("Settle: %v", err)
	}
	return got
}

// held returns the lease of a partition, which must be there.
func held(t *testing.T, l outbox.Leases, part int) outbox.Held {
	t.Helper()
	for _, h := range l.Held {
		if h.Part == part {
			return h
		}
	}
	t.Fatalf("partition %d is not held; held are %v", part, l.Held)
	return outbox.Held{}
}

func leasesOf(l outbox.Leases) []outbox.Lease {
	var out []outbox.Lease
	for _, h := range l.Held {
		out = append(out, h.Lease)
	}
	return out
}

// until asks cond, which takes a while to come true by the database's clock, until a deadline.
func until(t *testing.T, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 20 s: %s", what)
		}
		<-tick.C
	}
}

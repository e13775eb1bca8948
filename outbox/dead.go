package outbox

import (
	"errors"
	"time"
)

// DeadLetter is a message that was taken out of the flow.
type DeadLetter struct {
	Message
	Part     int
	Reason   string // of the last failure, or why it waits behind one
	Attempts int
	Holds    bool // later messages of its key wait with it
	Parked   time.Time
}

// DeadFilter selects dead letters: those that match every field set. The zero value selects all.
type DeadFilter struct {
	ID    string // one message
	Topic string
	Key   string
	From  int64 // from this sequence number
	To    int64 // up to this sequence number, included; 0: no end
	Limit int   // at most so many, the oldest first; 0: all. Listing only
}

// Match reports whether d is selected. Limit is not looked at.
func (f DeadFilter) Match(d *DeadLetter) bool {
	return (f.ID == "" || d.ID == f.ID) && (f.Topic == "" || d.Topic == f.Topic) && (f.Key == "" || d.Key == f.Key) &&
		d.Seq >= f.From && (f.To == 0 || d.Seq <= f.To)
}

// Errors of stores.
var (
	// ErrNotTx is what an enqueue outside a transaction returns: the message would not share the fate of the business rows. Nothing was written.
	ErrNotTx = errors.New("outbox: not a transaction")
	// ErrPartitions is what a box or a relay returns that was configured for another number of partitions than its tables were made
	// for. Nothing was written, nothing is read.
	ErrPartitions = errors.New("outbox: wrong number of partitions")
	// ErrConnections is what a relay returns at start when its pool has too few connections for the renewal of its leases not to
	// wait for its other work.
	ErrConnections = errors.New("outbox: too few connections")
)

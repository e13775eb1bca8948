package saga

import "time"

// State is where an instance stands.
type State string

// The states. Those after ParkedUndo are terminal.
const (
	Ready        State = "ready"        // started, no worker has had it yet
	Running      State = "running"      // going forward
	Waiting      State = "waiting"      // for a signal or a timer
	Compensating State = "compensating" // undoing, in reverse
	ParkedFwd    State = "parked-fwd"   // stuck going forward: an operator decides
	ParkedUndo   State = "parked-undo"  // an undo failed for good: an operator decides
	Completed    State = "completed"    // every step done
	Compensated  State = "compensated"  // every intended step undone
	Resolved     State = "resolved"     // closed by an operator
)

// Terminal reports whether the instance has ended.
func (s State) Terminal() bool { return s == Completed || s == Compensated || s == Resolved }

// Parked reports whether the instance waits for an operator.
func (s State) Parked() bool { return s == ParkedFwd || s == ParkedUndo }

// Ref names a version of a definition.
type Ref struct {
	Def string `json:"def"`
	Ver int    `json:"ver"`
}

// Forever, as a wake-up, means that only mail or an operator brings the instance back.
const Forever time.Duration = -1

// NewInstance is an instance to be made.
type NewInstance struct {
	ID       string // UUIDv7
	Ref      Ref
	Tenant   string        // may be empty
	Key      string        // business key, unique within (Tenant, Ref.Def)
	Hash     string        // of the input, hex
	Input    []byte        // encoded
	Codec    string        // name of the codec that made Input, Data and Note
	Priority int           // higher first among due instances
	Deadline time.Duration // from now; 0: none
	Log      []Entry       // one entry, number 1: the start, with the first intents
	// Node, if set and not dead, owns the instance from the start, with epoch 1: State is
	// Running, and the node runs it without a claim. Otherwise the instance is Ready, without an
	// owner, due now, with epoch 0.
	Node string
}

// Started answers a NewInstance.
type Started struct {
	ID       string    // of the instance that exists now
	Existing bool      // it existed before; the fields below are as found
	Hash     string    // its input hash
	Owned    bool      // it was made under NewInstance.Node
	Now      time.Time // the store's clock
}

// Claim asks for instances.
type Claim struct {
	Node string // the claiming node; must have a lease
	Refs []Ref  // definitions that the node can run
	Max  int    // at most so many
	// ID takes this one instance, whether due or not and without regard to Refs. A node may take
	// what it owns already: the epoch is raised and the log read, which is how it finds its way
	// after a commit whose outcome it cannot learn. With an empty Node, for an operator, the epoch
	// is raised and the instance stays without an owner, its state and wake-up unchanged: the
	// taker's checkpoint is then fenced if anybody claims in between.
	ID string
}

// Claimed is an instance handed out, with all that is needed to go on.
type Claimed struct {
	Instance
	Epoch int64
	Input []byte
	Codec string
	Log   []Entry // whole, in order
	Inbox []Mail  // not yet consumed, oldest first
	Mail  int64   // the run's mail counter
	Now   time.Time
}

// Checkpoint moves an instance forward.
type Checkpoint struct {
	ID    string
	Epoch int64
	Seq   int64   // last log number before this checkpoint
	Log   []Entry // numbered Seq+1, Seq+2, …; may be empty (then only owner and wake-up change)
	State State
	Step  string // where it stands, for lists
	Pivot bool   // the pivot is done: no way back
	// Consume lists mail that this checkpoint reads, for good.
	Consume []MailKey
	Seen    int64 // the mail counter that the engine knew when it made this checkpoint
	// Release gives the run back: no owner, due after Wake (0: now; Forever: parked, or waiting
	// without a time limit). Without it the node keeps the run. Ignored for terminal states.
	Release bool
	Wake    time.Duration
}

// Committed answers a Checkpoint.
type Committed struct {
	Err  error // nil, ErrFenced, or what the database said about this record
	Mail int64 // the run's mail counter after the commit
}

// Beat makes, renews or ends the lease of a node.
type Beat struct {
	Node string
	TTL  time.Duration // 0: end it
}

// Pulse answers a Beat.
type Pulse struct {
	Lost bool      // the node is dead: nothing that it holds is its own any more
	Mail []string  // instances of this node that got mail since its last beat; may name too many
	Now  time.Time // the store's clock
}

// Event says what an Entry records.
type Event string

// The events. What a reader needs to know of each stands beside it.
const (
	EventStart      Event = "start"       // Next: the first intents; Data: the trace context of the caller, if there was one
	EventDone       Event = "done"        // the action (or undo) of Step ended well; Data: its output
	EventRetry      Event = "retry"       // an attempt failed, another follows after Delay; Note: error
	EventFailed     Event = "failed"      // the action of Step failed for good; Note: error
	EventRecovered  Event = "recovered"   // a new owner; Next: what it does again
	EventParked     Event = "parked"      // Step waits for an operator; Note: why
	EventCancel     Event = "cancel"      // a request was accepted; Actor, Note: reason
	EventDeadline   Event = "deadline"    // the deadline passed and was accepted
	EventRefused    Event = "refused"     // a cancel or deadline came after the pivot
	EventNoted      Event = "noted"       // a cancel or deadline was recorded and changed nothing yet
	EventUndoFailed Event = "undo-failed" // the undo of Step failed for good; Note: error
	EventOperator   Event = "operator"    // Data: the value given; Verb, Actor, Note: reason
)

// Op is the direction of a step's body.
type Op string

// The directions.
const (
	Action Op = "action"
	Undo   Op = "compensate"
)

// Entry is one line of an instance's log.
type Entry struct {
	Seq     int64         `json:"seq"`
	Epoch   int64         `json:"epoch"` // that of the checkpoint that wrote it
	Event   Event         `json:"event"`
	Step    string        `json:"step,omitempty"` // path, such as "ship[3]/pack"
	Op      Op            `json:"op,omitempty"`
	Verb    string        `json:"verb,omitempty"` // of an operator; also "no-effect" on a failure that had none
	Attempt int           `json:"attempt,omitempty"`
	Data    []byte        `json:"data,omitempty"` // encoded output
	Note    []byte        `json:"note,omitempty"` // encoded text
	Actor   string        `json:"actor,omitempty"`
	Delay   time.Duration `json:"delay,omitempty"`
	// Next lists the intents: the bodies that may have begun once this entry is durable. A store
	// keeps the strings in order and does not read them; they hold no newline. See [ParseIntent].
	Next []string  `json:"next,omitempty"`
	At   time.Time `json:"at"` // the store's clock, set by the store
}

// Mail is a signal or a request to an instance.
type Mail struct {
	ID string // of the instance
	MailKey
	Data  []byte // encoded
	Actor string
}

// MailKey tells the mail of one instance apart.
type MailKey struct {
	Kind MailKind
	Name string // of the signal; empty for a cancel
	Mail string // the sender's id for it
}

// MailKind is a signal or a request.
type MailKind string

// The kinds of mail.
const (
	MailSignal MailKind = "signal"
	MailCancel MailKind = "cancel"
)

// Delivered answers a Mail: the instance as it was at that moment.
type Delivered struct {
	Seen  bool // this mail had come before
	State State
	Pivot bool
}

// Instance is what lists and look-ups show.
type Instance struct {
	ID       string    `json:"id"`
	Ref      Ref       `json:"ref"`
	Tenant   string    `json:"tenant,omitempty"`
	Key      string    `json:"key"`
	State    State     `json:"state"`
	Step     string    `json:"step,omitempty"`
	Pivot    bool      `json:"pivot,omitempty"`
	Priority int       `json:"priority,omitempty"`
	Owner    string    `json:"owner,omitempty"` // node
	Created  time.Time `json:"created"`
	Ended    time.Time `json:"ended,omitzero"`
	Wake     time.Time `json:"wake,omitzero"`     // zero: none
	Deadline time.Time `json:"deadline,omitzero"` // zero: none
}

// Filter selects instances. The zero Filter selects all.
type Filter struct {
	Tenant string        // empty: all
	Ref    Ref           // Def empty: all; Ver 0: all versions
	States []State       // empty: all
	Step   string        // empty: all
	Older  time.Duration // made at least so long ago
	// Except selects live instances whose definition is none of these: nobody here can run them.
	Except []Ref
	After  string // last ID of the page before
	Limit  int    // 0: 100; at most 1,000
}

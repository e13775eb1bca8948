package natspub

import (
	"strconv"
	"strings"
	"sync"

	"github.com/nats-io/nats.go"
)

// acks is the reply side of a Publisher: one wildcard subscription on an inbox of its own. The reply subject of a message ends in
// the number of its batch and its place there.
//
// jetstream's PublishMsgAsync offers the same in general form. It keeps a timer for each message, publishes again by itself after
// a missing stream (which moves a message behind its successors), and refuses with "stalled" when many messages wait. Here a
// batch has one deadline, nothing is published twice unasked, and nothing is left behind after close.
type acks struct {
	prefix string
	sub    *nats.Subscription

	mu      sync.Mutex
	next    uint64
	flights map[uint64]*flight // guarded by mu
}

// flight is one batch between its first send and its last answer.
type flight struct {
	number uint64
	done   chan struct{} // closed when left reaches zero

	mu     sync.Mutex // guards the rest; taken after acks.mu has been released
	left   int
	result []error // errPending until settled
}

func newAcks(nc *nats.Conn) (*acks, error) {
	a := &acks{prefix: nc.NewInbox() + ".", flights: make(map[uint64]*flight)}
	sub, err := nc.Subscribe(a.prefix+"*.*", a.answer)
	if err != nil {
		return nil, err
	}
	// An answer dropped by a slow reader would be a message published twice.
	if err := sub.SetPendingLimits(-1, -1); err != nil {
		_ = sub.Unsubscribe()
		return nil, err
	}
	a.sub = sub
	return a, nil
}

// begin opens a flight of n messages, and holds it open until release.
func (a *acks) begin(n int) *flight {
	f := &flight{done: make(chan struct{}), left: n + 1, result: make([]error, n)}
	for i := range f.result {
		f.result[i] = errPending
	}
	a.mu.Lock()
	a.next++
	f.number = a.next
	a.flights[f.number] = f
	a.mu.Unlock()
	return f
}

// end closes the flight to further answers and copies what is known; messages without an answer get missing.
func (a *acks) end(f *flight, result []error, missing error) {
	a.mu.Lock()
	delete(a.flights, f.number)
	a.mu.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, err := range f.result {
		if err == errPending {
			err = missing
		}
		result[i] = err
	}
}

// replyPrefix is what the reply subjects of a flight begin with; the place of the message follows.
func (a *acks) replyPrefix(f *flight) string {
	return a.prefix + strconv.FormatUint(f.number, 36) + "."
}

// answer runs on the subscription's goroutine, one message at a time.
func (a *acks) answer(m *nats.Msg) {
	number, place, ok := strings.Cut(strings.TrimPrefix(m.Subject, a.prefix), ".")
	n, err1 := strconv.ParseUint(number, 36, 64)
	i, err2 := strconv.ParseUint(place, 36, 31)
	if !ok || err1 != nil || err2 != nil {
		return
	}
	a.mu.Lock()
	f := a.flights[n]
	a.mu.Unlock()
	if f != nil && int(i) < len(f.result) {
		f.settle(int(i), readAnswer(m))
	}
}

// settle keeps the first answer for message i.
func (f *flight) settle(i int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.result[i] == errPending {
		f.result[i] = err
		f.landed()
	}
}

// release says that every message was sent or settled.
func (f *flight) release() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.landed()
}

func (f *flight) landed() {
	if f.left--; f.left == 0 {
		close(f.done)
	}
}

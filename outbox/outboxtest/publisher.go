package outboxtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/backstay-go/backstay/outbox"
)

// Broker is what [TestPublisher] needs to know of a publisher and of the broker behind it. Topic, New and Read are required; what else is
// nil or zero leaves out the cases that need it, by a skip that says so.
type Broker struct {
	// New makes a publisher. The suite closes it at the end of the case if it is an [io.Closer].
	New func(tb testing.TB) outbox.Publisher

	// Topic makes a new, empty place for messages and returns the topic that leads to it.
	Topic func(tb testing.TB) string

	// Read returns the messages of a topic in the order in which the broker holds them, as soon as there are n or none has come for
	// a while.
	Read func(tb testing.TB, topic string, n int) []*outbox.Message

	// Deduplicates says that the broker recognises an id that it has seen.
	Deduplicates bool

	// Missing is a topic that leads nowhere, without being malformed.
	Missing string

	// TooLarge is a size of payload that the broker or the publisher refuses, in bytes.
	TooLarge int

	// Cut breaks every connection to the broker and lets none come about until Mend.
	Cut, Mend func(tb testing.TB)

	// Deafen keeps the broker's answers from the publisher, though its messages still arrive, until Hear, which lets the answers through.
	Deafen, Hear func(tb testing.TB)

	// Wait bounds what takes time in a case: a publish that should succeed, a reconnection. Default 15 s.
	Wait time.Duration
}

// rule is one case of the suite, with the duty that it checks in words.
type rule struct {
	name, duty string
	test       func(*testing.T, Broker)
}

var rules = []rule{
	{"Delivers", "Every message arrives as it was: id, key, content type, headers, and a payload of any bytes.", testDelivers},
	{"Results", "Each result is written, whatever it is: ErrNoResult is not left there (duty 1).", testResults},
	{"Repeats", "A message published twice is a success twice; a broker that deduplicates holds it once (duties 1 and 5).", testRepeats},
	{"KeepsOrder", "Messages of a key arrive in order: in one batch if KeepsKeyOrder, else in one batch after the other.", testKeepsOrder},
	{"TooLarge", "A message that is too large is ErrTooLarge, and its neighbours are published.", testTooLarge},
	{"TooLargeInRun", "Behind a message of a run that fails, those of its key fail too and are not appended (KeyOrderer).", testTooLargeInRun},
	{"Missing", "Where no stream, queue or topic takes a message, it is ErrUnavailable and its neighbours are published.", testMissing},
	{"Headers", "A header's value arrives as it is or is refused; it never becomes something else.", testHeaders},
	{"Secrets", "Errors hold no payload and no header's value (duty 7).", testSecrets},
	{"Unchanged", "Messages are not changed, nor kept after Publish has returned (duty 6).", testUnchanged},
	{"Concurrent", "Several goroutines may publish at once (duty 6).", testConcurrent},
	{"Deadline", "When answers stay away, Publish returns at its deadline and every message is ErrUnknownOutcome (duty 3).", testDeadline},
	{"Reconnects", "While the broker is away nothing is a success; afterwards publishing succeeds again, unaided.", testReconnects},
	{"LostAnswer", "A connection lost before the answer is ErrUnknownOutcome; repeating loses nothing.", testLostAnswer},
	{"Closed", "After Close, Publish answers with errors and does not hang or panic.", testClosed},
}

// TestPublisher checks a publisher against the duties of [outbox.Publisher] and the optional interfaces, each as a subtest that says what it
// checks. Authors of publishers run it against their real broker.
func TestPublisher(t *testing.T, b Broker) {
	if b.New == nil || b.Topic == nil || b.Read == nil {
		t.Fatal("outboxtest: Broker.New, Topic and Read are required")
	}
	if b.Wait == 0 {
		b.Wait = 15 * time.Second
	}
	for _, r := range rules {
		t.Run(r.name, func(t *testing.T) {
			t.Cleanup(func() {
				if t.Failed() {
					t.Logf("the rule: %s", r.duty)
				}
			})
			r.test(t, b)
		})
	}
}

// open makes a publisher for one case.
func (b Broker) open(t *testing.T) outbox.Publisher {
	t.Helper()
	p := b.New(t)
	if c, ok := p.(io.Closer); ok {
		t.Cleanup(func() {
			if err := c.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
		})
	}
	return p
}

// publish calls Publish as a relay does, and checks that it keeps its deadline.
func publish(t *testing.T, p outbox.Publisher, limit time.Duration, batch ...*outbox.Message) []error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	result := make([]error, len(batch))
	for i := range result {
		result[i] = outbox.ErrNoResult
	}
	began := time.Now()
	p.Publish(ctx, batch, result)
	if late := time.Since(began) - limit; late > time.Second {
		t.Errorf("Publish returned %v after its deadline", late)
	}
	for i, err := range result {
		if errors.Is(err, outbox.ErrNoResult) {
			t.Errorf("result[%d]: got ErrNoResult, want a result", i)
		}
	}
	return result
}

// mustPublish publishes until every message is a success, as a relay would, for as long as Wait.
func (b Broker) mustPublish(t *testing.T, p outbox.Publisher, batch ...*outbox.Message) {
	t.Helper()
	until := time.Now().Add(b.Wait)
	for len(batch) > 0 {
		var again []*outbox.Message
		var last error
		for i, err := range publish(t, p, b.Wait, batch...) {
			if err != nil {
				again, last = append(again, batch[i]), err
			}
		}
		if len(again) > 0 && time.Now().After(until) {
			t.Fatalf("%d of %d messages not published in %v, the last: %v", len(again), len(batch), b.Wait, last)
		}
		if batch = again; len(batch) > 0 {
			rest(t, 20*time.Millisecond)
		}
	}
}

func rest(t *testing.T, d time.Duration) {
	t.Helper()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.Context().Done():
	}
}

// messages makes n valid messages of different keys.
func messages(topic string, n int) []*outbox.Message {
	batch := make([]*outbox.Message, n)
	for i := range batch {
		batch[i] = &outbox.Message{
			ID: outbox.NewID(), Topic: topic, Key: fmt.Sprintf("key-%d", i), Seq: int64(i + 1), Attempt: 1,
			Payload: fmt.Appendf(nil, "payload %d", i), Created: time.Now().UTC().Truncate(time.Millisecond),
		}
	}
	return batch
}

func ids(batch []*outbox.Message) []string {
	all := make([]string, len(batch))
	for i, m := range batch {
		all[i] = m.ID
	}
	return all
}

// only fails the test unless the topic holds exactly these messages, once or more.
func (b Broker) only(t *testing.T, topic string, batch ...*outbox.Message) []*outbox.Message {
	t.Helper()
	got := b.Read(t, topic, len(batch))
	if err := CheckComplete(got, ids(batch)...); err != nil {
		t.Error(err)
	}
	return got
}

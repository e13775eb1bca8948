package outboxtest

import (
	"fmt"
	"testing"

	"github.com/backstay-go/backstay/outbox"
)

// First returns the first delivery of each message, in order, leaving repetitions out.
func First(deliveries []*outbox.Message) []*outbox.Message {
	seen := make(map[string]bool, len(deliveries))
	var first []*outbox.Message
	for _, m := range deliveries {
		if !seen[m.ID] {
			seen[m.ID] = true
			first = append(first, m)
		}
	}
	return first
}

// CheckOrder reports the first message of a key that was delivered, for the first time, before one with a lower sequence number. It is
// the order that an outbox promises; repetitions may come at any time. Messages without a key have no order.
func CheckOrder(deliveries []*outbox.Message) error {
	last := make(map[string]*outbox.Message)
	for _, m := range First(deliveries) {
		if m.Key == "" {
			continue
		}
		if before := last[m.Key]; before != nil && before.Seq >= m.Seq {
			return fmt.Errorf("outboxtest: key %q: message %q (seq %d) delivered after %q (seq %d)", m.Key, m.ID, m.Seq, before.ID, before.Seq)
		}
		last[m.Key] = m
	}
	return nil
}

// CheckComplete reports the ids that are missing among the deliveries and those that nobody asked for. Repetitions are fine.
func CheckComplete(deliveries []*outbox.Message, ids ...string) error {
	want := make(map[string]bool, len(ids))
	for _, id := range ids {
		want[id] = true
	}
	got := make(map[string]bool, len(ids))
	var missing, strange []string
	for _, m := range First(deliveries) {
		got[m.ID] = true
		if !want[m.ID] {
			strange = append(strange, m.ID)
		}
	}
	for _, id := range ids {
		if !got[id] {
			missing = append(missing, id)
		}
	}
	if missing == nil && strange == nil {
		return nil
	}
	return fmt.Errorf("outboxtest: %d missing %.5q, %d not expected %.5q", len(missing), missing, len(strange), strange)
}

// Deliveries fails the test unless every id was delivered at least once, nothing else was, and the order of each key holds.
func Deliveries(tb testing.TB, deliveries []*outbox.Message, ids ...string) {
	tb.Helper()
	if err := CheckComplete(deliveries, ids...); err != nil {
		tb.Error(err)
	}
	if err := CheckOrder(deliveries); err != nil {
		tb.Error(err)
	}
}

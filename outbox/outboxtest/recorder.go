package outboxtest

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/backstay-go/backstay/outbox"
)

// Recorder is a publisher that takes every message and keeps a copy. The zero value is ready. It is safe for concurrent use.
type Recorder struct {
	// Runs makes KeepsKeyOrder report true, so that a relay hands over runs of a key. Set it before use.
	Runs bool

	mu      sync.Mutex
	got     []*outbox.Message // guarded by mu
	changed chan struct{}     // closed and replaced at each change; guarded by mu
}

// Publish implements [outbox.Publisher].
func (r *Recorder) Publish(_ context.Context, batch []*outbox.Message, result []error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, m := range batch {
		r.got = append(r.got, m.Clone())
		result[i] = nil
	}
	if r.changed != nil {
		close(r.changed)
		r.changed = nil
	}
}

// KeepsKeyOrder implements [outbox.KeyOrderer].
func (r *Recorder) KeepsKeyOrder() bool { return r.Runs }

// Messages returns what was published so far, in order, repetitions included. The slice is the caller's, the messages are not to be changed.
func (r *Recorder) Messages() []*outbox.Message {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]*outbox.Message(nil), r.got...)
}

// Wait returns the messages as soon as there are n of them, repetitions included, or the error of ctx with how many there were.
func (r *Recorder) Wait(ctx context.Context, n int) ([]*outbox.Message, error) {
	for {
		r.mu.Lock()
		if len(r.got) >= n {
			r.mu.Unlock()
			return r.Messages(), nil
		}
		if r.changed == nil {
			r.changed = make(chan struct{})
		}
		have, changed := len(r.got), r.changed
		r.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return r.Messages(), fmt.Errorf("outboxtest: %d messages, want %d: %w", have, n, context.Cause(ctx))
		}
	}
}

// One returns the only message of a topic, repetitions not counted, and fails the test when there is none or another.
func (r *Recorder) One(tb testing.TB, topic string) *outbox.Message {
	tb.Helper()
	var found *outbox.Message
	for _, m := range r.Messages() {
		switch {
		case m.Topic != topic, found != nil && found.ID == m.ID:
		case found != nil:
			tb.Fatalf("got messages %q and %q of topic %q, want one", found.ID, m.ID, topic)
		default:
			found = m
		}
	}
	if found == nil {
		tb.Fatalf("got no message of topic %q, want one", topic)
	}
	return found
}

// None fails the test when anything was published to a topic; an empty one stands for all.
func (r *Recorder) None(tb testing.TB, topic string) {
	tb.Helper()
	for _, m := range r.Messages() {
		if topic == "" || m.Topic == topic {
			tb.Fatalf("got message %q of topic %q, want none", m.ID, m.Topic)
		}
	}
}

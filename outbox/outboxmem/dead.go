package outboxmem

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/backstay-go/backstay/outbox"
)

// DeadLetters lists the dead letters that f selects, the oldest first.
func (b *Box) DeadLetters(_ context.Context, f outbox.DeadFilter) ([]outbox.DeadLetter, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []outbox.DeadLetter
	for _, d := range b.dead {
		if f.Match(d) {
			c := *d
			c.Message = *d.Message.Clone()
			out = append(out, c)
		}
	}
	slices.SortFunc(out, func(x, y outbox.DeadLetter) int { return cmp.Compare(x.Seq, y.Seq) })
	if f.Limit > 0 && len(out) > f.Limit {
		out = out[:f.Limit]
	}
	return out, nil
}

// Replay puts the dead letters that f selects back into the flow, and returns how many. One that holds its key back takes all of its
// key with it, so that the key's order is kept.
func (b *Box) Replay(ctx context.Context, f outbox.DeadFilter) (int, error) {
	return b.take(f, true), nil
}

// Discard deletes the dead letters that f selects, and returns how many. A key flows again when none that holds it is left.
func (b *Box) Discard(ctx context.Context, f outbox.DeadFilter) (int, error) {
	return b.take(f, false), nil
}

func (b *Box) take(f outbox.DeadFilter, back bool) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	keys := map[string]bool{}
	for _, d := range b.dead {
		if back && d.Holds && f.Match(d) {
			keys[d.Key] = true
		}
	}
	n := 0
	for seq, d := range b.dead {
		if f.Match(d) || d.Holds && keys[d.Key] {
			if back {
				b.insert(&row{Enqueued: outbox.Enqueued{Message: d.Message, Part: d.Part}})
			}
			delete(b.dead, seq)
			b.leases[d.Part].gen++
			n++
		}
	}
	return n
}

// Inbox remembers which messages a consumer has handled.
type Inbox struct {
	box      *Box
	consumer string
}

// inboxCounts is what has been counted for a consumer.
type inboxCounts struct {
	outbox.InboxStats
	meter *outbox.InboxMeter
}

// Inbox returns the inbox of a consumer.
func (b *Box) Inbox(consumer string) *Inbox {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.inbox[consumer] == nil {
		b.inbox[consumer] = &inboxCounts{meter: outbox.NewInboxMeter(consumer)}
	}
	return &Inbox{b, consumer}
}

// Stats returns what has been counted for the consumer since the box was made.
func (in *Inbox) Stats() outbox.InboxStats {
	in.box.mu.Lock()
	defer in.box.mu.Unlock()
	return in.box.inbox[in.consumer].InboxStats
}

// Handle runs fn unless the consumer has handled the message, and remembers it when fn and its transaction succeed. Of two at once, one waits
// for the other. Not to run fn is no error.
func (in *Inbox) Handle(ctx context.Context, id string, fn func(*Tx) error) (err error) {
	key := [2]string{in.consumer, id}
	b := in.box
	for {
		b.mu.Lock()
		_, seen := b.seen[key]
		wait, busy := b.busy[key]
		if !seen && !busy {
			wait = make(chan struct{})
			b.busy[key] = wait
		}
		if seen {
			b.inbox[in.consumer].Duplicates++
		}
		meter := b.inbox[in.consumer].meter
		b.mu.Unlock()
		if seen {
			meter.Duplicate(ctx)
			return nil
		}
		if !busy {
			defer func() {
				b.mu.Lock()
				delete(b.busy, key)
				b.mu.Unlock()
				close(wait)
			}()
			break
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	err = b.InTx(ctx, fn)
	if err == nil {
		b.mu.Lock()
		b.seen[key] = time.Now()
		b.inbox[in.consumer].Handled++
		meter := b.inbox[in.consumer].meter
		b.mu.Unlock()
		meter.Handled(ctx)
	}
	return err
}

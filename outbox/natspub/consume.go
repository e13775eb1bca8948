package natspub

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/backstay-go/backstay/outbox/consumer"
	"github.com/nats-io/nats.go/jetstream"
)

// Consume hands the messages of a JetStream consumer to h and acknowledges each after h has returned nil, that is, after its effect
// was committed. It returns nil when ctx is over and the messages in hand are settled, otherwise the error that ended it.
//
// The JetStream consumer must have an explicit ack policy. While a message is worked on, the server is told each third of its AckWait that
// it is in progress, so that a message tried again in place is not delivered to somebody else. MaxAckPending of the consumer bounds the
// messages in hand and waiting. What is not begun when Consume ends is handed back and need not wait for AckWait; a rejected message is terminated, which
// the server reports as an advisory on $JS.EVENT.ADVISORY.CONSUMER.MSG_TERMINATED.
//
// Within one run of Consume the messages of a key are handled in order. JetStream promises no order for messages that it delivers again, so
// that after an end or a crash some may come out of turn: who cannot bear that gives the consumer a MaxAckPending of 1.
//
// A message that cannot be decoded is terminated. One without an id, that is, of another origin, gets the name of its stream and its
// number there.
func Consume(ctx context.Context, from jetstream.Consumer, c consumer.Config, h consumer.Handler) error {
	if err := c.Validate(); err != nil {
		return err
	}
	config := from.CachedInfo().Config
	if config.AckPolicy != jetstream.AckExplicitPolicy {
		return fmt.Errorf("natspub: consumer %q has ack policy %s, want explicit", config.Durable, config.AckPolicy)
	}
	every := config.AckWait / 3
	if every <= 0 {
		every = 10 * time.Second // a third of the server's default of 30 s
	}
	messages, err := from.Messages(jetstream.PullMaxMessages(prefetch))
	if err != nil {
		return err
	}
	var back handBack
	err = consumer.Run(ctx, c, h, func(ctx context.Context) (consumer.Delivery, error) {
		return next(ctx, messages, every, &back)
	})
	messages.Drain()
	for {
		msg, nextErr := messages.Next(jetstream.NextMaxWait(drainWait))
		if nextErr != nil {
			break
		}
		back.add(msg)
	}
	back.nak()
	return err
}

// handBack keeps what was not handled until the subscription has ended. A message handed back earlier would be delivered once more to the
// subscription that is about to end, be lost there until its AckWait has passed, and be overtaken by its successors.
type handBack struct {
	mu   sync.Mutex
	msgs []jetstream.Msg // guarded by mu
}

func (b *handBack) add(msg jetstream.Msg) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.msgs = append(b.msgs, msg)
}

// nak hands everything back, in the order of the stream.
func (b *handBack) nak() {
	b.mu.Lock()
	defer b.mu.Unlock()
	place := func(m jetstream.Msg) uint64 {
		if meta, err := m.Metadata(); err == nil {
			return meta.Sequence.Stream
		}
		return 0
	}
	slices.SortStableFunc(b.msgs, func(x, y jetstream.Msg) int { return cmp.Compare(place(x), place(y)) })
	for _, m := range b.msgs {
		_ = m.NakWithDelay(backDelay)
	}
}

// backDelay is not zero because the server mostly delivers messages whose delay has passed in the order of the stream, whereas a plain
// nak that finds no reader goes behind the ones that follow it (seen with nats-server 2.15.2).
const backDelay = time.Millisecond

const (
	prefetch  = 128
	drainWait = time.Second
)

func next(ctx context.Context, messages jetstream.MessagesContext, every time.Duration, back *handBack) (consumer.Delivery, error) {
	for {
		msg, err := messages.Next(jetstream.NextContext(ctx))
		switch {
		case errors.Is(err, jetstream.ErrNoHeartbeat): // a pause of the server; the next request is under way
			continue
		case err != nil:
			return consumer.Delivery{}, err
		}
		m, err := Decode(msg.Subject(), msg.Headers(), msg.Data())
		if err != nil {
			_ = msg.TermWithReason("not decodable")
			continue
		}
		if meta, err := msg.Metadata(); err == nil {
			if m.ID == "" {
				m.ID = fmt.Sprintf("%s:%d", meta.Stream, meta.Sequence.Stream)
			}
			if m.Created.IsZero() {
				m.Created = meta.Timestamp
			}
			m.Attempt = int(meta.NumDelivered)
		}
		return consumer.Delivery{
			Message: m,
			Every:   every,
			Extend:  func() { _ = msg.InProgress() },
			Settle:  func(v consumer.Verdict) { settle(msg, v, back) },
		}, nil
	}
}

// settle drops errors: a lost acknowledgement is a delivery more, which the inbox recognises.
func settle(msg jetstream.Msg, v consumer.Verdict, back *handBack) {
	switch v {
	case consumer.Done:
		_ = msg.Ack()
	case consumer.Rejected:
		_ = msg.TermWithReason("rejected")
	default:
		back.add(msg)
	}
}

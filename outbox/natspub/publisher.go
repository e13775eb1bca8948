// Package natspub publishes the messages of an outbox to NATS JetStream, and consumes them with an acknowledgement after commit.
//
// # What it needs from the broker
//
// A stream (nats-server 2.9 or later) that takes each subject, with storage on disk if messages shall outlive the server, and with a
// duplicate window (2 minutes by default) longer than the relay's lease and backoff together: within it a repeated message is
// recognised by its id and stored once. Later repetitions are the consumer's inbox's to recognise. A stream that limits its size should have
// discard policy "new": with "old" it drops the oldest messages silently.
//
// The connection is the caller's and is not closed. It should be made with nats.MaxReconnects(-1): the client's default gives up for ever after
// 60 attempts.
//
// # Order
//
// A batch holds one message of a key at most, so that messages of a key are sent one after another, each after the confirmation of the
// one before. Order is not left to the stream, which would store a second message though it refused the first.
//
// # Outcomes
//
//	confirmation, "duplicate" included     success
//	no stream takes the subject            ErrNoStream, outbox.ErrUnavailable: not stored
//	refusal with a code of 500 or above    *APIError, outbox.ErrUnavailable: stream full, no leader; not stored
//	larger than the server or stream takes outbox.ErrTooLarge: not stored
//	other refusal                          *APIError: not stored, counts as an attempt
//	no connection                          ErrDisconnected, outbox.ErrUnavailable: not sent
//	connection lost, deadline passed       outbox.ErrUnknownOutcome
//	bad subject, header that is an order   outbox.ErrPermanent: not sent
package natspub

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/cloudevents"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Config says how messages become JetStream messages. The zero value works.
type Config struct {
	// Topics are those that the service publishes to. [Publisher.Check] asks the server whether a stream takes each. Default: none
	// are checked.
	Topics []string `json:"topics,omitempty"`

	// Subject maps a message to its subject. Default: the topic as it is.
	Subject func(*outbox.Message) string `json:"-"`

	// AckWait bounds the wait for the confirmations of a batch, apart from the context's deadline. Default 5 s, the client's own default;
	// negative: the context's deadline alone.
	AckWait time.Duration `json:"ackWait,omitempty"`

	// Events writes messages as CloudEvents. Default: the message's id in Nats-Msg-Id, its key in Backstay-Key, its content type
	// in Content-Type.
	Events *cloudevents.Codec `json:"-"`
}

// Publisher is an [outbox.Publisher] and an [outbox.Checker]. It is safe for concurrent use.
type Publisher struct {
	js     jetstream.JetStream
	config Config

	mu     sync.Mutex
	acks   *acks // nil until the first Publish; guarded by mu
	closed bool  // guarded by mu
}

var (
	_ outbox.Publisher = (*Publisher)(nil)
	_ outbox.Checker   = (*Publisher)(nil)
)

// Validate reports every fault of the configuration, joined.
func (c Config) Validate() error {
	var errs []error
	for i, topic := range c.Topics {
		if topic == "" {
			errs = append(errs, fmt.Errorf("natspub: Topics[%d] is empty", i))
		}
	}
	return errors.Join(errs...)
}

// New returns a publisher on the connection of js. It does no I/O. It panics with [Config.Validate]'s error, and when js is nil.
// At most one Config may be given.
func New(js jetstream.JetStream, config ...Config) *Publisher {
	var c Config
	if len(config) > 0 {
		c = config[0]
	}
	if len(config) > 1 {
		panic(errors.New("natspub: more than one Config"))
	}
	if err := c.Validate(); err != nil {
		panic(err)
	}
	if js == nil {
		panic(errors.New("natspub: the JetStream is nil"))
	}
	if c.AckWait == 0 {
		c.AckWait = 5 * time.Second
	}
	return &Publisher{js: js, config: c}
}

// Publish implements [outbox.Publisher]. It sends the batch and then waits for all confirmations, until ctx is over, AckWait has passed
// or the connection is lost.
func (p *Publisher) Publish(ctx context.Context, batch []*outbox.Message, result []error) {
	nc := p.js.Conn()
	lost := nc.StatusChanged(nats.RECONNECTING, nats.CLOSED) // before the look, so that no loss falls between
	defer nc.RemoveStatusListener(lost)
	// While it reconnects, the client would keep messages and send them at some later time, perhaps after another relay
	// has moved on. They are better kept where they are.
	if err := usable(nc); err != nil {
		fill(result, err)
		return
	}
	a, err := p.open(nc)
	if err != nil {
		fill(result, err)
		return
	}
	if p.config.AckWait > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, p.config.AckWait)
		defer cancel()
	}
	f := a.begin(len(batch))
	p.send(nc, a, f, batch)
	select {
	case <-f.done:
		a.end(f, result, nil)
	case <-lost:
		a.end(f, result, outbox.UnknownOutcome(ErrDisconnected))
	case <-ctx.Done():
		a.end(f, result, outbox.UnknownOutcome(errors.Join(ErrNoAnswer, context.Cause(ctx))))
	}
}

func (p *Publisher) send(nc *nats.Conn, a *acks, f *flight, batch []*outbox.Message) {
	defer f.release()
	prefix := a.replyPrefix(f)
	for i, m := range batch {
		msg, err := p.encode(m)
		if err == nil {
			msg.Reply = prefix + strconv.FormatUint(uint64(i), 36)
			if err = nc.PublishMsg(msg); err == nil {
				continue
			}
			err = sendError(err)
		}
		f.settle(i, err)
	}
}

func usable(nc *nats.Conn) error {
	switch status := nc.Status(); status {
	case nats.CONNECTED:
		return nil
	case nats.CLOSED, nats.DRAINING_PUBS, nats.DRAINING_SUBS:
		return outbox.Unavailable(ErrClosed)
	default:
		return outbox.Unavailable(fmt.Errorf("%w (%s)", ErrDisconnected, status))
	}
}

func (p *Publisher) open(nc *nats.Conn) (*acks, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, outbox.Unavailable(ErrClosed)
	}
	if p.acks == nil {
		a, err := newAcks(nc)
		if err != nil {
			return nil, sendError(err)
		}
		p.acks = a
	}
	return p.acks, nil
}

func fill(result []error, err error) {
	for i := range result {
		result[i] = err
	}
}

// Close ends the publisher's subscription; batches under way get no more confirmations. Later calls of Publish fail with [ErrClosed].
// The connection stays open. Close may be called more than once.
func (p *Publisher) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	if p.acks == nil {
		return nil
	}
	a := p.acks
	p.acks = nil
	if err := a.sub.Unsubscribe(); err != nil && !errors.Is(err, nats.ErrConnectionClosed) {
		return err
	}
	return nil
}

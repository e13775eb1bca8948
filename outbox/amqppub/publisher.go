// Package amqppub publishes the messages of an outbox to RabbitMQ with publisher confirms, and consumes them with an acknowledgement after
// commit.
//
// # What it needs from the broker
//
// RabbitMQ 3.8 or later, or an AMQP 0-9-1 broker with publisher confirms. A durable queue, best a quorum queue, must be bound before
// messages flow: publishing is mandatory, and a message that no queue takes is a failure, not a success. Nothing is declared here. With the default
// exchange the topic is the name of the queue.
//
// The publisher makes its own connection from Config.URL when it is first used, makes a new one when that is lost, and closes it in
// Close. Messages are persistent.
//
// # Order
//
// A batch holds one message of a key at most, sent over one channel and confirmed before the next batch of that key. RabbitMQ has no deduplication by
// message id: a repeated message is stored twice, for the consumer's inbox to recognise by its MessageId.
//
// # Outcomes
//
//	confirmed, not returned                  success
//	returned as unroutable, then confirmed   ErrUnroutable, outbox.ErrUnavailable: in no queue
//	refused (nack): queue full, or its fault ErrRefused, outbox.ErrUnavailable; outbox.ErrUnknownOutcome through an exchange, which may have
//	                                         reached some of its queues
//	exchange missing                         ErrNoExchange, outbox.ErrUnavailable: not stored
//	no connection, memory or disk alarm      outbox.ErrUnavailable: not sent
//	connection lost, deadline passed         outbox.ErrUnknownOutcome
//	larger than Config.MaxMessage            outbox.ErrTooLarge: not sent
package amqppub

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/cloudevents"
	amqp "github.com/rabbitmq/amqp091-go"
)

// Config says where the broker is and how messages become AMQP messages. URL is required.
type Config struct {
	// URL is the broker's address, "amqp://user:password@host:5672/vhost", or amqps for TLS. It is left out of JSON and
	// of errors, since it holds a password.
	URL string `json:"-"`

	// TLS is used with amqps. Nil: as the URL's parameters say.
	TLS *tls.Config `json:"-"`

	// Exchange to publish to. Default: the default exchange, which takes the routing key as the name of a queue.
	Exchange string `json:"exchange,omitempty"`

	// RoutingKey maps a message to its routing key, at most 255 bytes. Default: the topic.
	RoutingKey func(*outbox.Message) string `json:"-"`

	// Queues are those that [Publisher.Check] looks for. Default: none.
	Queues []string `json:"queues,omitempty"`

	// MaxMessage is the largest payload, in bytes. Default 16 MiB, RabbitMQ 4's own limit; a broker that says a lower one is believed.
	MaxMessage int `json:"maxMessage,omitempty"`

	// Wait bounds dialling, one write to the connection, and the wait for a batch's confirms. Default 5 s. The context's
	// deadline applies besides.
	Wait time.Duration `json:"wait,omitempty"`

	// Heartbeat after which a silent broker counts as lost. Default 10 s, the client's own.
	Heartbeat time.Duration `json:"heartbeat,omitempty"`

	// Name shows in the broker's list of connections. Default "backstay outbox".
	Name string `json:"name,omitempty"`

	// Events writes messages as CloudEvents. Default: the message's id, content type and time in the properties of those names, its
	// key in the header backstay-key.
	Events *cloudevents.Codec `json:"-"`
}

// Validate reports every fault of the configuration, joined. It shows nothing of the URL.
func (c Config) Validate() error {
	var errs []error
	if _, err := amqp.ParseURI(c.URL); err != nil {
		errs = append(errs, errors.New("amqppub: URL is not an AMQP address"))
	}
	if len(c.Exchange) > 255 {
		errs = append(errs, fmt.Errorf("amqppub: Exchange has %d bytes, want 255 at most", len(c.Exchange)))
	}
	if c.MaxMessage < 0 {
		errs = append(errs, fmt.Errorf("amqppub: MaxMessage is %d, want 0 (default) or more", c.MaxMessage))
	}
	if c.Wait < 0 {
		errs = append(errs, fmt.Errorf("amqppub: Wait is %v, want 0 (default) or more", c.Wait))
	}
	if c.Heartbeat < 0 {
		errs = append(errs, fmt.Errorf("amqppub: Heartbeat is %v, want 0 (default) or more", c.Heartbeat))
	}
	return errors.Join(errs...)
}

func (c Config) withDefaults() Config {
	if c.MaxMessage == 0 {
		c.MaxMessage = 16 << 20
	}
	if c.Wait == 0 {
		c.Wait = 5 * time.Second
	}
	if c.Heartbeat == 0 {
		c.Heartbeat = 10 * time.Second
	}
	if c.Name == "" {
		c.Name = "backstay outbox"
	}
	return c
}

// Publisher is an [outbox.Publisher] and an [outbox.Checker]. It is safe for concurrent use. It must be closed.
type Publisher struct {
	config  Config
	largest atomic.Int64 // MaxMessage, or less when the broker said so

	dialling chan struct{} // holds a token; who has it may replace session

	mu      sync.Mutex
	session *session // nil when there is none; guarded by mu
	closed  bool     // guarded by mu

	closing sync.WaitGroup // lost sessions on their way out
}

var (
	_ outbox.Publisher = (*Publisher)(nil)
	_ outbox.Checker   = (*Publisher)(nil)
)

// New returns a publisher. It does no I/O. It panics with [Config.Validate]'s error.
func New(c Config) *Publisher {
	if err := c.Validate(); err != nil {
		panic(err)
	}
	p := &Publisher{config: c.withDefaults(), dialling: make(chan struct{}, 1)}
	p.largest.Store(int64(p.config.MaxMessage))
	p.dialling <- struct{}{}
	return p
}

// Publish implements [outbox.Publisher]. It sends the batch and then waits for all confirms, until ctx is over, Wait has passed or
// the connection is lost.
func (p *Publisher) Publish(ctx context.Context, batch []*outbox.Message, result []error) {
	ctx, cancel := context.WithTimeoutCause(ctx, p.config.Wait, ErrNoConfirm)
	defer cancel()
	s, err := p.connect(ctx)
	if err == nil {
		err = s.usable()
	}
	if err != nil {
		for i := range result {
			result[i] = err
		}
		return
	}
	f := &flight{result: result, done: make(chan struct{}), left: len(batch) + 1}
	p.send(ctx, s, f, batch)
	select {
	case <-f.done:
	case <-ctx.Done():
		s.giveUp(f, outbox.UnknownOutcome(context.Cause(ctx)))
	}
}

// send writes the batch to the channel, one message behind the other; other batches wait for their turn.
func (p *Publisher) send(ctx context.Context, s *session, f *flight, batch []*outbox.Message) {
	defer s.settleOne(f)
	rest := func(from int, err error) {
		for i := from; i < len(batch); i++ {
			s.settle(f, i, err)
		}
	}
	select {
	case <-s.turn:
		defer func() { s.turn <- struct{}{} }()
	case <-ctx.Done():
		rest(0, outbox.Unavailable(context.Cause(ctx)))
		return
	}
	// A blocked write ends with the context. It costs the connection, since half a frame may be on its way.
	defer context.AfterFunc(ctx, s.socket.cut)()
	for i, m := range batch {
		if ctx.Err() != nil {
			rest(i, outbox.Unavailable(context.Cause(ctx)))
			return
		}
		key, msg, err := p.encode(m)
		if err != nil {
			s.settle(f, i, err)
			continue
		}
		if err := s.publish(f, i, p.config.Exchange, key, msg); err != nil {
			rest(i+1, outbox.Unavailable(err))
			return
		}
	}
}

// Close ends the connection and waits for the goroutine that reads it. Batches under way end with unknown outcomes; later calls of
// Publish fail with [ErrClosed]. Close may be called more than once. It takes at most Wait.
func (p *Publisher) Close() error {
	p.mu.Lock()
	s := p.session
	p.session, p.closed = nil, true
	p.mu.Unlock()
	defer p.closing.Wait()
	if s == nil {
		return nil
	}
	return s.close(p.config.Wait)
}

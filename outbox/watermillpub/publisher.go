// Package watermillpub publishes the messages of an outbox through any publisher of Watermill, and so to the brokers for which Backstay has no
// package of its own.
//
// # What it needs
//
// A Watermill publisher that returns only when the broker has confirmed; some have to be configured for it. Of what lies behind
// it nothing can be known, and nothing is checked at start. A message becomes a message.Message with the id as its UUID, the headers as metadata, and
// the key and content type in metadata under [MetadataKey] and [MetadataContentType]; a marshaler that routes by key finds it there.
//
// Watermill's Publish takes no context and gives one error for all of its messages, without saying which were sent. So each message is
// published by a call of its own, Config.Concurrency calls at a time; any error is an unknown outcome unless Config.Judge knows
// better; and a call that does not return by the deadline is left running, at most Concurrency of them: while they run, further messages are
// refused unsent.
package watermillpub

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/backstay-go/backstay/outbox"
)

// The names under which metadata carries what Watermill's message has no place for.
const (
	MetadataKey         = "backstay_key"
	MetadataContentType = "content_type"
)

var (
	// ErrBusy says that as many calls of the Watermill publisher as allowed were running until the deadline. The message was not sent.
	ErrBusy = errors.New("watermillpub: too many calls have not returned")

	// ErrNoReturn says that the call had not returned by the deadline.
	ErrNoReturn = errors.New("watermillpub: the publisher has not returned")

	// ErrClosed says that the publisher was closed. The message was not sent.
	ErrClosed = errors.New("watermillpub: closed")
)

// Config says how messages become Watermill messages. The zero value works.
type Config struct {
	// Topic maps a message to its topic. Default: the topic as it is.
	Topic func(*outbox.Message) string `json:"-"`

	// Concurrency is the largest number of calls at a time, 1 to 4096. Default 32.
	Concurrency int `json:"concurrency,omitempty"`

	// Judge marks an error of the Watermill publisher with what it means, as [outbox.Unavailable] and the other marks do; an
	// unmarked error counts as an attempt. Nil: every error is an unknown outcome.
	Judge func(error) error `json:"-"`
}

// Validate reports every fault of the configuration, joined.
func (c Config) Validate() error {
	if c.Concurrency < 0 || c.Concurrency > 4096 {
		return fmt.Errorf("watermillpub: Concurrency is %d, want 0 (default) to 4096", c.Concurrency)
	}
	return nil
}

// Publisher is an [outbox.Publisher]. It is safe for concurrent use. It must be closed.
type Publisher struct {
	next   message.Publisher
	config Config
	slots  chan struct{} // one token for each call that may begin

	mu      sync.Mutex
	closed  bool           // guarded by mu
	running sync.WaitGroup // added to under mu while not closed
}

var _ outbox.Publisher = (*Publisher)(nil)

// New returns a publisher that publishes through next, and closes it in Close. It panics with [Config.Validate]'s error, and when
// next is nil.
// At most one Config may be given.
func New(next message.Publisher, config ...Config) *Publisher {
	var c Config
	if len(config) > 0 {
		c = config[0]
	}
	if len(config) > 1 {
		panic(errors.New("watermillpub: more than one Config"))
	}
	if err := c.Validate(); err != nil {
		panic(err)
	}
	if next == nil {
		panic(errors.New("watermillpub: the publisher is nil"))
	}
	if c.Concurrency == 0 {
		c.Concurrency = 32
	}
	p := &Publisher{next: next, config: c, slots: make(chan struct{}, c.Concurrency)}
	for range c.Concurrency {
		p.slots <- struct{}{}
	}
	return p
}

// Publish implements [outbox.Publisher].
func (p *Publisher) Publish(ctx context.Context, batch []*outbox.Message, result []error) {
	type answer struct {
		index int
		err   error
	}
	answers := make(chan answer, len(batch)) // so that a late call can end though nobody reads
	under := 0
	for i, m := range batch {
		if err := p.begin(ctx); err != nil {
			result[i] = err
			continue
		}
		topic, msg := p.encode(ctx, m)
		result[i] = outbox.UnknownOutcome(ErrNoReturn)
		under++
		go func() {
			defer p.running.Done()
			defer func() { p.slots <- struct{}{} }()
			answers <- answer{i, p.judge(p.next.Publish(topic, msg))}
		}()
	}
	for range under {
		select {
		case a := <-answers:
			result[a.index] = a.err
		case <-ctx.Done():
			return
		}
	}
}

// begin takes a slot.
func (p *Publisher) begin(ctx context.Context) error {
	select {
	case <-p.slots:
	case <-ctx.Done():
		return outbox.Unavailable(ErrBusy)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		p.slots <- struct{}{}
		return outbox.Unavailable(ErrClosed)
	}
	p.running.Add(1)
	return nil
}

// encode copies, because the call may outlive the batch.
func (p *Publisher) encode(ctx context.Context, m *outbox.Message) (string, *message.Message) {
	topic := m.Topic
	if p.config.Topic != nil {
		topic = p.config.Topic(m)
	}
	msg := message.NewMessage(m.ID, append(make([]byte, 0, len(m.Payload)), m.Payload...))
	for name, value := range m.Headers {
		msg.Metadata.Set(name, value)
	}
	if m.Key != "" {
		msg.Metadata.Set(MetadataKey, m.Key)
	}
	if m.ContentType != "" {
		msg.Metadata.Set(MetadataContentType, m.ContentType)
	}
	msg.SetContext(ctx) // some publishers look at its deadline
	return topic, msg
}

func (p *Publisher) judge(err error) error {
	switch {
	case err == nil:
		return nil
	case p.config.Judge != nil:
		return p.config.Judge(err)
	}
	return outbox.UnknownOutcome(err)
}

// Close closes the Watermill publisher and waits for the calls that are still running. Calls of Publish that come later fail with
// [ErrClosed].
func (p *Publisher) Close() error {
	p.mu.Lock()
	closed := p.closed
	p.closed = true
	p.mu.Unlock()
	var err error
	if !closed {
		err = p.next.Close()
	}
	p.running.Wait()
	return err
}

// Decode reads a message that a [Publisher] wrote. The payload is not copied.
func Decode(topic string, msg *message.Message) *outbox.Message {
	m := &outbox.Message{ID: msg.UUID, Topic: topic, Payload: msg.Payload}
	for name, value := range msg.Metadata {
		switch name {
		case MetadataKey:
			m.Key = value
		case MetadataContentType:
			m.ContentType = value
		default:
			if m.Headers == nil {
				m.Headers = make(map[string]string, len(msg.Metadata))
			}
			m.Headers[name] = value
		}
	}
	return m
}

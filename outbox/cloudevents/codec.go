// Package cloudevents gives messages of an outbox the shape of CloudEvents 1.0 in binary mode: the payload is the event's data as it is,
// and the event's attributes travel in the headers of whatever carries it. Publishers take a [Codec] in their configuration.
//
// # Attributes
//
//	specversion      "1.0"
//	id               Message.ID
//	source           Config.Source
//	type             Config.Type, by default Message.Topic
//	subject          Config.Subject, by default left out
//	time             Message.Created
//	datacontenttype  Message.ContentType, in the place that the protocol has for it
//	partitionkey     Message.Key (partitioning extension)
//	sequence         Message.Seq in 19 digits, so that text order is number order (sequence extension)
//	expirytime       Message.ExpiresAt (expirytime extension)
//	traceparent, tracestate   from the message's headers (distributed tracing extension)
//
// Attributes without a value are left out. Other headers of the message travel beside the attributes, unchanged.
//
// # Protocols
//
// The prefix of an attribute's name and the encoding of its value differ: "ce-" with percent-encoding over HTTP and NATS, "ce_" over
// Kafka and "cloudEvents_" over AMQP with plain UTF-8. Structured and batched mode are left out: they copy the payload and, unless it is JSON,
// blow it up by a third.
package cloudevents

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"time"

	"github.com/backstay-go/backstay/outbox"
)

// The prefixes of attribute names in the protocol bindings of CloudEvents 1.0.
const (
	HTTP  = "ce-"          // HTTP, and NATS; values are percent-encoded, see [Encode]
	Kafka = "ce_"          // values are plain UTF-8
	AMQP  = "cloudEvents_" // the binding's form for clients that cannot write a colon; values are plain UTF-8
)

// Config says what the events of one service are called.
type Config struct {
	// Source names the service that the events come from: a URI reference, not empty. Required. Together with the id it is
	// unique among all events.
	Source string `json:"source"`

	// Type names the kind of event, such as "com.example.order.created". Nil: the topic. An empty answer is a message that cannot
	// be published.
	Type func(*outbox.Message) string `json:"-"`

	// Subject names what the event is about. Nil or an empty answer: none.
	Subject func(*outbox.Message) string `json:"-"`
}

// Validate reports every fault of the configuration, joined.
func (c Config) Validate() error {
	if c.Source == "" {
		return errors.New("cloudevents: Source is empty, want a URI reference such as \"/orders\"")
	}
	if _, err := url.Parse(c.Source); err != nil || !plainText(c.Source) {
		return fmt.Errorf("cloudevents: Source %q is not a URI reference", c.Source)
	}
	return nil
}

// Codec writes the attributes of messages. It has no state and may be used by any number of goroutines.
type Codec struct {
	config Config
}

// New returns a codec. It panics with [Config.Validate]'s error.
func New(c Config) *Codec {
	if err := c.Validate(); err != nil {
		panic(err)
	}
	return &Codec{config: c}
}

// Attribute is one attribute of an event, without a prefix.
type Attribute struct{ Name, Value string }

// Attributes returns the attributes of m in the order of the table above, without datacontenttype, which each protocol carries in
// a place of its own. An error is marked [outbox.ErrPermanent]: the message has no type, or one that is not text.
func (c *Codec) Attributes(m *outbox.Message) ([]Attribute, error) {
	kind := m.Topic
	if c.config.Type != nil {
		kind = c.config.Type(m)
	}
	if kind == "" || !plainText(kind) {
		return nil, outbox.Permanent(fmt.Errorf("cloudevents: message %q has no usable type", m.ID))
	}
	a := make([]Attribute, 0, 11)
	add := func(name, value string) {
		if value != "" {
			a = append(a, Attribute{name, value})
		}
	}
	add("specversion", "1.0")
	add("id", m.ID)
	add("source", c.config.Source)
	add("type", kind)
	if c.config.Subject != nil {
		subject := c.config.Subject(m)
		if !plainText(subject) {
			return nil, outbox.Permanent(fmt.Errorf("cloudevents: message %q has no usable subject", m.ID))
		}
		add("subject", subject)
	}
	add("time", stamp(m.Created))
	add("partitionkey", m.Key)
	if m.Seq > 0 {
		add("sequence", sequence(m.Seq))
	}
	add("expirytime", stamp(m.ExpiresAt))
	add("traceparent", m.Headers["traceparent"])
	add("tracestate", m.Headers["tracestate"])
	return a, nil
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}

// sequence pads to the 19 digits of the largest int64.
func sequence(n int64) string {
	const zeros = "0000000000000000000"
	s := strconv.FormatInt(n, 10)
	return zeros[len(s):] + s
}

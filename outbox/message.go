package outbox

import (
	"maps"
	"time"
)

// Message is one event to publish. The zero value is not valid: Topic is required. A Message handed to a
// [Publisher] belongs to the relay: it may be read until Publish returns, and must be neither changed nor kept.
type Message struct {
	// ID names the message for ever: brokers and inboxes recognise a repeated delivery by it. 1–255 bytes of
	// printable ASCII. Empty: [NewID] at enqueue.
	ID string
	// Topic says where the message goes: a subject, topic, exchange and routing key, stream or path,
	// as the publisher documents. Required, at most 255 bytes of valid UTF-8 without control characters.
	Topic string
	// Key is what order is kept for: messages of one key are published in the order of their sequence numbers.
	// Empty: no order, spread over the partitions. At most 255 bytes of valid UTF-8 without control characters.
	Key string
	// Payload is opaque; nil and empty are the same.
	Payload []byte
	// Headers travel with the message. Names are HTTP tokens (RFC 9110 §5.6.2), unique without regard to case; values are
	// valid UTF-8 without control characters, except tab, and without spaces or tabs at their ends. Enqueue adds the trace context ("traceparent", "tracestate", "baggage" as
	// the propagator says) unless it is present.
	Headers map[string]string
	// ContentType is the media type of Payload. Empty: the publisher's default, usually application/octet-stream.
	ContentType string

	// NotBefore holds the message back until the database's clock reaches it. Zero: at once. A message
	// held back takes its place in its key's order when it comes due, not when it was enqueued.
	NotBefore time.Time
	// Delay is NotBefore counted from the enqueue by the database's clock, for services whose own clock is not to be
	// trusted. Only one of the two may be set. Negative is refused.
	Delay time.Duration
	// ExpiresAt drops the message, with a counter, when the database's clock has passed it before publication.
	// Zero: never.
	ExpiresAt time.Time

	// Seq is the number that the store gave the message. It rises within a key. Set by the store; ignored at enqueue.
	Seq int64
	// Created is the time of the enqueue by the database's clock. Set by the store; ignored at enqueue.
	Created time.Time
	// Attempt is 1 at the first publication that this relay knows of. Set by the relay; ignored at enqueue.
	Attempt int
}

// Clone returns a copy that shares nothing with m.
func (m *Message) Clone() *Message {
	c := *m
	if m.Payload != nil {
		c.Payload = append([]byte{}, m.Payload...)
	}
	if m.Headers != nil {
		c.Headers = make(map[string]string, len(m.Headers))
		maps.Copy(c.Headers, m.Headers)
	}
	return &c
}

// Size is what the message weighs on the wire before a broker's framing: payload, headers, key, topic and id, in bytes.
func (m *Message) Size() int {
	return len(m.Payload) + headerSize(m.Headers) + len(m.Key) + len(m.Topic) + len(m.ID) + len(m.ContentType)
}

func headerSize(h map[string]string) int {
	n := 0
	for k, v := range h {
		n += len(k) + len(v) + 4 // the separators of an HTTP header line
	}
	return n
}

package amqppub

import (
	"errors"
	"fmt"
	"strings"

	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/cloudevents"
	amqp "github.com/rabbitmq/amqp091-go"
)

const headerKey = "backstay-key" // Message.Key; absent when empty

// encode gives the message its form on the wire.
func (p *Publisher) encode(m *outbox.Message) (key string, msg amqp.Publishing, err error) {
	key = m.Topic
	if p.config.RoutingKey != nil {
		key = p.config.RoutingKey(m)
	}
	// The protocol holds these in short strings, and the client cuts or refuses a longer one.
	if len(key) > 255 || len(m.ID) > 255 || len(m.ContentType) > 255 {
		return "", msg, outbox.Permanent(fmt.Errorf("amqppub: message %.64q: routing key, id or content type over 255 bytes", m.ID))
	}
	if n, limit := int64(len(m.Payload)), p.largest.Load(); n > limit {
		return "", msg, outbox.TooLarge(fmt.Errorf("amqppub: message %q: %d bytes, limit %d", m.ID, n, limit))
	}
	headers := make(amqp.Table, len(m.Headers)+1)
	for name, value := range m.Headers {
		if len(name) > 255 {
			return "", msg, outbox.Permanent(fmt.Errorf("amqppub: message %q: a header's name has over 255 bytes", m.ID))
		}
		headers[name] = value
	}
	if p.config.Events != nil {
		attrs, err := p.config.Events.Attributes(m)
		if err != nil {
			return "", msg, err
		}
		for _, a := range attrs {
			headers[cloudevents.AMQP+a.Name] = a.Value
		}
	} else if m.Key != "" {
		headers[headerKey] = m.Key
	}
	msg = amqp.Publishing{
		Headers:      headers,
		ContentType:  m.ContentType,
		DeliveryMode: amqp.Persistent,
		MessageId:    m.ID,
		Timestamp:    m.Created, // in whole seconds; left out when zero
		Body:         m.Payload,
	}
	return key, msg, nil
}

// Decode reads a message that a [Publisher] wrote, in either form. A message of another origin is read as far as it goes: its id may be empty, and
// headers that are not text are left out. The payload is not copied.
func Decode(d *amqp.Delivery) (*outbox.Message, error) {
	m := &outbox.Message{ID: d.MessageId, Topic: d.RoutingKey, ContentType: d.ContentType, Payload: d.Body, Created: d.Timestamp}
	event := false
	for name, value := range d.Headers {
		text, ok := value.(string)
		switch {
		case !ok:
		case name == headerKey:
			m.Key = text
		case strings.HasPrefix(name, cloudevents.AMQP):
			event = true
		default:
			if m.Headers == nil {
				m.Headers = make(map[string]string, len(d.Headers))
			}
			m.Headers[name] = text
		}
	}
	if !event {
		return m, nil
	}
	e, err := cloudevents.Parse(cloudevents.AMQP, func(yield func(string, string) bool) {
		for name, value := range d.Headers {
			if text, ok := value.(string); ok && !yield(name, text) {
				return
			}
		}
	})
	switch {
	case errors.Is(err, cloudevents.ErrNotEvent): // headers that merely look like it
		return m, nil
	case err != nil:
		return nil, err
	}
	e.Onto(m)
	return m, nil
}

package kafkapub

import (
	"errors"
	"fmt"
	"strings"

	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/cloudevents"
	"github.com/twmb/franz-go/pkg/kgo"
)

// The headers of a record beside the message's own. The key is the record's key.
const (
	headerID   = "message-id"
	headerType = "content-type"
)

// encode copies: the record may outlive the message, see the package's comment on cancelling.
func (p *Publisher) encode(m *outbox.Message) (*kgo.Record, error) {
	topic := m.Topic
	if p.config.Topic != nil {
		topic = p.config.Topic(m)
	}
	if !validTopic(topic) {
		return nil, outbox.Permanent(fmt.Errorf("kafkapub: message %q: not the name of a Kafka topic", m.ID))
	}
	r := &kgo.Record{Topic: topic, Value: append(make([]byte, 0, len(m.Payload)), m.Payload...)}
	if m.Key != "" {
		r.Key = []byte(m.Key)
	}
	r.Headers = make([]kgo.RecordHeader, 0, len(m.Headers)+2)
	add := func(name, value string) {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: name, Value: []byte(value)})
	}
	if p.config.Events != nil {
		attrs, err := p.config.Events.Attributes(m)
		if err != nil {
			return nil, err
		}
		for _, a := range attrs {
			add(cloudevents.Kafka+a.Name, a.Value)
		}
	} else {
		add(headerID, m.ID)
	}
	if m.ContentType != "" {
		add(headerType, m.ContentType)
	}
	for name, value := range m.Headers {
		add(name, value)
	}
	if n, limit := weight(r), p.limits.allowed(topic); n > limit {
		return nil, outbox.TooLarge(fmt.Errorf("kafkapub: message %q: %d bytes, limit %d", m.ID, n, limit))
	}
	return r, nil
}

// validTopic is Kafka's own rule for names.
func validTopic(s string) bool {
	if s == "" || len(s) > 249 || s == "." || s == ".." {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '.' || c == '_' || c == '-') {
			return false
		}
	}
	return true
}

// Decode reads a record that a [Publisher] wrote, in either form. A record of another origin gets an id made of its topic, partition
// and offset. The payload is not copied.
func Decode(r *kgo.Record) (*outbox.Message, error) {
	m := &outbox.Message{Topic: r.Topic, Key: string(r.Key), Payload: r.Value, Created: r.Timestamp, Seq: r.Offset}
	event := false
	for i, h := range r.Headers {
		if first(r.Headers, h.Key) != i { // the first of a name is the publisher's
			continue
		}
		switch {
		case h.Key == headerID:
			m.ID = string(h.Value)
		case h.Key == headerType:
			m.ContentType = string(h.Value)
		case strings.HasPrefix(h.Key, cloudevents.Kafka):
			event = true
		default:
			if m.Headers == nil {
				m.Headers = make(map[string]string, len(r.Headers))
			}
			m.Headers[h.Key] = string(h.Value)
		}
	}
	if event {
		e, err := cloudevents.Parse(cloudevents.Kafka, func(yield func(string, string) bool) {
			for _, h := range r.Headers {
				if !yield(h.Key, string(h.Value)) {
					return
				}
			}
		})
		switch {
		case errors.Is(err, cloudevents.ErrNotEvent): // headers that merely look like it
		case err != nil:
			return nil, err
		default:
			e.Onto(m)
		}
	}
	if m.ID == "" {
		m.ID = place(r)
	}
	return m, nil
}

func place(r *kgo.Record) string { return fmt.Sprintf("%s:%d:%d", r.Topic, r.Partition, r.Offset) }

func first(headers []kgo.RecordHeader, name string) int {
	for i, h := range headers {
		if h.Key == name {
			return i
		}
	}
	return -1
}

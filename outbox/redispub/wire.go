package redispub

import (
	"fmt"
	"strings"

	"github.com/backstay-go/backstay/outbox"
	"github.com/redis/go-redis/v9"
)

// The fields of an entry. Headers follow, with headerPrefix before their names.
const (
	fieldID      = "id"
	fieldKey     = "key"          // absent when empty
	fieldType    = "content-type" // absent when empty
	fieldPayload = "payload"
	headerPrefix = "h:"
)

func (p *Publisher) encode(m *outbox.Message) (*redis.XAddArgs, error) {
	stream := m.Topic
	if p.config.Stream != nil {
		stream = p.config.Stream(m)
	}
	if stream == "" {
		return nil, outbox.Permanent(fmt.Errorf("redispub: message %q has no stream", m.ID))
	}
	if n := len(m.Payload); n > p.config.MaxMessage {
		return nil, outbox.TooLarge(fmt.Errorf("redispub: message %q: %d bytes, limit %d", m.ID, n, p.config.MaxMessage))
	}
	values := make([]any, 0, 8+2*len(m.Headers))
	values = append(values, fieldID, m.ID)
	if m.Key != "" {
		values = append(values, fieldKey, m.Key)
	}
	if m.ContentType != "" {
		values = append(values, fieldType, m.ContentType)
	}
	for name, value := range m.Headers {
		values = append(values, headerPrefix+name, value)
	}
	values = append(values, fieldPayload, m.Payload)
	args := &redis.XAddArgs{
		Stream:     stream,
		NoMkStream: p.config.Existing,
		MaxLen:     p.config.MaxLen,
		Approx:     p.config.MaxLen > 0,
		Values:     values,
	}
	if p.config.Producer != "" {
		args.ProducerID, args.IdempotentID = p.config.Producer, m.ID
	}
	return args, nil
}

// Decode reads an entry that a [Publisher] wrote. An entry of another origin gets its place in the stream as its id.
func Decode(stream string, entry redis.XMessage) *outbox.Message {
	m := &outbox.Message{ID: stream + ":" + entry.ID, Topic: stream}
	for name, value := range entry.Values {
		text, ok := value.(string)
		switch {
		case !ok:
		case name == fieldID:
			m.ID = text
		case name == fieldKey:
			m.Key = text
		case name == fieldType:
			m.ContentType = text
		case name == fieldPayload:
			m.Payload = []byte(text)
		case strings.HasPrefix(name, headerPrefix):
			if m.Headers == nil {
				m.Headers = make(map[string]string, len(entry.Values))
			}
			m.Headers[name[len(headerPrefix):]] = text
		}
	}
	return m
}

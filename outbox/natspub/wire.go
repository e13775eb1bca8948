package natspub

import (
	"errors"
	"fmt"
	"strings"

	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/cloudevents"
	"github.com/nats-io/nats.go"
)

// The headers of a message beside its own.
const (
	headerID   = "Nats-Msg-Id"  // Message.ID; the stream deduplicates by it
	headerKey  = "Backstay-Key" // Message.Key, percent-encoded; absent when empty
	headerType = "Content-Type" // Message.ContentType; absent when empty
)

// encode gives the message its form on the wire. Errors are marked [outbox.ErrPermanent].
func (p *Publisher) encode(m *outbox.Message) (*nats.Msg, error) {
	subject := m.Topic
	if p.config.Subject != nil {
		subject = p.config.Subject(m)
	}
	if !validSubject(subject) {
		return nil, outbox.Permanent(fmt.Errorf("natspub: message %q: the subject is not one to publish to", m.ID))
	}
	h := make(nats.Header, len(m.Headers)+4)
	for name, value := range m.Headers {
		if len(name) >= 5 && strings.EqualFold(name[:5], "nats-") {
			return nil, outbox.Permanent(fmt.Errorf("natspub: message %q: header %s is an order to the server", m.ID, name))
		}
		// The client turns line ends into spaces and cuts spaces off the ends: a value must arrive as it is, or not at all.
		if strings.ContainsAny(value, "\r\n\x00") || strings.Trim(value, " \t") != value {
			return nil, outbox.Permanent(fmt.Errorf("natspub: message %q: header %s cannot be carried", m.ID, name))
		}
		h[name] = []string{value}
	}
	if p.config.Events != nil {
		attrs, err := p.config.Events.Attributes(m)
		if err != nil {
			return nil, err
		}
		for _, a := range attrs {
			h[cloudevents.HTTP+a.Name] = []string{cloudevents.Encode(a.Value)}
		}
	} else if m.Key != "" {
		h[headerKey] = []string{cloudevents.Encode(m.Key)}
	}
	h[headerID] = []string{m.ID}
	if m.ContentType != "" {
		h[headerType] = []string{m.ContentType}
	}
	return &nats.Msg{Subject: subject, Header: h, Data: m.Payload}, nil
}

// validSubject refuses what the server would close the connection for, and wildcards.
func validSubject(s string) bool {
	if s == "" || s[0] == '.' || s[len(s)-1] == '.' || strings.Contains(s, "..") {
		return false
	}
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c == 0x7f || c == '*' || c == '>' {
			return false
		}
	}
	return s[0] != '$' // system and API subjects
}

// Decode reads a message that a [Publisher] wrote, in either form. A message of another origin is read as far as it goes; its id is
// then empty. The payload is not copied.
func Decode(subject string, h nats.Header, data []byte) (*outbox.Message, error) {
	m := &outbox.Message{Topic: subject, Payload: data}
	event := false
	for name, values := range h {
		if len(values) == 0 {
			continue
		}
		switch {
		case name == headerID:
			m.ID = values[0]
		case name == headerType:
			m.ContentType = values[0]
		case name == headerKey:
			key, err := cloudevents.Decode(values[0])
			if err != nil {
				return nil, fmt.Errorf("natspub: header %s: %w", headerKey, err)
			}
			m.Key = key
		case len(name) > 3 && strings.EqualFold(name[:3], cloudevents.HTTP):
			event = true
		case !strings.HasPrefix(name, "Nats-"):
			if m.Headers == nil {
				m.Headers = make(map[string]string, len(h))
			}
			m.Headers[name] = values[0]
		}
	}
	if !event {
		return m, nil
	}
	e, err := cloudevents.Parse(cloudevents.HTTP, func(yield func(string, string) bool) {
		for name, values := range h {
			for _, v := range values {
				if !yield(name, v) {
					return
				}
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

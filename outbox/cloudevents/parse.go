package cloudevents

import (
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/backstay-go/backstay/outbox"
)

// ErrNotEvent says that headers hold no event of version 1.0 of the specification.
var ErrNotEvent = errors.New("cloudevents: not an event")

// Event is what the headers of a received message say about it, apart from its data.
type Event struct {
	ID, Source, Type string    // never empty
	Subject          string    // empty when absent, as all that follows
	Time             time.Time // of the event
	Key              string    // partitionkey
	Sequence         string
	Expires          time.Time         // expirytime
	Extensions       map[string]string // every other attribute, traceparent among them; nil when there is none
}

// Parse reads the attributes from headers whose names begin with prefix ([HTTP], [Kafka] or [AMQP]), without regard to case, and
// decodes percent-encoded values where the prefix is [HTTP]. Other headers are passed over. It fails with [ErrNotEvent] when a required
// attribute is missing or an attribute is given twice, and with another error when a value is malformed.
func Parse(prefix string, headers iter.Seq2[string, string]) (Event, error) {
	var e Event
	version := ""
	seen := make(map[string]bool, 12)
	for name, value := range headers {
		if len(name) <= len(prefix) || !strings.EqualFold(name[:len(prefix)], prefix) {
			continue
		}
		name = strings.ToLower(name[len(prefix):])
		if seen[name] {
			return Event{}, fmt.Errorf("%w: %s is given twice", ErrNotEvent, name)
		}
		seen[name] = true
		if prefix == HTTP {
			decoded, err := Decode(value)
			if err != nil {
				return Event{}, fmt.Errorf("%w in %s", err, name)
			}
			value = decoded
		}
		if name == "specversion" {
			version = value
			continue
		}
		if err := e.set(name, value); err != nil {
			return Event{}, err
		}
	}
	switch {
	case version == "":
		return Event{}, fmt.Errorf("%w: no specversion", ErrNotEvent)
	case version != "1.0":
		return Event{}, fmt.Errorf("%w: specversion %.16q", ErrNotEvent, version)
	case e.ID == "" || e.Source == "" || e.Type == "":
		return Event{}, fmt.Errorf("%w: id, source and type are required", ErrNotEvent)
	}
	return e, nil
}

func (e *Event) set(name, value string) (err error) {
	switch name {
	case "id":
		e.ID = value
	case "source":
		e.Source = value
	case "type":
		e.Type = value
	case "subject":
		e.Subject = value
	case "partitionkey":
		e.Key = value
	case "sequence":
		e.Sequence = value
	case "time":
		e.Time, err = time.Parse(time.RFC3339Nano, value)
	case "expirytime":
		e.Expires, err = time.Parse(time.RFC3339Nano, value)
	default:
		if e.Extensions == nil {
			e.Extensions = make(map[string]string)
		}
		e.Extensions[name] = value
	}
	if err != nil { // without the value, which a log must not show
		return fmt.Errorf("cloudevents: %s is not a timestamp", name)
	}
	return nil
}

// Onto writes what the event says into a received message: its id, key, times, and the trace context. The id of an event is unique
// only together with its source; an inbox that several sources feed should be asked with both.
func (e Event) Onto(m *outbox.Message) {
	m.ID, m.Key, m.Created, m.ExpiresAt = e.ID, e.Key, e.Time, e.Expires
	for _, name := range [...]string{"traceparent", "tracestate"} {
		if v := e.Extensions[name]; v != "" && !has(m.Headers, name) {
			if m.Headers == nil {
				m.Headers = make(map[string]string)
			}
			m.Headers[name] = v
		}
	}
}

func has(headers map[string]string, name string) bool {
	for n := range headers {
		if strings.EqualFold(n, name) {
			return true
		}
	}
	return false
}

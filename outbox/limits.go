package outbox

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Limits bounds what may be enqueued. The zero value is the defaults, which fit the brokers' own defaults: a whole
// message of 1 MiB (NATS max_payload 1 MiB, Kafka message.max.bytes 1,048,588). A negative value means no limit.
// Topic, key and id are held at 255 bytes regardless, since they are columns of an index or of a broker's frame.
type Limits struct {
	Payload int `json:"payload,omitempty"` // bytes; default 1,015,808 (1 MiB − 32 KiB, which leaves room for headers and framing)
	Headers int `json:"headers,omitempty"` // bytes of all names and values, 4 more for each; default 16 KiB
	Count   int `json:"count,omitempty"`   // headers; default 64
}

const (
	maxName        = 255
	defaultPayload = 1<<20 - 32<<10
	defaultHeaders = 16 << 10
	defaultCount   = 64
)

// ErrInvalid is what every [*InvalidError] is. Nothing was written; the same message will be refused again.
var ErrInvalid = errors.New("outbox: invalid message")

// InvalidError says which field of a message is refused, and why. errors.Is finds [ErrInvalid], and
// [ErrTooLarge] when a limit was passed. It never holds the payload or a header's value.
type InvalidError struct {
	ID     string // of the message; empty when it had none, or a bad one
	Field  string // "topic", "key", "header traceparent", …
	Reason string
	Size   int // bytes or headers found, when a limit was passed
	Limit  int // the limit passed; 0 when none
}

func (e *InvalidError) Error() string {
	if e.Limit > 0 {
		return fmt.Sprintf("outbox: message %q: %s: %d, limit %d", e.ID, e.Field, e.Size, e.Limit)
	}
	return fmt.Sprintf("outbox: message %q: %s: %s", e.ID, e.Field, e.Reason)
}

func (e *InvalidError) Is(target error) bool {
	return target == ErrInvalid || target == ErrTooLarge && e.Limit > 0
}

// Validate reports the first fault of the message as an [*InvalidError], or nil. An empty ID is no fault: enqueue fills it.
// It does no I/O and may be called from any goroutine.
func (m *Message) Validate(l Limits) error {
	if fault := checkID(m.ID); fault != nil {
		return fault // without the id, which is the fault
	}
	fault := m.checkNames()
	if fault == nil {
		fault = m.checkSizes(l)
	}
	if fault == nil {
		fault = checkHeaders(m.Headers)
	}
	if fault == nil {
		fault = m.checkTimes()
	}
	if fault != nil {
		fault.ID = m.ID
		return fault
	}
	return nil
}

func checkID(id string) *InvalidError {
	if len(id) > maxName {
		return &InvalidError{Field: "id", Size: len(id), Limit: maxName}
	}
	for i := range len(id) {
		if id[i] < 0x21 || id[i] > 0x7e {
			return &InvalidError{Field: "id", Reason: "printable ASCII without spaces expected"}
		}
	}
	return nil
}

func (m *Message) checkNames() *InvalidError {
	if m.Topic == "" {
		return &InvalidError{Field: "topic", Reason: "empty"}
	}
	for _, f := range [...]struct{ name, value string }{{"topic", m.Topic}, {"key", m.Key}, {"content type", m.ContentType}} {
		if len(f.value) > maxName {
			return &InvalidError{Field: f.name, Size: len(f.value), Limit: maxName}
		}
		if reason := badText(f.value, false); reason != "" {
			return &InvalidError{Field: f.name, Reason: reason}
		}
		if f.name == "content type" && hasEdge(f.value) {
			return &InvalidError{Field: f.name, Reason: "space at an end"}
		}
	}
	return nil
}

func (m *Message) checkSizes(l Limits) *InvalidError {
	for _, c := range [...]struct {
		field              string
		size, limit, deflt int
	}{
		{"payload", len(m.Payload), l.Payload, defaultPayload},
		{"headers", headerSize(m.Headers), l.Headers, defaultHeaders},
		{"number of headers", len(m.Headers), l.Count, defaultCount},
	} {
		if c.limit == 0 {
			c.limit = c.deflt
		}
		if c.limit > 0 && c.size > c.limit {
			return &InvalidError{Field: c.field, Size: c.size, Limit: c.limit}
		}
	}
	return nil
}

func checkHeaders(headers map[string]string) *InvalidError {
	for name, value := range headers {
		if !isToken(name) {
			return &InvalidError{Field: "header name", Reason: "an HTTP token expected"}
		}
		if reason := badText(value, true); reason != "" {
			return &InvalidError{Field: "header " + name, Reason: reason}
		}
		if hasEdge(value) {
			return &InvalidError{Field: "header " + name, Reason: "space at an end"}
		}
	}
	if len(headers) < 2 {
		return nil
	}
	for name := range headers { // two spellings of one name would become one header on the wire
		lower := strings.ToLower(name)
		if lower == name {
			continue
		}
		for other := range headers {
			if other != name && strings.EqualFold(other, name) {
				return &InvalidError{Field: "header " + name, Reason: "given twice, in different case"}
			}
		}
	}
	return nil
}

func (m *Message) checkTimes() *InvalidError {
	switch {
	case m.Delay < 0:
		return &InvalidError{Field: "delay", Reason: "negative"}
	case m.Delay > 0 && !m.NotBefore.IsZero():
		return &InvalidError{Field: "delay", Reason: "set together with NotBefore"}
	case !m.ExpiresAt.IsZero() && !m.NotBefore.IsZero() && !m.NotBefore.Before(m.ExpiresAt):
		return &InvalidError{Field: "expires at", Reason: "not after NotBefore"}
	}
	return nil
}

// badText says what is wrong with s as one line of text; no control character survives every broker and
// log, and NUL survives not even PostgreSQL.
func badText(s string, tab bool) string {
	if !utf8.ValidString(s) {
		return "invalid UTF-8"
	}
	for i := range len(s) {
		if c := s[i]; (c < 0x20 || c == 0x7f) && !(tab && c == '\t') {
			return "control character"
		}
	}
	return ""
}

// hasEdge reports a space or tab at an end, which HTTP (RFC 9110 §5.5) and NATS cut off a header's value.
func hasEdge(s string) bool { return s != strings.Trim(s, " \t") }

func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0) {
			return false
		}
	}
	return s != ""
}

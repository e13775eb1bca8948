package natspub

import (
	"strings"
	"testing"

	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/cloudevents"
	"github.com/nats-io/nats.go"
)

// Whatever is in a message, it is either refused for good or comes back as it was, and no header has a line end, which would be another header.
func FuzzWire(f *testing.F) {
	f.Add("id", "orders.created", "key", "Name", "value", []byte("x"), false)
	f.Add("id", "a b", "k\r\n", "Nats-Rollup", "all", []byte{0, 0xff}, true)
	f.Add("", ">", "%", "x", " v\r\nInjected: 1", []byte(nil), true)
	codec := cloudevents.New(cloudevents.Config{Source: "/fuzz"})
	f.Fuzz(func(t *testing.T, id, topic, key, name, value string, payload []byte, events bool) {
		p := &Publisher{}
		if events {
			p.config.Events = codec
		}
		m := &outbox.Message{ID: id, Topic: topic, Key: key, Payload: payload, Headers: map[string]string{name: value}}
		if m.Validate(outbox.Limits{}) != nil || id == "" {
			return // enqueue refuses it
		}
		msg, err := p.encode(m)
		if err != nil {
			return
		}
		h := nats.Header{}
		for n, values := range msg.Header {
			for _, v := range values {
				if strings.ContainsAny(n+v, "\r\n") || strings.TrimSpace(v) != v && strings.Trim(v, " \t") != v {
					t.Fatalf("header %q: %q would not arrive as it is", n, v)
				}
				h.Add(n, v)
			}
		}
		got, err := Decode(msg.Subject, h, msg.Data)
		if strings.HasPrefix(strings.ToLower(name), "ce-") {
			return // an attribute of the sender's own
		}
		if err != nil {
			t.Fatal(err)
		}
		if name == headerKey || name == headerType || name == headerID {
			return
		}
		if got.ID != id || got.Topic != topic || got.Key != key || string(got.Payload) != string(payload) || got.Headers[name] != value {
			t.Fatalf("got %+v, want %+v", got, m)
		}
	})
}

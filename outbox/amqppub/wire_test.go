package amqppub

import (
	"strings"
	"testing"

	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/cloudevents"
	amqp "github.com/rabbitmq/amqp091-go"
)

// Whatever is in a message, it is either refused or comes back as it was, and fits the protocol's short strings.
func FuzzWire(f *testing.F) {
	f.Add("id", "orders", "key", "Name", "value", []byte("x"), false)
	f.Add("id", strings.Repeat("t", 255), "k", "backstay-key", "another", []byte{0, 0xff}, true)
	codec := cloudevents.New(cloudevents.Config{Source: "/fuzz"})
	f.Fuzz(func(t *testing.T, id, topic, key, name, value string, payload []byte, events bool) {
		c := Config{URL: "amqp://h/"}
		if events {
			c.Events = codec
		}
		p := New(c)
		m := &outbox.Message{ID: id, Topic: topic, Key: key, Payload: payload, Headers: map[string]string{name: value}}
		if m.Validate(outbox.Limits{}) != nil || id == "" {
			return // enqueue refuses it
		}
		routing, msg, err := p.encode(m)
		if err != nil {
			return
		}
		if err := msg.Headers.Validate(); err != nil || len(routing) > 255 || len(msg.MessageId) > 255 {
			t.Fatalf("the client would refuse it: %v", err)
		}
		got, err := Decode(&amqp.Delivery{Headers: msg.Headers, ContentType: msg.ContentType, MessageId: msg.MessageId, RoutingKey: routing, Body: msg.Body})
		if strings.HasPrefix(name, cloudevents.AMQP) || name == headerKey {
			return // an attribute or a key of the sender's own
		}
		if err != nil {
			t.Fatal(err)
		}
		if got.ID != id || got.Topic != topic || got.Key != key || string(got.Payload) != string(payload) || got.Headers[name] != value {
			t.Fatalf("got %+v, want %+v", got, m)
		}
	})
}

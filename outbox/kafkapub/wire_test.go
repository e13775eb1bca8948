package kafkapub

import (
	"strings"
	"testing"

	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/cloudevents"
)

// Whatever is in a message, it is either refused or comes back as it was.
func FuzzWire(f *testing.F) {
	f.Add("id", "orders", "key", "Name", "value", []byte("x"), false)
	f.Add("id", "a b", "k", "message-id", "another", []byte{0, 0xff}, true)
	codec := cloudevents.New(cloudevents.Config{Source: "/fuzz"})
	f.Fuzz(func(t *testing.T, id, topic, key, name, value string, payload []byte, events bool) {
		p := &Publisher{limits: &limits{}}
		if events {
			p.config.Events = codec
		}
		m := &outbox.Message{ID: id, Topic: topic, Key: key, Payload: payload, Headers: map[string]string{name: value}}
		if m.Validate(outbox.Limits{}) != nil || id == "" {
			return // enqueue refuses it
		}
		r, err := p.encode(m)
		if err != nil {
			return
		}
		if weight(r) < len(r.Key)+len(r.Value) {
			t.Fatal("the weight is less than the content")
		}
		got, err := Decode(r)
		if strings.HasPrefix(name, cloudevents.Kafka) {
			return // an attribute of the sender's own
		}
		if err != nil {
			t.Fatal(err)
		}
		if got.ID != id || got.Topic != topic || got.Key != key || string(got.Payload) != string(payload) {
			t.Fatalf("got %+v, want %+v", got, m)
		}
		if name != headerID && name != headerType && got.Headers[name] != value {
			t.Fatalf("got header %q %q, want %q", name, got.Headers[name], value)
		}
	})
}

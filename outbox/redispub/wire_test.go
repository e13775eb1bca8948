package redispub

import (
	"testing"

	"github.com/backstay-go/backstay/outbox"
	"github.com/redis/go-redis/v9"
)

// Whatever is in a message, it is either refused or comes back as it was: no header takes the place of a field.
func FuzzWire(f *testing.F) {
	f.Add("id", "orders", "key", "Name", "value", []byte("x"))
	f.Add("id", "orders", "", "payload", "another", []byte{0, 0xff})
	f.Fuzz(func(t *testing.T, id, topic, key, name, value string, payload []byte) {
		p := &Publisher{config: Config{}.withDefaults()}
		m := &outbox.Message{ID: id, Topic: topic, Key: key, Payload: payload, Headers: map[string]string{name: value}}
		if m.Validate(outbox.Limits{}) != nil || id == "" {
			return // enqueue refuses it
		}
		args, err := p.encode(m)
		if err != nil {
			return
		}
		pairs := args.Values.([]any)
		entry := redis.XMessage{ID: "1-0", Values: make(map[string]any)}
		for i := 0; i < len(pairs); i += 2 {
			field := pairs[i].(string)
			if _, twice := entry.Values[field]; twice {
				t.Fatalf("field %q is written twice", field)
			}
			switch v := pairs[i+1].(type) {
			case string:
				entry.Values[field] = v
			case []byte:
				entry.Values[field] = string(v)
			}
		}
		got := Decode(topic, entry)
		if got.ID != id || got.Topic != topic || got.Key != key || string(got.Payload) != string(payload) || got.Headers[name] != value {
			t.Fatalf("got %+v, want %+v", got, m)
		}
	})
}

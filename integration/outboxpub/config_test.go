package outboxpub_test

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/backstay-go/backstay/outbox/amqppub"
	"github.com/backstay-go/backstay/outbox/consumer"
	"github.com/backstay-go/backstay/outbox/kafkapub"
	"github.com/backstay-go/backstay/outbox/natspub"
	"github.com/backstay-go/backstay/outbox/redispub"
	"github.com/backstay-go/backstay/outbox/watermillpub"
	"github.com/backstay-go/backstay/outbox/webhookpub"
)

// Configs go to JSON and back, with durations as text, without secrets, and with unknown fields refused.
func TestConfigsAsJSON(t *testing.T) {
	for _, c := range []struct {
		set, empty any
		text       string
	}{
		{&natspub.Config{Topics: []string{"a"}, AckWait: 1500 * time.Millisecond}, &natspub.Config{}, `{"topics":["a"],"ackWait":"1.5s"}`},
		{&kafkapub.Config{Topics: []string{"a"}}, &kafkapub.Config{}, `{"topics":["a"]}`},
		{&watermillpub.Config{Concurrency: 3}, &watermillpub.Config{}, `{"concurrency":3}`},
		{
			&amqppub.Config{Exchange: "x", Queues: []string{"q"}, MaxMessage: 1, Wait: time.Second, Heartbeat: time.Minute, Name: "n"}, &amqppub.Config{},
			`{"exchange":"x","queues":["q"],"maxMessage":1,"wait":"1s","heartbeat":"1m0s","name":"n"}`,
		},
		{
			&redispub.Config{MaxLen: 1, Existing: true, Producer: "p", Replicas: 2, ReplicaWait: time.Second, MaxMessage: 3, Wait: 2 * time.Second, Streams: []string{"s"}}, &redispub.Config{},
			`{"maxLen":1,"existing":true,"producer":"p","replicas":2,"replicaWait":"1s","maxMessage":3,"wait":"2s","streams":["s"]}`,
		},
		{
			&consumer.Config{Lanes: 2, Attempts: 3, Wait: time.Second, MaxWait: time.Minute, Timeout: -1, Grace: time.Second}, &consumer.Config{},
			`{"lanes":2,"attempts":3,"wait":"1s","maxWait":"1m0s","timeout":"-1ns","grace":"1s"}`,
		},
		{
			&webhookpub.Config{Endpoint: webhookpub.Endpoint{URL: "https://h/"}, PlainHTTP: true, Timeout: time.Second, Concurrency: 4}, &webhookpub.Config{},
			`{"endpoint":{"url":"https://h/"},"plainHttp":true,"timeout":"1s","concurrency":4}`,
		},
	} {
		name := reflect.TypeOf(c.set).Elem().String()
		text, err := json.Marshal(c.set)
		if err != nil || string(text) != c.text {
			t.Errorf("%s: got %s (%v), want %s", name, text, err, c.text)
		}
		if empty, err := json.Marshal(c.empty); err != nil || string(empty) != "{}" {
			t.Errorf("%s: got %s (%v) for the zero value, want {}", name, empty, err)
		}
		if err := json.Unmarshal(text, c.empty); err != nil || !reflect.DeepEqual(c.empty, c.set) {
			t.Errorf("%s: got %+v (%v), want %+v", name, c.empty, err, c.set)
		}
		if err := json.Unmarshal([]byte(`{"no_such_field":1}`), c.empty); err == nil {
			t.Errorf("%s: got nil for an unknown field, want an error", name)
		}
	}
	for _, c := range []any{
		amqppub.Config{URL: "amqp://guest:canary@h/"},
		webhookpub.Config{Endpoint: webhookpub.Endpoint{URL: "https://h/", Secrets: []string{"canary"}}},
	} {
		if text, err := json.Marshal(c); err != nil || strings.Contains(string(text), "canary") {
			t.Errorf("got %s (%v), want no secret", text, err)
		}
	}
}

package outboxtest

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/backstay-go/backstay/outbox"
)

func testDelivers(t *testing.T, b Broker) {
	p, topic := b.open(t), b.Topic(t)
	batch := messages(topic, 6)
	batch[0].Payload = nil
	batch[1].Payload = []byte{0, 0xff, 0xfe, '\r', '\n', 0, 0x80}
	batch[2].Key, batch[2].ContentType = "", "application/json; charset=utf-8"
	batch[3].Key = `ключ "percent %41" = <ключ>`
	batch[4].ID = "!#$%&'()*+,-./:;<=>?@[]^_`{|}~" + outbox.NewID()
	batch[4].Headers = map[string]string{
		"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "X-Empty": "", "x-text": `a: b, "c"; ü`,
	}
	batch[5].Payload = bytes.Repeat([]byte("0123456789abcdef"), 4096) // more than one frame or segment anywhere
	b.mustPublish(t, p, batch...)
	byID := make(map[string]*outbox.Message)
	for _, m := range b.only(t, topic, batch...) {
		byID[m.ID] = m
	}
	for _, want := range batch {
		got := byID[want.ID]
		if got == nil {
			continue // said already
		}
		if !bytes.Equal(got.Payload, want.Payload) {
			t.Errorf("payload of %d bytes: got %d other bytes", len(want.Payload), len(got.Payload))
		}
		if got.Key != want.Key {
			t.Errorf("got key %q, want %q", got.Key, want.Key)
		}
		if want.ContentType != "" && got.ContentType != want.ContentType {
			t.Errorf("got content type %q, want %q", got.ContentType, want.ContentType)
		}
		for name, value := range want.Headers {
			if v, ok := header(got, name); !ok || v != value {
				t.Errorf("got header %s %q (present: %v), want %q", name, v, ok, value)
			}
		}
	}
}

// header finds a header without regard to case, as some protocols carry names.
func header(m *outbox.Message, name string) (string, bool) {
	for n, v := range m.Headers {
		if strings.EqualFold(n, name) {
			return v, true
		}
	}
	return "", false
}

func testResults(t *testing.T, b Broker) {
	p := b.open(t)
	publish(t, p, b.Wait) // an empty batch
	batch := messages(b.Topic(t), 200)
	for i, err := range publish(t, p, b.Wait, batch...) {
		if err != nil && !errors.Is(err, outbox.ErrUnknownOutcome) && !errors.Is(err, outbox.ErrUnavailable) {
			t.Fatalf("result[%d]: got %v, want nil", i, err)
		}
	}
}

func testRepeats(t *testing.T, b Broker) {
	p, topic := b.open(t), b.Topic(t)
	batch := messages(topic, 5)
	b.mustPublish(t, p, batch...)
	for i, err := range publish(t, p, b.Wait, batch...) {
		if err != nil {
			t.Errorf("second publication, result[%d]: got %v, want nil", i, err)
		}
	}
	want := 2 * len(batch)
	if b.Deduplicates {
		want = len(batch)
	}
	if got := b.Read(t, topic, want); len(got) != want {
		t.Errorf("got %d messages after publishing %d twice, want %d", len(got), len(batch), want)
	}
}

func testTooLarge(t *testing.T, b Broker) {
	if b.TooLarge == 0 {
		t.Skip("Broker.TooLarge is not set")
	}
	p, topic := b.open(t), b.Topic(t)
	batch := messages(topic, 3)
	batch[1].Payload = make([]byte, b.TooLarge)
	result := publish(t, p, b.Wait, batch...)
	if !errors.Is(result[1], outbox.ErrTooLarge) {
		// A broker may say so by ending the connection; then the message itself must be recognised when it comes again.
		if result = publish(t, p, b.Wait, batch...); !errors.Is(result[1], outbox.ErrTooLarge) {
			t.Errorf("got %v, want ErrTooLarge", result[1])
		}
	}
	b.mustPublish(t, p, batch[0], batch[2])
	b.only(t, topic, batch[0], batch[2])
}

func testTooLargeInRun(t *testing.T, b Broker) {
	if b.TooLarge == 0 {
		t.Skip("Broker.TooLarge is not set")
	}
	p, topic := b.open(t), b.Topic(t)
	if !keepsOrder(p) {
		t.Skip("the publisher does not take runs")
	}
	batch := messages(topic, 6)
	for i, key := range []string{"a", "b", "a", "a", "b", "a"} {
		batch[i].Key = key
	}
	batch[2].Payload = make([]byte, b.TooLarge)
	result := publish(t, p, b.Wait, batch...)
	for _, i := range []int{0, 1, 4} {
		if result[i] != nil {
			t.Errorf("result[%d]: got %v, want nil", i, result[i])
		}
	}
	for _, i := range []int{2, 3, 5} {
		if result[i] == nil {
			t.Errorf("result[%d]: got nil, want an error", i)
		}
	}
	b.only(t, topic, batch[0], batch[1], batch[4])
}

func testMissing(t *testing.T, b Broker) {
	if b.Missing == "" {
		t.Skip("Broker.Missing is not set")
	}
	p, topic := b.open(t), b.Topic(t)
	batch := messages(topic, 3)
	batch[1].Topic = b.Missing
	result := publish(t, p, b.Wait, batch...)
	if !errors.Is(result[1], outbox.ErrUnavailable) {
		t.Errorf("got %v for topic %q, want ErrUnavailable", result[1], b.Missing)
	}
	b.mustPublish(t, p, batch[0], batch[2])
	b.only(t, topic, batch[0], batch[2])
}

// testHeaders goes beyond what enqueue lets through, since a Sealer or a codec may write headers later.
func testHeaders(t *testing.T, b Broker) {
	p, topic := b.open(t), b.Topic(t)
	values := []string{
		"line\r\nInjected: 1", "line\nInjected: 1", "\r\n\r\nInjected", "nul\x00Injected", " edge ", "\ttab\t", "high \xff\xfe",
		"%0d%0aInjected: 1", strings.Repeat("x", 8000),
	}
	batch := messages(topic, len(values))
	for i, v := range values {
		batch[i].Headers = map[string]string{"X-Test": v, "X-After": "after"}
	}
	plain := messages(topic, 1)[0]
	var taken []*outbox.Message
	for i, err := range publish(t, p, b.Wait, batch...) {
		if err == nil {
			taken = append(taken, batch[i])
		} else if !errors.Is(err, outbox.ErrPermanent) && !errors.Is(err, outbox.ErrTooLarge) {
			t.Errorf("header value %.20q: got %v, want it taken, or ErrPermanent", values[i], err)
		}
	}
	b.mustPublish(t, p, plain)
	want := make(map[string]*outbox.Message)
	for _, m := range append(taken, plain) {
		want[m.ID] = m
	}
	for _, m := range b.only(t, topic, append(taken, plain)...) {
		if _, injected := header(m, "Injected"); injected {
			t.Errorf("message %q: a header came out of another's value", m.ID)
		}
		if w := want[m.ID]; w != nil {
			for name, value := range w.Headers {
				if got, _ := header(m, name); got != value {
					t.Errorf("message %q: got header %s %.20q, want %.20q", m.ID, name, got, value)
				}
			}
		}
	}
}

func testSecrets(t *testing.T, b Broker) {
	const canary = "canary-5f3a"
	p := b.open(t)
	topics := []string{b.Topic(t)}
	if b.Missing != "" {
		topics = append(topics, b.Missing)
	}
	var batch []*outbox.Message
	for _, topic := range topics {
		for _, size := range []int{0, b.TooLarge} {
			m := messages(topic, 1)[0]
			m.Key, m.Payload = "", append([]byte(canary), make([]byte, size)...)
			m.Headers = map[string]string{"Authorization": canary + "\r\n"}
			batch = append(batch, m)
			plain := m.Clone()
			plain.ID, plain.Headers = outbox.NewID(), map[string]string{"Authorization": canary}
			batch = append(batch, plain)
		}
	}
	for _, err := range publish(t, p, b.Wait, batch...) {
		if err != nil && strings.Contains(err.Error(), canary) {
			t.Errorf("an error shows what was in the message: %v", err)
		}
	}
}

func testUnchanged(t *testing.T, b Broker) {
	p, topic := b.open(t), b.Topic(t)
	batch := messages(topic, 20)
	before := make([]*outbox.Message, len(batch))
	for i, m := range batch {
		m.Headers = map[string]string{"a": "b"}
		before[i] = m.Clone()
	}
	b.mustPublish(t, p, batch...)
	for i, m := range batch {
		if !reflect.DeepEqual(m, before[i]) {
			t.Errorf("message %d was changed", i)
		}
	}
	// A publish that ends before the answer may leave something behind that still reads: the race detector sees it, and so does the broker.
	for _, f := range []struct{ from, to func(testing.TB) }{{b.Deafen, b.Hear}, {b.Cut, b.Mend}} {
		if f.from == nil || f.to == nil {
			continue
		}
		late := messages(topic, 20)
		kept := make([]*outbox.Message, len(late))
		for i, m := range late {
			kept[i] = m.Clone()
		}
		f.from(t)
		publish(t, p, 200*time.Millisecond, late...)
		for _, m := range late {
			for i := range m.Payload {
				m.Payload[i] = '!'
			}
			m.Headers = map[string]string{}
		}
		f.to(t)
		b.mustPublish(t, p, kept...)
		before = append(before, kept...)
	}
	payloads := make(map[string][]byte)
	for _, m := range before {
		payloads[m.ID] = m.Payload
	}
	for _, m := range b.only(t, topic, before...) {
		if !bytes.Equal(m.Payload, payloads[m.ID]) {
			t.Errorf("message %q: the payload was read after Publish had returned", m.ID)
		}
	}
}

package cloudevents_test

import (
	"errors"
	"maps"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/cloudevents"
)

func TestAttributes(t *testing.T) {
	codec := cloudevents.New(cloudevents.Config{
		Source: "/orders", Type: func(m *outbox.Message) string { return "com.example." + m.Topic }, Subject: func(m *outbox.Message) string { return m.Key },
	})
	at := time.Date(2026, 5, 4, 3, 2, 1, 5e6, time.FixedZone("", 3600))
	m := &outbox.Message{
		ID: "id", Topic: "order.created", Key: "ключ", Seq: 42, Created: at, ExpiresAt: at.Add(time.Hour),
		Headers: map[string]string{"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
	}
	attrs, err := codec.Attributes(m)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, a := range attrs {
		lines = append(lines, a.Name+"="+a.Value)
	}
	want := `specversion=1.0
id=id
source=/orders
type=com.example.order.created
subject=ключ
time=2026-05-04T02:02:01.005Z
partitionkey=ключ
sequence=0000000000000000042
expirytime=2026-05-04T03:02:01.005Z
traceparent=00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01`
	if got := strings.Join(lines, "\n"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	for _, prefix := range []string{cloudevents.HTTP, cloudevents.Kafka, cloudevents.AMQP} {
		headers := make(map[string]string)
		for _, a := range attrs {
			if prefix == cloudevents.HTTP {
				a.Value = cloudevents.Encode(a.Value)
			}
			headers[strings.ToUpper(prefix)+a.Name] = a.Value
		}
		headers["other"] = "x"
		e, err := cloudevents.Parse(prefix, maps.All(headers))
		if err != nil {
			t.Fatal(err)
		}
		var back outbox.Message
		e.Onto(&back)
		if back.ID != m.ID || back.Key != m.Key || !back.Created.Equal(m.Created) || !back.ExpiresAt.Equal(m.ExpiresAt) || back.Headers["traceparent"] != m.Headers["traceparent"] {
			t.Errorf("%s: got %+v, want %+v", prefix, back, m)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for name, headers := range map[string]map[string]string{
		"nothing":       {},
		"no version":    {"ce-id": "1", "ce-source": "s", "ce-type": "t"},
		"version 0.3":   {"ce-specversion": "0.3", "ce-id": "1", "ce-source": "s", "ce-type": "t"},
		"no id":         {"ce-specversion": "1.0", "ce-source": "s", "ce-type": "t"},
		"given twice":   {"ce-specversion": "1.0", "ce-id": "1", "CE-ID": "2", "ce-source": "s", "ce-type": "t"},
		"no time":       {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "s", "ce-type": "t", "ce-time": "canary"},
		"half encoding": {"ce-specversion": "1.0", "ce-id": "%4", "ce-source": "s", "ce-type": "t"},
		"not UTF-8":     {"ce-specversion": "1.0", "ce-id": "%ff", "ce-source": "s", "ce-type": "t"},
	} {
		_, err := cloudevents.Parse(cloudevents.HTTP, maps.All(headers))
		if err == nil || strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: got %v, want an error without values", name, err)
		}
	}
}

func TestNoType(t *testing.T) {
	for _, kind := range []string{"", "a\nb", "\xff"} {
		codec := cloudevents.New(cloudevents.Config{Source: "/s", Type: func(*outbox.Message) string { return kind }})
		if _, err := codec.Attributes(&outbox.Message{ID: "1"}); !errors.Is(err, outbox.ErrPermanent) {
			t.Errorf("type %q: got %v, want ErrPermanent", kind, err)
		}
	}
	for _, source := range []string{"", "a\nb", "%zz"} {
		if err := (cloudevents.Config{Source: source}).Validate(); err == nil {
			t.Errorf("source %q: got nil, want an error", source)
		}
	}
}

func FuzzEncode(f *testing.F) {
	for _, s := range []string{"", "plain", `a b"c%d`, "ключ", "\x00\r\n", "%41", "\xff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		e := cloudevents.Encode(s)
		for i := range len(e) {
			if e[i] <= ' ' || e[i] >= 0x7f || e[i] == '"' {
				t.Fatalf("Encode(%q) = %q, which is not plain", s, e)
			}
		}
		got, err := cloudevents.Decode(e)
		if utf8.ValidString(s) && (err != nil || got != s) {
			t.Fatalf("Decode(Encode(%q)) = %q, %v", s, got, err)
		}
		_, _ = cloudevents.Decode(s) // any header value
	})
}

func FuzzParse(f *testing.F) {
	f.Add("ce-id", "1", "ce-time", "2026-05-04T02:02:01Z")
	f.Add("CE-", "%", "ce-specversion", "%31.0")
	f.Fuzz(func(t *testing.T, name1, value1, name2, value2 string) {
		headers := map[string]string{"ce-specversion": "1.0", "ce-source": "s", "ce-type": "t", name1: value1, name2: value2}
		e, err := cloudevents.Parse(cloudevents.HTTP, maps.All(headers))
		if err == nil && (e.ID == "" || e.Source == "" || e.Type == "") {
			t.Fatalf("got an event without a required attribute: %+v", e)
		}
	})
}

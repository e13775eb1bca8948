package outbox_test

import (
	"encoding/json"
	"errors"
	"hash/fnv"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/backstay-go/backstay/outbox"
)

func TestValidate(t *testing.T) {
	for name, c := range map[string]struct {
		m     outbox.Message
		l     outbox.Limits
		field string // "": valid
	}{
		"small":                  {m: outbox.Message{Topic: "t"}},
		"no limits":              {m: outbox.Message{Topic: "t", Payload: make([]byte, 3<<20), Headers: map[string]string{"a": strings.Repeat("b", 1<<20)}}, l: outbox.Limits{Payload: -1, Headers: -1, Count: -1}},
		"payload at the limit":   {m: outbox.Message{Topic: "t", Payload: make([]byte, 10)}, l: outbox.Limits{Payload: 10}},
		"payload over the limit": {m: outbox.Message{Topic: "t", Payload: make([]byte, 11)}, l: outbox.Limits{Payload: 10}, field: "payload"},
		"headers too large":      {m: outbox.Message{Topic: "t", Headers: map[string]string{"a": strings.Repeat("b", 20<<10)}}, field: "headers"},
		"too many headers":       {m: outbox.Message{Topic: "t", Headers: map[string]string{"a": "", "b": ""}}, l: outbox.Limits{Count: 1}, field: "number of headers"},
		"no topic":               {m: outbox.Message{}, field: "topic"},
		"long topic":             {m: outbox.Message{Topic: strings.Repeat("t", 256)}, field: "topic"},
		"line end in topic":      {m: outbox.Message{Topic: "a\nb"}, field: "topic"},
		"NUL in key":             {m: outbox.Message{Topic: "t", Key: "a\x00b"}, field: "key"},
		"invalid UTF-8 in key":   {m: outbox.Message{Topic: "t", Key: "a\xc0\xafb"}, field: "key"},
		"header injection":       {m: outbox.Message{Topic: "t", Headers: map[string]string{"a": "b\r\nc: d"}}, field: "header a"},
		"space before a value":   {m: outbox.Message{Topic: "t", Headers: map[string]string{"a": " b"}}, field: "header a"},
		"tab after a value":      {m: outbox.Message{Topic: "t", Headers: map[string]string{"a": "b\t"}}, field: "header a"},
		"only a space":           {m: outbox.Message{Topic: "t", Headers: map[string]string{"a": " "}}, field: "header a"},
		"space in a value":       {m: outbox.Message{Topic: "t", Headers: map[string]string{"a": "b c"}}},
		"space around a type":    {m: outbox.Message{Topic: "t", ContentType: "text/plain "}, field: "content type"},
		"spaces around a key":    {m: outbox.Message{Topic: "t", Key: " k "}},
		"tab in header":          {m: outbox.Message{Topic: "t", Headers: map[string]string{"a": "b\tc"}}},
		"bad header name":        {m: outbox.Message{Topic: "t", Headers: map[string]string{"a b": ""}}, field: "header name"},
		"empty header name":      {m: outbox.Message{Topic: "t", Headers: map[string]string{"": ""}}, field: "header name"},
		"two spellings":          {m: outbox.Message{Topic: "t", Headers: map[string]string{"A": "", "a": ""}}, field: "header A"},
		"bad id":                 {m: outbox.Message{Topic: "t", ID: "ä"}, field: "id"},
		"long id":                {m: outbox.Message{Topic: "t", ID: strings.Repeat("a", 256)}, field: "id"},
		"negative delay":         {m: outbox.Message{Topic: "t", Delay: -1}, field: "delay"},
		"delay and time":         {m: outbox.Message{Topic: "t", Delay: 1, NotBefore: time.Unix(1, 0)}, field: "delay"},
		"expires before due":     {m: outbox.Message{Topic: "t", NotBefore: time.Unix(2, 0), ExpiresAt: time.Unix(1, 0)}, field: "expires at"},
	} {
		err := c.m.Validate(c.l)
		var invalid *outbox.InvalidError
		switch {
		case c.field == "" && err != nil:
			t.Errorf("%s: got %v, want nil", name, err)
		case c.field != "" && (!errors.As(err, &invalid) || invalid.Field != c.field || !errors.Is(err, outbox.ErrInvalid)):
			t.Errorf("%s: got %v, want field %q refused", name, err, c.field)
		case c.field != "" && errors.Is(err, outbox.ErrTooLarge) != (invalid.Limit > 0):
			t.Errorf("%s: got %v, want ErrTooLarge just for a limit", name, err)
		}
	}
}

func TestHeadersThereAndBack(t *testing.T) {
	for _, h := range []map[string]string{nil, {"a": ""}, {"a": "b: c", "d": " e ", "F-g": "ä\t"}} {
		if got := outbox.DecodeHeaders(outbox.EncodeHeaders(h)); !maps.Equal(got, h) {
			t.Errorf("got %v, want %v", got, h)
		}
	}
}

func TestNewID(t *testing.T) {
	seen := map[string]bool{}
	for range 1000 {
		id := outbox.NewID()
		if err := (&outbox.Message{Topic: "t", ID: id}).Validate(outbox.Limits{}); err != nil || len(id) != 36 || id[14] != '7' || seen[id] {
			t.Fatalf("got %q (%v), want a new UUID of version 7", id, err)
		}
		seen[id] = true
	}
}

// The hash is the meaning of stored data: it must never change.
func TestPartitionOf(t *testing.T) {
	for key, want := range map[string]int{"": 5, "order-1": 13, "order-2": 4, "ä": 2} {
		if got := outbox.PartitionOf(key, 16); got != want {
			t.Errorf("PartitionOf(%q, 16): got %d, want %d", key, got, want)
		}
		h := fnv.New32a()
		h.Write([]byte(key))
		if got := int(h.Sum32() % 16); got != want {
			t.Errorf("FNV-1a of %q modulo 16: got %d, want %d", key, got, want)
		}
	}
}

func TestRelayConfig(t *testing.T) {
	cfg := outbox.RelayConfig{Lease: time.Millisecond, MinBackoff: 2 * time.Second, MaxBackoff: time.Second, Poison: 7, Sweep: 1}
	err := cfg.Validate()
	for _, field := range []string{"Lease", "MinBackoff", "Poison", "Sweep"} {
		if err == nil || !strings.Contains(err.Error(), "RelayConfig."+field) {
			t.Errorf("Validate: got %v, want it to name %s", err, field)
		}
	}
	func() {
		defer func() {
			if recover() == nil {
				t.Error("NewRelay with a bad config: want a panic")
			}
		}()
		outbox.NewRelay(nil, nil, cfg)
	}()
	text, err := json.Marshal(outbox.RelayConfig{Lease: 1500 * time.Millisecond, Poison: outbox.Skip})
	if want := `{"lease":"1.5s","poison":"skip"}`; err != nil || string(text) != want {
		t.Errorf("Marshal: got %s, %v, want %s", text, err, want)
	}
	var back outbox.RelayConfig
	if err := json.Unmarshal(text, &back); err != nil || back.Lease != 1500*time.Millisecond || back.Poison != outbox.Skip {
		t.Errorf("Unmarshal: got %+v, %v", back, err)
	}
	if err := json.Unmarshal([]byte(`{"laese":"1s"}`), &back); err == nil {
		t.Error("an unknown field: got nil, want an error")
	}
}

func TestMarks(t *testing.T) {
	cause := errors.New("cause")
	for mark, err := range map[error]error{outbox.ErrPermanent: outbox.Permanent(cause), outbox.ErrTooLarge: outbox.TooLarge(cause),
		outbox.ErrUnknownOutcome: outbox.UnknownOutcome(cause), outbox.ErrUnavailable: outbox.Unavailable(cause)} {
		if !errors.Is(err, mark) || !errors.Is(err, cause) {
			t.Errorf("%v: want it to match its mark and its cause", err)
		}
	}
	if outbox.Permanent(nil) != nil {
		t.Error("a marked nil is not nil")
	}
}

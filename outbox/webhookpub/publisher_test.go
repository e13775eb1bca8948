package webhookpub_test

import (
	"encoding/base64"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/webhookpub"
)

var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}

func secret(b byte) string {
	return "whsec_" + base64.StdEncoding.EncodeToString(slices.Repeat([]byte{b}, 32))
}

func serve(t *testing.T, h http.HandlerFunc) webhookpub.Config {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return webhookpub.Config{Endpoint: webhookpub.Endpoint{URL: s.URL + "/hooks?token=canary"}, Events: events, PlainHTTP: true, Allow: loopback}
}

func TestRequest(t *testing.T) {
	var got *outbox.Message
	var bad error
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		bad = errors.Join(webhookpub.Verify(r.Header, body, 0, secret(2)), webhookpub.Verify(r.Header, body, 0, secret(1)))
		if r.Method != http.MethodPost || r.Header.Get("Ce-Specversion") != "1.0" || r.Header.Get("Ce-Partitionkey") != "k%20%C3%BC" {
			bad = errors.Join(bad, errors.New("not a CloudEvent in binary mode"))
		}
		got, _ = webhookpub.Decode(r.Header, body)
		w.WriteHeader(http.StatusAccepted)
	})
	c.Endpoint.Secrets = []string{secret(1), secret(2)}
	p := webhookpub.New(c)
	defer p.Close()
	m := newMessage("body\x00\xff")
	m.ID, m.Key, m.ContentType = "id.with.dots%2E", "k ü", "application/json"
	m.Headers = map[string]string{"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "x-a": "b"}
	if err := publish(t, p, m); err != nil {
		t.Fatal(err)
	}
	if bad != nil {
		t.Error(bad)
	}
	if got.ID != m.ID || got.Key != m.Key || got.Topic != m.Topic || got.ContentType != m.ContentType || string(got.Payload) != string(m.Payload) {
		t.Errorf("got %+v, want %+v", got, m)
	}
	if want := map[string]string{"Traceparent": m.Headers["traceparent"], "X-A": "b"}; !maps.Equal(got.Headers, want) {
		t.Errorf("got headers %v, want %v", got.Headers, want)
	}
}

func TestStatuses(t *testing.T) {
	for status, want := range map[int]error{
		200: nil, 204: nil, 410: outbox.ErrPermanent, 413: outbox.ErrTooLarge, 429: outbox.ErrUnavailable, 503: outbox.ErrUnavailable,
		400: &webhookpub.StatusError{}, 404: &webhookpub.StatusError{}, 500: &webhookpub.StatusError{}, 307: &webhookpub.StatusError{},
	} {
		var calls atomic.Int32
		c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			calls.Add(1)
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(status)
		})
		p := webhookpub.New(c)
		err := publish(t, p, newMessage("x"))
		_ = p.Close()
		var answer *webhookpub.StatusError
		switch {
		case want == nil:
			if err != nil {
				t.Errorf("%d: got %v, want nil", status, err)
			}
		case !errors.As(err, &answer) || answer.Status != status:
			t.Errorf("%d: got %v, want a StatusError", status, err)
		case !errors.As(want, &answer) && !errors.Is(err, want):
			t.Errorf("%d: got %v, want %v", status, err, want)
		case errors.As(want, &answer) && (errors.Is(err, outbox.ErrPermanent) || errors.Is(err, outbox.ErrUnavailable)):
			t.Errorf("%d: got %v, want no mark", status, err)
		}
		if n := calls.Load(); n != 1 {
			t.Errorf("%d: got %d requests, want 1", status, n)
		}
	}
}

// What an endpoint's customer must not learn from a log, and what a message must not do to HTTP.
func TestRefusedUnsent(t *testing.T) {
	c := serve(t, func(http.ResponseWriter, *http.Request) {})
	p := webhookpub.New(c)
	defer p.Close()
	for name, value := range map[string]string{
		"Host": "evil", "Content-Length": "0", "transfer-encoding": "chunked", "Webhook-Signature": "v1,x", "x y": "z", "X-A": "a\r\nB: c", "X-B": "a\x00", "": "x",
	} {
		m := newMessage("x")
		m.Headers = map[string]string{name: value}
		if err := publish(t, p, m); !errors.Is(err, outbox.ErrPermanent) || strings.Contains(err.Error(), "evil") {
			t.Errorf("header %q: got %v, want ErrPermanent", name, err)
		}
	}
	for _, url := range []string{"", "ftp://h/", "https://u:canary@h/", "https://h/#canary", "https:///x", "https:opaque", "http://plain/", "\x7f"} {
		routed := webhookpub.New(webhookpub.Config{Events: events, Route: func(*outbox.Message) (webhookpub.Endpoint, error) {
			return webhookpub.Endpoint{URL: url}, nil
		}})
		if err := publish(t, routed, newMessage("x")); !errors.Is(err, outbox.ErrPermanent) || strings.Contains(err.Error(), "canary") {
			t.Errorf("URL %q: got %v, want ErrPermanent", url, err)
		}
	}
	gone := webhookpub.New(webhookpub.Config{Endpoint: webhookpub.Endpoint{URL: "http://127.0.0.1:1/hooks?token=canary"}, Events: events, PlainHTTP: true, Allow: loopback})
	if err := publish(t, gone, newMessage("x")); !errors.Is(err, outbox.ErrUnavailable) || strings.Contains(err.Error(), "canary") {
		t.Errorf("no server: got %v, want ErrUnavailable without the query", err)
	}
}

func TestVerify(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := http.Header{}
		body := []byte("body")
		if err := webhookpub.Sign(h, "id", time.Now(), body, []string{secret(1)}); err != nil {
			t.Fatal(err)
		}
		check := func(what string, want error, h http.Header, body string, secrets ...string) {
			t.Helper()
			if err := webhookpub.Verify(h, []byte(body), 0, secrets...); !errors.Is(err, want) {
				t.Errorf("%s: got %v, want %v", what, err, want)
			}
		}
		changed := func(name, value string) http.Header {
			c := h.Clone()
			c.Set(name, value)
			return c
		}
		check("as signed", nil, h, "body", secret(1))
		check("one of two secrets", nil, h, "body", secret(3), secret(1))
		check("another secret", webhookpub.ErrSignature, h, "body", secret(2))
		check("no secret", webhookpub.ErrSignature, h, "body")
		check("another body", webhookpub.ErrSignature, h, "Body", secret(1))
		check("another id", webhookpub.ErrSignature, changed("Webhook-Id", "di"), "body", secret(1))
		check("another time", webhookpub.ErrSignature, changed("Webhook-Timestamp", "1"), "body", secret(1))
		check("an id that moves the dots", webhookpub.ErrSignature, changed("Webhook-Id", "id."+h.Get("Webhook-Timestamp")), "body", secret(1))
		check("no signature", webhookpub.ErrSignature, changed("Webhook-Signature", ""), "body", secret(1))
		time.Sleep(5*time.Minute + time.Second)
		check("too old", webhookpub.ErrSignature, h, "body", secret(1))
	})
}

// The example of the Standard Webhooks specification's own libraries.
func TestSignatureVector(t *testing.T) {
	h := http.Header{}
	err := webhookpub.Sign(h, "msg_p5jXN8AQM9LWM0D4loKWxJek", time.Unix(1614265330, 0), []byte(`{"test": 2432232314}`), []string{"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"})
	if want := "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="; err != nil || h.Get("Webhook-Signature") != want {
		t.Errorf("got %q (%v), want %q", h.Get("Webhook-Signature"), err, want)
	}
}

func TestValidate(t *testing.T) {
	good := webhookpub.Endpoint{URL: "https://h/"}
	for name, c := range map[string]webhookpub.Config{
		"nothing":      {},
		"no events":    {Endpoint: good},
		"both":         {Endpoint: good, Events: events, Route: func(*outbox.Message) (webhookpub.Endpoint, error) { return good, nil }},
		"plain":        {Endpoint: webhookpub.Endpoint{URL: "http://h/"}, Events: events},
		"short secret": {Endpoint: webhookpub.Endpoint{URL: "https://h/", Secrets: []string{"whsec_AAAA"}}, Events: events},
		"timeout":      {Endpoint: good, Events: events, Timeout: -1},
		"network":      {Endpoint: good, Events: events, Allow: make([]netip.Prefix, 1)},
	} {
		if err := c.Validate(); err == nil {
			t.Errorf("%s: got nil, want an error", name)
		}
	}
}

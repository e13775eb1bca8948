package webhookpub

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/cloudevents"
)

// The headers of the Standard Webhooks specification.
const (
	headerID        = "Webhook-Id"
	headerTime      = "Webhook-Timestamp"
	headerSignature = "Webhook-Signature"
)

// ErrSignature says that a request was not signed with any of the secrets, or too long ago or ahead.
var ErrSignature = errors.New("webhookpub: signature not valid")

func secretBytes(secret string) ([]byte, error) {
	text, ok := strings.CutPrefix(secret, "whsec_")
	key, err := base64.StdEncoding.DecodeString(text)
	if !ok || err != nil || len(key) < 24 || len(key) > 64 {
		return nil, errors.New(`not "whsec_" and the base64 of 24 to 64 bytes`)
	}
	return key, nil
}

// dotless keeps the parts of what is signed apart. Ids without a dot and percent sign, as outbox.NewID's, stay as they are.
var dotless = strings.NewReplacer("%", "%25", ".", "%2E")

func sign(h http.Header, id string, now time.Time, body []byte, secrets []string) error {
	id, stamp := dotless.Replace(id), strconv.FormatInt(now.Unix(), 10)
	h.Set(headerID, id)
	h.Set(headerTime, stamp)
	signatures := make([]string, len(secrets))
	for i, s := range secrets {
		key, err := secretBytes(s)
		if err != nil {
			return fmt.Errorf("webhookpub: secret %d: %w", i, err)
		}
		signatures[i] = "v1," + base64.StdEncoding.EncodeToString(mac(key, id, stamp, body))
	}
	if len(signatures) > 0 {
		h.Set(headerSignature, strings.Join(signatures, " "))
	}
	return nil
}

func mac(key []byte, id, stamp string, body []byte) []byte {
	m := hmac.New(sha256.New, key)
	m.Write([]byte(id + "." + stamp + "."))
	m.Write(body)
	return m.Sum(nil)
}

// Verify checks, for a receiver, that a request was signed with one of the secrets at most tolerance ago or ahead; zero means 5 minutes.
// It reads headers and body, not the URL, and answers [ErrSignature] without saying what was wrong. A replay within the tolerance is found by the
// id, in the receiver's inbox.
func Verify(h http.Header, body []byte, tolerance time.Duration, secrets ...string) error {
	if tolerance == 0 {
		tolerance = 5 * time.Minute
	}
	id, stamp := h.Get(headerID), h.Get(headerTime)
	seconds, err := strconv.ParseInt(stamp, 10, 64)
	if err != nil || id == "" || strings.Contains(id, ".") {
		return ErrSignature
	}
	if age := time.Since(time.Unix(seconds, 0)); age > tolerance || age < -tolerance {
		return ErrSignature
	}
	valid := false
	for _, s := range secrets {
		key, err := secretBytes(s)
		if err != nil {
			return fmt.Errorf("webhookpub: %w", err)
		}
		want := mac(key, id, stamp, body)
		for given := range strings.FieldsSeq(h.Get(headerSignature)) {
			text, ok := strings.CutPrefix(given, "v1,")
			got, err := base64.StdEncoding.DecodeString(text)
			if ok && err == nil && hmac.Equal(got, want) {
				valid = true
			}
		}
	}
	if !valid {
		return ErrSignature
	}
	return nil
}

// Decode reads, for a receiver, the message out of a request that a [Publisher] made. Verify it first. The topic is the event's type. Only headers that
// the message may have carried are kept; names come back in the form of net/http, "traceparent" as "Traceparent".
func Decode(h http.Header, body []byte) (*outbox.Message, error) {
	e, err := cloudevents.Parse(cloudevents.HTTP, func(yield func(string, string) bool) {
		for name, values := range h {
			for _, v := range values {
				if !yield(name, v) {
					return
				}
			}
		}
	})
	if err != nil {
		return nil, err
	}
	m := &outbox.Message{Topic: e.Type, Payload: body, ContentType: h.Get("Content-Type")}
	rest := maps.Clone(h)
	maps.DeleteFunc(rest, func(name string, _ []string) bool {
		return reserved(name) || name == "Content-Type" || name == "User-Agent" || strings.HasPrefix(name, "Ce-")
	})
	for name, values := range rest {
		if len(values) == 0 {
			continue
		}
		if m.Headers == nil {
			m.Headers = make(map[string]string, len(rest))
		}
		m.Headers[name] = values[0]
	}
	e.Onto(m)
	return m, nil
}

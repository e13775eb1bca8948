package webhookpub

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/cloudevents"
)

// ErrClosed says that the publisher was closed. The message was not sent.
var ErrClosed = errors.New("webhookpub: closed")

// StatusError is an answer other than 2xx.
type StatusError struct{ Status int }

func (e *StatusError) Error() string {
	return fmt.Sprintf("webhookpub: the endpoint answered %d %s", e.Status, http.StatusText(e.Status))
}

// maxAnswer is how much of an answer is read: its body, so that the connection can be used again, and its headers.
const maxAnswer = 64 << 10

func (e Endpoint) resolve(plain bool) (*url.URL, error) {
	u, err := url.Parse(e.URL)
	switch {
	case err != nil || u.Host == "" || u.Opaque != "":
		return nil, errors.New("not a URL") // without err, which shows it
	case u.Scheme != "https" && !(plain && u.Scheme == "http"):
		return nil, errors.New("the scheme is not https")
	case u.User != nil:
		return nil, errors.New("the URL holds user information")
	case u.Fragment != "":
		return nil, errors.New("the URL holds a fragment")
	}
	for i, s := range e.Secrets {
		if _, err := secretBytes(s); err != nil {
			return nil, fmt.Errorf("secret %d: %w", i, err)
		}
	}
	return u, nil
}

// post makes one request and judges how it ended.
func (p *Publisher) post(ctx context.Context, m *outbox.Message) error {
	ctx, cancel := context.WithTimeout(ctx, p.config.Timeout)
	defer cancel()
	req, err := p.request(ctx, m)
	if err != nil {
		return err
	}
	resp, err := p.client.Do(req)
	if err != nil {
		return judge(err)
	}
	_, _ = io.CopyN(io.Discard, resp.Body, maxAnswer)
	_ = resp.Body.Close()
	answer := &StatusError{Status: resp.StatusCode}
	switch {
	case resp.StatusCode >= 200 && resp.StatusCode <= 299:
		return nil
	case resp.StatusCode == http.StatusGone:
		return outbox.Permanent(answer)
	case resp.StatusCode == http.StatusRequestEntityTooLarge:
		return outbox.TooLarge(answer)
	case resp.StatusCode == http.StatusTooManyRequests, resp.StatusCode == http.StatusServiceUnavailable:
		return outbox.Unavailable(answer)
	}
	return answer
}

func (p *Publisher) request(ctx context.Context, m *outbox.Message) (*http.Request, error) {
	endpoint := p.config.Endpoint
	if p.config.Route != nil {
		var err error
		if endpoint, err = p.config.Route(m); err != nil {
			if errors.Is(err, outbox.ErrUnavailable) || errors.Is(err, outbox.ErrUnknownOutcome) {
				return nil, err
			}
			return nil, outbox.Permanent(err)
		}
	}
	u, err := endpoint.resolve(p.config.PlainHTTP)
	if err != nil {
		return nil, outbox.Permanent(fmt.Errorf("webhookpub: endpoint of message %q: %w", m.ID, err))
	}
	h := make(http.Header, len(m.Headers)+12)
	for name, value := range m.Headers {
		if reserved(name) || strings.ContainsFunc(value, control) || strings.Trim(value, " \t") != value {
			return nil, outbox.Permanent(fmt.Errorf("webhookpub: message %q: header %s cannot be carried", m.ID, name))
		}
		h.Set(name, value)
	}
	attrs, err := p.config.Events.Attributes(m)
	if err != nil {
		return nil, err
	}
	for _, a := range attrs {
		h.Set(cloudevents.HTTP+a.Name, cloudevents.Encode(a.Value))
	}
	if m.ContentType != "" {
		h.Set("Content-Type", m.ContentType)
	}
	h.Set("User-Agent", "backstay-webhook")
	if err := sign(h, m.ID, time.Now(), m.Payload, endpoint.Secrets); err != nil {
		return nil, outbox.Permanent(err)
	}
	// GetBody is set by the constructor: a request that an idle connection refused, unread, is sent again by the transport.
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), bytes.NewReader(m.Payload))
	if err != nil {
		return nil, outbox.Permanent(fmt.Errorf("webhookpub: message %q: not a request", m.ID))
	}
	req.Header = h
	return req, nil
}

func control(r rune) bool { return r < 0x20 && r != '\t' || r == 0x7f }

// reserved reports whether a header is HTTP's own, or the signature's.
func reserved(name string) bool {
	switch http.CanonicalHeaderKey(name) {
	case "Connection", "Content-Length", "Expect", "Host", "Keep-Alive", "Proxy-Authorization", "Proxy-Connection", "Te", "Trailer",
		"Transfer-Encoding", "Upgrade", "Content-Encoding", "Accept-Encoding",
		"Webhook-Id", "Webhook-Timestamp", "Webhook-Signature":
		return true
	}
	return !token(name)
}

func token(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0) {
			return false
		}
	}
	return s != ""
}

// judge marks a request that has no answer. The client's own error shows the URL, so only what is inside is kept.
func judge(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err
	}
	if private, ok := errors.AsType[*AddressError](err); ok {
		return private
	}
	err = fmt.Errorf("webhookpub: %w", err)
	var op *net.OpError
	var dns *net.DNSError
	if errors.As(err, &op) && op.Op == "dial" || errors.As(err, &dns) {
		return outbox.Unavailable(err)
	}
	return outbox.UnknownOutcome(err)
}

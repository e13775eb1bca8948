// Package webhookpub publishes the messages of an outbox as webhooks: one HTTP POST each, a CloudEvent in binary mode, signed.
//
// # What it needs
//
// An endpoint that answers 2xx once it has the message for good, and that recognises a repetition by the header webhook-id (which is
// Message.ID, and ce-id): a repeated message is posted again. [Verify] checks the signature, [Decode] reads the message.
//
// # Where it connects
//
// Endpoints are often given by customers, so that what stands behind their names cannot be trusted. Each address is checked after its name was resolved and
// just before the connection is made; only public ones are dialled ([AddressError]), unless Config.Allow holds them. Redirects are not followed and
// proxies are not used, since both would go around that check. Plain http is refused unless allowed.
//
// # Signature
//
// As the Standard Webhooks specification has it: webhook-signature holds "v1," and the base64 of the HMAC-SHA256 of webhook-id, webhook-timestamp and the
// body, joined by dots; one for each secret, so that secrets can be rotated. Headers are not signed: that the other attributes of the event
// were not changed on the way, only TLS says.
//
// # Order
//
// A batch holds one message of a key at most. Messages of different keys are posted at the same time, up to Config.Concurrency.
//
// # Outcomes
//
//	2xx                                     success
//	410                                     *StatusError, outbox.ErrPermanent
//	413                                     *StatusError, outbox.ErrTooLarge
//	429, 503                                *StatusError, outbox.ErrUnavailable
//	any other answer, a redirect too        *StatusError: counts as an attempt; after a 5xx it may have had effect
//	name not resolved, no connection        outbox.ErrUnavailable: not sent
//	address not public                      *AddressError: not sent, counts as an attempt
//	connection lost, deadline passed        outbox.ErrUnknownOutcome
//	no endpoint, header that HTTP reserves  outbox.ErrPermanent: not sent
//
// Errors hold neither the endpoint's path nor its query.
package webhookpub

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/backstay-go/backstay/internal/configjson"
	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/cloudevents"
)

// Endpoint is one receiver.
type Endpoint struct {
	// URL is where messages are posted to: https, without user information or fragment.
	URL string `json:"url"`

	// Secrets sign each request, all of them; a receiver accepts any. Each is "whsec_" and the base64 of 24 to 64 bytes. None: not
	// signed.
	Secrets []string `json:"-"`
}

// Config says where messages go. Endpoint or Route, and Events, are required.
type Config struct {
	// Endpoint takes every message.
	Endpoint Endpoint `json:"endpoint,omitzero"`

	// Route finds the endpoint of a message instead; it is called by several goroutines. An error is [outbox.ErrPermanent] unless it is marked
	// otherwise.
	Route func(*outbox.Message) (Endpoint, error) `json:"-"`

	// Events writes the attributes of the event.
	Events *cloudevents.Codec `json:"-"`

	// Allow holds networks that may be connected to although they are not public. Default: none.
	Allow []netip.Prefix `json:"allow,omitempty"`

	// PlainHTTP allows URLs with http. Default: https only.
	PlainHTTP bool `json:"plainHttp,omitempty"`

	// Timeout bounds one request, apart from the context's deadline. Default 10 s.
	Timeout time.Duration `json:"timeout,omitempty"`

	// Concurrency is the largest number of requests of one batch at a time, 1 to 4096. Default 32.
	Concurrency int `json:"concurrency,omitempty"`

	// TLS is used for https. Nil: Go's defaults.
	TLS *tls.Config `json:"-"`

	// Resolver resolves the names of endpoints. Nil: [net.DefaultResolver].
	Resolver *net.Resolver `json:"-"`
}

// MarshalJSON encodes the fields that are set, durations as strings ("1.5s"); secrets and functions are left out.
func (c Config) MarshalJSON() ([]byte, error) { return configjson.Marshal(c) }

// UnmarshalJSON decodes what MarshalJSON encodes. Fields that data does not name keep their values, unknown ones are an error.
func (c *Config) UnmarshalJSON(data []byte) error { return configjson.Unmarshal(data, c) }

// Validate reports every fault of the configuration, joined. It shows no secret.
func (c Config) Validate() error {
	var errs []error
	fixed := c.Endpoint.URL != "" || len(c.Endpoint.Secrets) > 0
	switch {
	case fixed && c.Route != nil:
		errs = append(errs, errors.New("webhookpub: Endpoint and Route are both set"))
	case !fixed && c.Route == nil:
		errs = append(errs, errors.New("webhookpub: neither Endpoint nor Route is set"))
	case fixed:
		if _, err := c.Endpoint.resolve(c.PlainHTTP); err != nil {
			errs = append(errs, fmt.Errorf("webhookpub: Endpoint: %w", err))
		}
	}
	if c.Events == nil {
		errs = append(errs, errors.New("webhookpub: Events is nil, want a cloudevents.Codec"))
	}
	for i, p := range c.Allow {
		if !p.IsValid() {
			errs = append(errs, fmt.Errorf("webhookpub: Allow[%d] is not a network", i))
		}
	}
	if c.Timeout < 0 {
		errs = append(errs, fmt.Errorf("webhookpub: Timeout is %v, want 0 (default) or more", c.Timeout))
	}
	if c.Concurrency < 0 || c.Concurrency > 4096 {
		errs = append(errs, fmt.Errorf("webhookpub: Concurrency is %d, want 0 (default) to 4096", c.Concurrency))
	}
	return errors.Join(errs...)
}

// Publisher is an [outbox.Publisher] and an [outbox.Checker]. It is safe for concurrent use. It should be closed.
type Publisher struct {
	config Config
	client *http.Client
	dialer *net.Dialer
	closed atomic.Bool
}

var (
	_ outbox.Publisher = (*Publisher)(nil)
	_ outbox.Checker   = (*Publisher)(nil)
)

// New returns a publisher. It does no I/O. It panics with [Config.Validate]'s error.
func New(c Config) *Publisher {
	if err := c.Validate(); err != nil {
		panic(err)
	}
	if c.Timeout == 0 {
		c.Timeout = 10 * time.Second
	}
	if c.Concurrency == 0 {
		c.Concurrency = 32
	}
	dialer := &net.Dialer{Timeout: c.Timeout, Resolver: c.Resolver, ControlContext: guard(c.Allow)}
	return &Publisher{
		config: c,
		dialer: dialer,
		client: &http.Client{
			Transport: &http.Transport{
				Proxy:                  nil, // see the package's comment
				DialContext:            dialer.DialContext,
				TLSClientConfig:        c.TLS.Clone(),
				ForceAttemptHTTP2:      true,
				MaxIdleConns:           256,
				MaxIdleConnsPerHost:    c.Concurrency,
				IdleConnTimeout:        90 * time.Second,
				TLSHandshakeTimeout:    c.Timeout,
				MaxResponseHeaderBytes: maxAnswer,
				DisableCompression:     true, // answers are thrown away
			},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// Publish implements [outbox.Publisher].
func (p *Publisher) Publish(ctx context.Context, batch []*outbox.Message, result []error) {
	if p.closed.Load() {
		for i := range result {
			result[i] = outbox.Unavailable(ErrClosed)
		}
		return
	}
	next := atomic.Int64{}
	workers := min(p.config.Concurrency, len(batch))
	done := make(chan struct{}, workers)
	for range workers {
		go func() {
			defer func() { done <- struct{}{} }()
			for i := next.Add(1) - 1; int(i) < len(batch); i = next.Add(1) - 1 {
				if ctx.Err() != nil {
					result[i] = outbox.Unavailable(fmt.Errorf("webhookpub: not sent: %w", context.Cause(ctx)))
					continue
				}
				result[i] = p.post(ctx, batch[i])
			}
		}()
	}
	for range workers {
		<-done // requests end with ctx, so this does too
	}
}

// Check implements [outbox.Checker]. It connects to Config.Endpoint, without a request, and reports an address that is not public; an endpoint that does not
// answer is marked [outbox.ErrUnavailable]. With Route there is nothing to look at. The horizon is not looked at.
func (p *Publisher) Check(ctx context.Context, _ time.Duration) error {
	if p.config.Route != nil {
		return nil
	}
	u, err := p.config.Endpoint.resolve(p.config.PlainHTTP)
	if err != nil {
		return err
	}
	port := u.Port()
	if port == "" {
		port = u.Scheme // names of services that the resolver knows: 80 and 443
	}
	ctx, cancel := context.WithTimeout(ctx, p.config.Timeout)
	defer cancel()
	conn, err := p.dialer.DialContext(ctx, "tcp", net.JoinHostPort(u.Hostname(), port))
	if err != nil {
		return judge(err)
	}
	return conn.Close()
}

// Close closes idle connections. Later calls of Publish fail with [ErrClosed].
func (p *Publisher) Close() error {
	p.closed.Store(true)
	p.client.CloseIdleConnections()
	return nil
}

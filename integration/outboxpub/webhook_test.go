package outboxpub_test

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/cloudevents"
	"github.com/backstay-go/backstay/outbox/outboxtest"
	"github.com/backstay-go/backstay/outbox/webhookpub"
)

// receiver keeps what is posted to it, by the last part of the path.
type receiver struct {
	mu   sync.Mutex
	held map[string][]*outbox.Message
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(io.LimitReader(req.Body, 1<<20+1))
	topic := strings.TrimPrefix(req.URL.Path, "/")
	switch {
	case err != nil:
		return
	case len(body) > 1<<20:
		w.WriteHeader(http.StatusRequestEntityTooLarge)
		return
	case topic == "nowhere":
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	m, err := webhookpub.Decode(req.Header, body)
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	r.mu.Lock()
	r.held[topic] = append(r.held[topic], m)
	r.mu.Unlock()
}

func TestWebhookConformance(t *testing.T) {
	r := &receiver{held: make(map[string][]*outbox.Message)}
	server := httptest.NewServer(r)
	t.Cleanup(server.Close)
	proxy := newProxy(t, server.Listener.Addr().(*net.TCPAddr).String())
	outboxtest.TestPublisher(t, outboxtest.Broker{
		New: func(testing.TB) outbox.Publisher {
			return webhookpub.New(webhookpub.Config{
				Route: func(m *outbox.Message) (webhookpub.Endpoint, error) {
					return webhookpub.Endpoint{URL: "http://" + proxy.Addr() + "/" + m.Topic}, nil
				},
				Events: cloudevents.New(cloudevents.Config{Source: "/test"}), PlainHTTP: true,
				Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
			})
		},
		Topic: func(testing.TB) string { return unique("topic") },
		Read: func(_ testing.TB, topic string, n int) []*outbox.Message {
			until := time.Now().Add(2 * time.Second)
			for {
				r.mu.Lock()
				got := append([]*outbox.Message(nil), r.held[topic]...)
				r.mu.Unlock()
				if len(got) >= n || time.Now().After(until) {
					return got
				}
			}
		},
		Missing:  "nowhere",
		TooLarge: 2 << 20,
		Cut:      proxy.Cut, Mend: proxy.Mend, Deafen: proxy.Deafen, Hear: proxy.Hear,
	})
}

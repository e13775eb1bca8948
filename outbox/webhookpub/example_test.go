package webhookpub_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"

	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/cloudevents"
	"github.com/backstay-go/backstay/outbox/webhookpub"
)

// A receiver verifies and decodes; the sender must be told that this one may stand on a private address.
func Example() {
	secret := "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
		if err == nil {
			err = webhookpub.Verify(r.Header, body, 0, secret)
		}
		if err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		m, err := webhookpub.Decode(r.Header, body)
		fmt.Println("received", m.Topic, m.Key, string(m.Payload), err)
	}))
	defer receiver.Close()

	publisher := webhookpub.New(webhookpub.Config{
		Endpoint:  webhookpub.Endpoint{URL: receiver.URL, Secrets: []string{secret}},
		Events:    cloudevents.New(cloudevents.Config{Source: "/shop"}),
		PlainHTTP: true,
		Allow:     []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")},
	})
	defer publisher.Close()
	result := make([]error, 1) // a relay's part
	publisher.Publish(context.Background(), []*outbox.Message{{ID: outbox.NewID(), Topic: "order.created", Key: "7", Payload: []byte(`{}`)}}, result)
	fmt.Println("result", result[0])
	// Output:
	// received order.created 7 {} <nil>
	// result <nil>
}

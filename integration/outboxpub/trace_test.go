package outboxpub_test

import (
	"context"
	"testing"

	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/consumer"
	"go.opentelemetry.io/otel/trace"
)

// The handler's context has the enqueue as its remote parent, whatever the process of the consumer is doing.
func TestConsumerTrace(t *testing.T) {
	m := newMessage("t", "k", "x")
	m.Headers = map[string]string{"Traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"} // as net/http spells it
	var got trace.SpanContext
	consumer.Handle(t.Context(), consumer.Config{}.WithDefaults(), func(ctx context.Context, _ *outbox.Message) error {
		got = trace.SpanContextFromContext(ctx)
		return nil
	}, m)
	if got.TraceID().String() != "0af7651916cd43dd8448eb211c80319c" || got.SpanID().String() != "b7ad6b7169203331" || !got.IsRemote() || !got.IsSampled() {
		t.Errorf("got %v (remote: %v), want the enqueue's span", got, got.IsRemote())
	}
}

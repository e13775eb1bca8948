package outbox_test

import (
	"context"
	"database/sql"
	"testing"

	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/outboxsql"
	"github.com/backstay-go/backstay/outbox/outboxtest"
	"go.opentelemetry.io/otel"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
)

// The trace goes from the enqueue to the consumer, however long the message lay in between; the publication links to it.
func TestTrace(t *testing.T) {
	spans := tracetest.NewInMemoryExporter()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans))
	before := otel.GetTracerProvider()
	otel.SetTracerProvider(provider)
	t.Cleanup(func() { otel.SetTracerProvider(before) })
	box, db := open(t, outboxsql.SQLite)
	ctx, root := provider.Tracer("test").Start(t.Context(), "request")
	shared := map[string]string{"a": "b"}
	if err := box.InTx(ctx, db, func(tx *sql.Tx) error {
		return box.Enqueue(ctx, tx, outbox.Message{ID: "m", Topic: "orders", Key: "k", Payload: []byte("secret"), Headers: shared})
	}); err != nil {
		t.Fatal(err)
	}
	root.End()
	if len(shared) != 1 {
		t.Errorf("the caller's headers were written to: %v", shared)
	}
	rec := &outboxtest.Recorder{}
	relay := outbox.NewRelay(box.Source(db), rec, outbox.RelayConfig{})
	ended := make(chan error, 1)
	go func() { ended <- relay.Run(context.Background()) }()
	m := wait(t, rec, 1)[0]
	if err := relay.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	var enqueue, publish tracetest.SpanStub
	for _, s := range spans.GetSpans() {
		switch s.Name {
		case "enqueue orders":
			enqueue = s
		case "publish":
			publish = s
		}
		for _, a := range s.Attributes {
			if a.Value.String() == "secret" {
				t.Errorf("span %s: attribute %s holds the payload", s.Name, a.Key)
			}
		}
	}
	if enqueue.Parent.SpanID() != root.SpanContext().SpanID() || enqueue.SpanKind != trace.SpanKindProducer {
		t.Errorf("the enqueue's parent: got %v, want the request", enqueue.Parent.SpanID())
	}
	consumer := trace.SpanContextFromContext(outbox.Extract(context.Background(), m.Headers))
	if consumer.SpanID() != enqueue.SpanContext.SpanID() || consumer.TraceID() != root.SpanContext().TraceID() || !consumer.IsRemote() {
		t.Errorf("the consumer's parent: got %v, want the enqueue %v", consumer, enqueue.SpanContext)
	}
	if len(publish.Links) != 1 || publish.Links[0].SpanContext.SpanID() != enqueue.SpanContext.SpanID() {
		t.Errorf("the publication's links: got %v, want the enqueue", publish.Links)
	}
}

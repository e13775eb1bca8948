package outbox

import (
	"context"
	"maps"
	"net/http"
	"strings"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

const scope = "github.com/backstay-go/backstay/outbox"

// propagator is the global one, or W3C trace context where none was set.
func propagator() propagation.TextMapPropagator {
	p := otel.GetTextMapPropagator()
	if len(p.Fields()) == 0 {
		return propagation.TraceContext{}
	}
	return p
}

// carrier is a message's headers, whose names are without regard to case.
type carrier map[string]string

func (c carrier) Get(key string) string {
	if v, ok := c[key]; ok {
		return v
	}
	for k, v := range c {
		if strings.EqualFold(k, key) {
			return v
		}
	}
	return ""
}
func (c carrier) Set(key, value string) { c[key] = value }
func (c carrier) Keys() []string {
	keys := make([]string, 0, len(c))
	for k := range c {
		keys = append(keys, k)
	}
	return keys
}

// Inject puts the trace context of ctx into the message's headers, as enqueue does; a message that carries one keeps it.
// The headers are copied first, so that a map that several messages share is not written to.
func Inject(ctx context.Context, m *Message) {
	if !trace.SpanContextFromContext(ctx).IsValid() {
		return
	}
	p := propagator()
	for _, field := range p.Fields() {
		if carrier(m.Headers).Get(field) != "" {
			return
		}
	}
	headers := make(carrier, len(m.Headers)+2)
	maps.Copy(headers, m.Headers)
	p.Inject(ctx, headers)
	m.Headers = headers
}

// Extract returns ctx with the trace context that the headers carry, however long ago it was put there: the parent of the consumer's span.
func Extract(ctx context.Context, headers map[string]string) context.Context {
	return propagator().Extract(ctx, carrier(headers))
}

// ExtractHTTP is [Extract] for a message that came as an HTTP request.
func ExtractHTTP(ctx context.Context, h http.Header) context.Context {
	return propagator().Extract(ctx, propagation.HeaderCarrier(h))
}

// StartEnqueue starts the span of an enqueue, for authors of stores; end takes its error. Without a tracing SDK it does nothing.
func StartEnqueue(ctx context.Context, topic string, messages int) (_ context.Context, end func(error)) {
	if !trace.SpanContextFromContext(ctx).IsValid() {
		return ctx, func(error) {} // an enqueue is part of something; alone it is not worth a trace
	}
	ctx, span := otel.Tracer(scope).Start(ctx, "enqueue "+topic, trace.WithSpanKind(trace.SpanKindProducer))
	if span.IsRecording() {
		span.SetAttributes(attribute.String("messaging.system", "outbox"), attribute.String("messaging.operation.type", "create"),
			attribute.String("messaging.destination.name", topic), attribute.Int("messaging.batch.message_count", messages))
	}
	return ctx, func(err error) {
		if err != nil {
			span.SetStatus(codes.Error, "enqueue failed")
		}
		span.End()
	}
}

// maxLinks is the SDK's default limit of links on a span (OTEL_SPAN_LINK_COUNT_LIMIT).
const maxLinks = 128

// publishing starts the span of one call of Publish, linked to the enqueues.
func (t *instruments) publishing(ctx context.Context, messages []*Message) (context.Context, func([]error)) {
	ctx, span := t.tracer.Start(ctx, "publish", trace.WithSpanKind(trace.SpanKindProducer), trace.WithNewRoot())
	if !span.IsRecording() {
		return ctx, func([]error) { span.End() }
	}
	span.SetAttributes(attribute.String("messaging.system", "outbox"), attribute.String("messaging.operation.type", "send"),
		attribute.Int("messaging.batch.message_count", len(messages)))
	p := propagator()
	for _, m := range messages[:min(len(messages), maxLinks)] {
		from := trace.SpanContextFromContext(p.Extract(context.Background(), carrier(m.Headers)))
		if from.IsValid() {
			span.AddLink(trace.Link{SpanContext: from, Attributes: []attribute.KeyValue{attribute.String("messaging.message.id", m.ID)}})
		}
	}
	return ctx, func(errs []error) {
		failed := 0
		for _, err := range errs {
			if err != nil {
				failed++
			}
		}
		if failed > 0 {
			span.SetAttributes(attribute.Int("backstay.outbox.failed", failed))
			span.SetStatus(codes.Error, "not all published")
		}
		span.End()
	}
}

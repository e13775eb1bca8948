package telemetry

import (
	"context"
	"net/http"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/backstay-go/backstay"
)

// ResendCount returns a transport that numbers repeated requests: the span in the request's context, which is the attempt's when otelhttp stands outside, gets
// http.request.resend_count for every attempt but the first and every hop of a redirect, as the semantic conventions for HTTP spans ask. A nil base
// is http.DefaultTransport.
func ResendCount(base http.RoundTripper) http.RoundTripper {
	if base == nil {
		base = http.DefaultTransport
	}
	return &resendCount{base}
}

type resendCount struct{ base http.RoundTripper }

func (r *resendCount) RoundTrip(req *http.Request) (*http.Response, error) {
	if span := trace.SpanFromContext(req.Context()); span.IsRecording() {
		n := resends(req.Context())
		for hop := req; hop.Response != nil && hop.Response.Request != nil; hop = hop.Response.Request {
			n++
		}
		if n > 0 {
			span.SetAttributes(attribute.Int("http.request.resend_count", n))
		}
	}
	return r.base.RoundTrip(req)
}

func (r *resendCount) CloseIdleConnections() {
	if c, ok := r.base.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// resends is how many attempts came before that of ctx.
func resends(ctx context.Context) int {
	if call := backstay.CallFrom(ctx); call != nil {
		return call.Attempt() - 1
	}
	return 0
}

// AnnotateResend gives the span in ctx, which is that of an attempt, backstay.resend_count when others came before: what [ResendCount] does for HTTP, for
// protocols whose semantic conventions have no such attribute.
func AnnotateResend(ctx context.Context) {
	if span := trace.SpanFromContext(ctx); span.IsRecording() {
		if n := resends(ctx); n > 0 {
			span.SetAttributes(attribute.Int("backstay.resend_count", n))
		}
	}
}

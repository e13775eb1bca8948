package telemetry

import (
	"context"
	"net/http"
	"net/url"
	"reflect"
	"strconv"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/backstay-go/backstay"
)

// scope is the name of the instrumentation.
const scope = "github.com/backstay-go/backstay"

// Span is the logical span of a call. A nil Span does nothing.
type Span struct{ span trace.Span }

// StartHTTP starts the logical span of an HTTP call when the span in ctx records, by the provider of that span. The context is for the call's
// attempts, whose spans are then children of this one. Otherwise it returns ctx and nil.
func StartHTTP(ctx context.Context, method string, u *url.URL) (context.Context, *Span) {
	caller := trace.SpanFromContext(ctx)
	if !caller.IsRecording() {
		return ctx, nil
	}
	if method == "" {
		method = http.MethodGet
	}
	attrs := []attribute.KeyValue{attribute.String("http.request.method", method)}
	if u != nil {
		attrs = append(attrs, attribute.String("server.address", u.Hostname()))
		if port, err := strconv.Atoi(u.Port()); err == nil {
			attrs = append(attrs, attribute.Int("server.port", port))
		}
	}
	ctx, span := caller.TracerProvider().Tracer(scope).Start(ctx, "backstay "+method,
		trace.WithSpanKind(trace.SpanKindInternal), trace.WithAttributes(attrs...))
	return ctx, &Span{span}
}

// End ends the span with what the caller of the call gets: the status of a response, or an error. Errors are told by their
// type, never by their text.
func (s *Span) End(status int, err error) {
	if s == nil {
		return
	}
	switch {
	case err != nil:
		s.span.SetStatus(codes.Error, "")
		s.span.SetAttributes(attribute.String("error.type", errorType(err)))
	case status >= 400:
		s.span.SetStatus(codes.Error, "")
		s.span.SetAttributes(attribute.String("error.type", strconv.Itoa(status)))
	}
	s.span.End()
}

// errorType returns a name of few distinct values: of the policy that refused, else of the error's Go type.
func errorType(err error) string {
	for e := err; e != nil; {
		if r, ok := e.(*backstay.Rejected); ok {
			return r.Policy
		}
		u, ok := e.(interface{ Unwrap() error })
		if !ok {
			break
		}
		e = u.Unwrap()
	}
	return reflect.TypeOf(err).String()
}

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
		n := 0
		if call := backstay.CallFrom(req.Context()); call != nil {
			n = call.Attempt() - 1
		}
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

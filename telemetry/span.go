package telemetry

import (
	"context"
	"net/http"
	"net/url"
	"reflect"
	"strconv"
	"sync"
	"sync/atomic"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/internal/tap"
)

// Span is the logical span of a call: it has the whole call, waits included, and what the policies did as its events. A nil Span does
// nothing.
type Span struct{ in spanEvents }

// Spans starts logical spans, and remembers what those of an operation are made of. Keep one for as long as the pipeline. The zero value
// works; all methods are safe for concurrent use.
type Spans struct {
	recent atomic.Pointer[blank] // the one asked for last: most clients do one thing most of the time

	mu    sync.RWMutex
	known map[operation]*blank // guarded by mu; at most maxBlanks
}

// maxBlanks bounds the operations that are remembered. What a span of another is made of is put together each time.
const maxBlanks = 1024

// operation is what calls have in common: the kind of call, its name or method, and where it goes.
type operation struct {
	kind     Calls
	name, at string
}

// blank is what all logical spans of an operation have in common.
type blank struct {
	of       operation
	provider trace.TracerProvider
	tracer   trace.Tracer
	name     string
	options  []trace.SpanStartOption
	after    []attribute.KeyValue // set when the span has begun: they say what its name does
}

// Start starts a logical span for the next call made with the context that it returns, when the span in ctx records, by the provider of that span. name is the
// operation: few distinct values. Otherwise it returns ctx and nil. End the span with what the call returned.
//
//	ctx, span := spans.Start(ctx, "charge")
//	v, err := backstay.Do(ctx, pipeline, charge)
//	span.End(telemetry.ErrorType(err))
func (s *Spans) Start(ctx context.Context, name string) (context.Context, *Span) {
	caller := trace.SpanFromContext(ctx)
	if !caller.IsRecording() {
		return ctx, nil
	}
	return s.start(ctx, caller, operation{Functions, name, ""})
}

// StartHTTP is [Spans.Start] for an HTTP request.
func (s *Spans) StartHTTP(ctx context.Context, method string, u *url.URL) (context.Context, *Span) {
	caller := trace.SpanFromContext(ctx)
	if !caller.IsRecording() {
		return ctx, nil
	}
	host := ""
	if u != nil {
		host = u.Host
	}
	return s.start(ctx, caller, operation{HTTP, method, host})
}

// StartRPC is [Spans.Start] for a call of gRPC, with its method as "package.Service/Method" and the target of its connection.
func (s *Spans) StartRPC(ctx context.Context, method, target string) (context.Context, *Span) {
	caller := trace.SpanFromContext(ctx)
	if !caller.IsRecording() {
		return ctx, nil
	}
	return s.start(ctx, caller, operation{RPC, method, target})
}

func (s *Spans) start(ctx context.Context, caller trace.Span, of operation) (context.Context, *Span) {
	b := s.blank(caller.TracerProvider(), of)
	inner, span := b.tracer.Start(ctx, b.name, b.options...)
	if b.after != nil {
		span.SetAttributes(b.after...)
	}
	if ctx.Value(tap.Key{}) != nil { // somebody watches already
		l := &Span{spanEvents{span}}
		return backstay.WithObserver(inner, &l.in), l
	}
	l := &logical{Context: inner, Span: Span{spanEvents{span}}}
	return l, &l.Span
}

// logical is a logical span, the context of its call, and the observer of that: one allocation.
type logical struct {
	context.Context
	Span
	timeless
	pipeline backstay.Observer // nil: none; set once, before the call begins
	taken    atomic.Bool       // a call has begun
}

// Value implements context.Context.
func (l *logical) Value(key any) any {
	if _, ok := key.(tap.Key); ok {
		return l
	}
	return l.Context.Value(key)
}

// Join takes the observer of the pipeline in that makes the call. Others that are made with the same context get an observer of their own.
func (l *logical) Join(pipeline backstay.Observer) backstay.Observer {
	if !l.taken.CompareAndSwap(false, true) {
		return backstay.Observers(pipeline, &l.in)
	}
	l.pipeline = pipeline
	return l
}

// Observe implements backstay.Observer.
func (l *logical) Observe(ctx context.Context, e backstay.Event) {
	if e.Kind != backstay.EventCall && e.Kind != backstay.EventAttempt {
		l.in.Observe(ctx, e)
	}
	switch o := l.pipeline.(type) {
	case nil:
	case *Observer: // the rule; an Event is large
		o.observe(ctx, &e)
	default:
		o.Observe(ctx, e)
	}
}

// blank returns what spans of an operation have in common.
func (s *Spans) blank(provider trace.TracerProvider, of operation) *blank {
	if b := s.recent.Load(); b != nil && b.of == of && b.provider == provider {
		return b
	}
	if reflect.TypeOf(provider).Kind() != reflect.Pointer {
		return newBlank(provider, of) // it may not be comparable
	}
	s.mu.RLock()
	b := s.known[of]
	s.mu.RUnlock()
	if b == nil || b.provider != provider {
		b = newBlank(provider, of)
		s.mu.Lock()
		if _, ok := s.known[of]; !ok && len(s.known) >= maxBlanks {
			s.mu.Unlock()
			return b
		}
		if s.known == nil {
			s.known = map[operation]*blank{}
		}
		s.known[of] = b
		s.mu.Unlock()
	}
	s.recent.Store(b)
	return b
}

func newBlank(provider trace.TracerProvider, of operation) *blank {
	b := &blank{of: of, provider: provider, tracer: provider.Tracer(scope), name: of.name}
	var attrs []attribute.KeyValue
	switch of.kind {
	case HTTP:
		switch {
		case of.name == "":
			b.name = http.MethodGet
		case !knownMethod(of.name):
			b.name = otherError // as the semantic conventions have it
		}
		attrs = append(attrs, attribute.String("http.request.method", b.name))
		if u := (&url.URL{Host: of.at}); of.at != "" {
			attrs = append(attrs, attribute.String("server.address", u.Hostname()))
			if port, err := strconv.Atoi(u.Port()); err == nil {
				attrs = append(attrs, attribute.Int("server.port", port))
			}
		}
	case RPC:
		attrs = append(attrs, attribute.String("rpc.system.name", "grpc"), attribute.String("rpc.method", of.name), attribute.String("server.address", of.at))
	default:
		// A sampler has it by the span's name. As an option it would be copied twice.
		b.after = []attribute.KeyValue{keyCall.String(of.name)}
	}
	b.name = "backstay " + b.name
	if attrs != nil {
		b.options = []trace.SpanStartOption{trace.WithAttributes(attrs...)}
	}
	return b
}

// Events has the span in ctx get what the policies do in the next call as its events, when it records: in place of a logical span.
func Events(ctx context.Context) context.Context {
	if span := trace.SpanFromContext(ctx); span.IsRecording() {
		return backstay.WithObserver(ctx, &spanEvents{span})
	}
	return ctx
}

// End ends the span. errorType is "" when the call ended well, whatever its attempts did; else a name as [ErrorType] returns, or the status of an
// answer. No text of an error is in the span: it may hold secrets.
func (s *Span) End(errorType string) {
	if s == nil {
		return
	}
	if errorType != "" {
		s.in.span.SetStatus(codes.Error, "")
		s.in.span.SetAttributes(keyErrorType.String(errorType))
	}
	s.in.span.End()
}

// spanEvents writes what policies do to a span.
type spanEvents struct{ span trace.Span }

// Observe implements backstay.Observer.
func (s *spanEvents) Observe(_ context.Context, e backstay.Event) {
	switch e.Kind {
	case backstay.EventCall, backstay.EventAttempt, backstay.EventStale, backstay.EventEvict, backstay.EventLimit:
		return // the span itself, its children, and what is not this call's
	}
	attrs := make([]attribute.KeyValue, 0, 9)
	text := func(k attribute.Key, v string) {
		if v != "" {
			attrs = append(attrs, k.String(v))
		}
	}
	text(keyPolicyType, e.Policy)
	text(keyPolicyName, e.Name)
	text(keyReason, e.Reason)
	text(keyKey, e.Key)
	text(keyFrom, e.From)
	text(keyTo, e.To)
	if e.Err != nil {
		text(keyErrorType, ErrorType(e.Err))
	}
	attrs = append(attrs, keyAttempt.Int(e.Attempt))
	if delay := max(e.Wait, e.Elapsed); delay > 0 {
		attrs = append(attrs, keyDelay.Float64(delay.Seconds()))
	}
	s.span.AddEvent("backstay."+e.Kind.String(), trace.WithAttributes(attrs...))
}

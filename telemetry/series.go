package telemetry

import (
	"context"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// What is not told apart any more, because there are too many of its kind.
const (
	otherLabel = "_other" // a key, a call, a policy's name, a reason
	otherError = "_OTHER" // an error.type, as the semantic conventions have it
)

const (
	// defaultKeys is how many keys have labels of their own. With a handful of outcomes each it stays below the 2,000 series for each
	// instrument at which the SDK begins to throw all others together.
	defaultKeys = 256
	maxCalls    = 256
	maxNames    = 256
	maxReasons  = 64
	maxErrors   = 64
	// maxSeries bounds the sets of attributes that are kept ready. Beyond it they are built for each measurement.
	maxSeries = 4096
)

// labels is what tells measurements apart. Empty fields are left out.
type labels struct {
	call, key, policy, name string // who
	first, second           string // of a kind that the instrument decides: outcome and error type, from and to
}

// shape says what first and second of labels are, and whether the call and the server belong to the measurement.
type shape struct {
	first, second attribute.Key
	calls         bool
}

// series is a set of attributes in the forms that instruments take, made once: handed on as they are, they cost no allocation.
type series struct {
	add    []metric.AddOption
	record []metric.RecordOption
	attrs  metric.MeasurementOption

	kept    bool         // the book has it, and so counts the attempts in pending when metrics are collected
	pending atomic.Int64 // not yet added to the counter of attempts
	_       [48]byte     // the fields above are read for each call: pending has a cache line of its own
}

// book keeps series, and bounds how many distinct values each label has.
type book struct {
	client string
	calls  Calls
	shape  shape

	recent atomic.Pointer[page] // the one asked for last: most clients do one thing most of the time
	mu     sync.RWMutex
	known  map[labels]*page // guarded by mu
	set    *values          // shared by the books of an observer
}

// page is a series and the labels that it was asked for by.
type page struct {
	of labels
	*series
}

// values are those that have labels of their own: the first to come.
type values struct {
	keys int

	mu   sync.Mutex
	seen [5]map[string]struct{} // guarded by mu; by one of the constants below
}

const (
	ofKey = iota
	ofCall
	ofName
	ofReason
	ofError
)

// bound returns v, or other when there are too many of its kind.
func (s *values) bound(kind int, v, other string, limit int) string {
	if v == "" {
		return ""
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.seen[kind][v]; ok {
		return v
	}
	if len(s.seen[kind]) >= limit {
		return other
	}
	if s.seen[kind] == nil {
		s.seen[kind] = map[string]struct{}{}
	}
	s.seen[kind][v] = struct{}{}
	return v
}

// of returns the series of l.
func (b *book) of(l *labels) *series {
	if p := b.recent.Load(); p != nil && p.of == *l {
		return p.series
	}
	b.mu.RLock()
	p := b.known[*l]
	b.mu.RUnlock()
	if p != nil {
		b.recent.Store(p)
		return p.series
	}
	bounded := b.bound(*l)
	b.mu.Lock()
	defer b.mu.Unlock()
	if p = b.known[bounded]; p == nil {
		p = &page{bounded, b.make(bounded)}
		p.kept = b.keep(p)
	}
	if *l != bounded && !b.overflows(bounded) { // a stranger's labels are not worth remembering
		b.keep(&page{*l, p.series})
	}
	return p.series
}

// keep remembers a series, and reports whether there was room. Called with mu held.
func (b *book) keep(p *page) bool {
	if len(b.known) >= maxSeries {
		return false
	}
	if b.known == nil {
		b.known = map[labels]*page{}
	}
	b.known[p.of] = p
	return true
}

// settle adds what is pending to its counter.
func (b *book) settle(to metric.Int64Counter) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	for _, p := range b.known {
		if n := p.pending.Swap(0); n > 0 {
			to.Add(context.Background(), n, p.add...)
		}
	}
}

// overflows reports whether some label of l stands for all others.
func (b *book) overflows(l labels) bool {
	return l.call == otherLabel || l.key == otherLabel || l.name == otherLabel || l.first == otherLabel || l.second == otherError
}

func (b *book) bound(l labels) labels {
	if !b.shape.calls {
		l.call = ""
	}
	l.key = b.set.bound(ofKey, l.key, otherLabel, b.set.keys)
	l.call = b.set.bound(ofCall, l.call, otherLabel, maxCalls)
	if l.name == l.key {
		l.name = "" // a keyed policy is named by its key
	}
	if l.key == otherLabel {
		l.name = ""
	}
	l.name = b.set.bound(ofName, l.name, otherLabel, maxNames)
	l.policy = b.set.bound(ofName, l.policy, otherLabel, maxNames)
	l.first = b.set.bound(ofReason, l.first, otherLabel, maxReasons)
	if b.shape.second == keyErrorType {
		l.second = b.set.bound(ofError, l.second, otherError, maxErrors)
	} else {
		l.second = b.set.bound(ofReason, l.second, otherLabel, maxReasons)
	}
	return l
}

// make builds the attributes of l.
func (b *book) make(l labels) *series {
	attrs := make([]attribute.KeyValue, 0, 10)
	text := func(k attribute.Key, v string) {
		if v != "" && k != "" {
			attrs = append(attrs, k.String(v))
		}
	}
	text(keyClient, b.client)
	attrs = append(attrs, b.call(l.call)...)
	text(keyKey, l.key)
	if b.shape.calls {
		attrs = append(attrs, server(l.key)...)
	}
	text(keyPolicyType, l.policy)
	text(keyPolicyName, l.name)
	text(b.shape.first, l.first)
	text(b.shape.second, l.second)
	o := metric.WithAttributeSet(attribute.NewSet(attrs...))
	return &series{add: []metric.AddOption{o}, record: []metric.RecordOption{o}, attrs: o}
}

// call returns the attributes of an operation's name.
func (b *book) call(name string) []attribute.KeyValue {
	switch {
	case name == "":
		return nil
	case b.calls == RPC && name != otherLabel:
		return []attribute.KeyValue{attribute.String("rpc.system.name", "grpc"), attribute.String("rpc.method", strings.TrimPrefix(name, "/"))}
	case b.calls == HTTP && knownMethod(name):
		return []attribute.KeyValue{attribute.String("http.request.method", name)}
	}
	return []attribute.KeyValue{keyCall.String(name)}
}

// knownMethod reports whether name is a method that the semantic conventions know. Others become names of calls.
func knownMethod(name string) bool {
	switch name {
	case "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY":
		return true
	}
	return false
}

// server returns server.address and server.port of a key that is an origin, as httpclient's are.
func server(key string) []attribute.KeyValue {
	if !strings.Contains(key, "://") {
		return nil
	}
	u, err := url.Parse(key)
	if err != nil || u.Hostname() == "" {
		return nil
	}
	attrs := []attribute.KeyValue{attribute.String("server.address", u.Hostname())}
	if port, err := strconv.Atoi(u.Port()); err == nil {
		attrs = append(attrs, attribute.Int("server.port", port))
	}
	return attrs
}

package telemetry

import (
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// scope is the name of the instrumentation.
const scope = "github.com/backstay-go/backstay"

// Attributes for which there is no semantic convention. docs/telemetry.yaml says what each means.
const (
	keyClient      = attribute.Key("backstay.client")
	keyCall        = attribute.Key("backstay.call")
	keyKey         = attribute.Key("backstay.key")
	keyPolicyType  = attribute.Key("backstay.policy.type")
	keyPolicyName  = attribute.Key("backstay.policy.name")
	keyOutcome     = attribute.Key("backstay.outcome")
	keyReason      = attribute.Key("backstay.reason")
	keyAttemptKind = attribute.Key("backstay.attempt.kind")
	keyAttempt     = attribute.Key("backstay.attempt")
	keyDelay       = attribute.Key("backstay.delay")
	keyState       = attribute.Key("backstay.breaker.state")
	keyFrom        = attribute.Key("backstay.breaker.from")
	keyTo          = attribute.Key("backstay.breaker.to")
	keyWinner      = attribute.Key("backstay.hedge.winner")
	keyErrorType   = attribute.Key("error.type")
)

// Buckets. Those of calls reach from what a cache answers in to the total timeout of package standard; they are the semantic conventions' advice for
// http.client.request.duration, and 30 s.
var (
	durationBuckets = metric.WithExplicitBucketBoundaries(0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 30)
	attemptBuckets  = metric.WithExplicitBucketBoundaries(1, 2, 3, 4, 5, 10)
)

// instruments are those of calls. They are made from the global meter provider; where no SDK stands behind it, they do nothing.
type instruments struct {
	duration   metric.Float64Histogram
	perCall    metric.Int64Histogram
	attempts   metric.Int64Counter
	delay      metric.Float64Histogram
	stops      metric.Int64Counter
	rejections metric.Int64Counter
	shadow     metric.Int64Counter
	states     metric.Int64Counter
	stale      metric.Int64Counter
	wait       metric.Float64Histogram
	timeouts   metric.Int64Counter
	abandoned  metric.Int64UpDownCounter
	hedges     metric.Int64Counter
	wins       metric.Int64Counter
	fallbacks  metric.Int64Counter
	evicted    metric.Int64Counter
	unkeyed    metric.Int64Counter
	faults     metric.Int64Counter

	breakers metric.Float64ObservableUpDownCounter
	inUse    metric.Float64ObservableUpDownCounter
	waiting  metric.Float64ObservableUpDownCounter
	limit    metric.Float64ObservableUpDownCounter
	tokens   metric.Float64ObservableUpDownCounter
	quota    metric.Float64ObservableUpDownCounter
	meter    metric.Meter
}

func newInstruments() *instruments {
	m := otel.Meter(scope)
	must := func(err error) { // a name that the API refuses is a fault of ours, and a test's to find
		if err != nil {
			otel.Handle(err)
		}
	}
	counter := func(name, unit, text string) metric.Int64Counter {
		c, err := m.Int64Counter(name, metric.WithUnit(unit), metric.WithDescription(text))
		must(err)
		return c
	}
	seconds := func(name, text string) metric.Float64Histogram {
		h, err := m.Float64Histogram(name, metric.WithUnit("s"), metric.WithDescription(text), durationBuckets)
		must(err)
		return h
	}
	gauge := func(name, unit, text string) metric.Float64ObservableUpDownCounter {
		g, err := m.Float64ObservableUpDownCounter(name, metric.WithUnit(unit), metric.WithDescription(text))
		must(err)
		return g
	}
	i := &instruments{
		meter:      m,
		duration:   seconds("backstay.call.duration", "How long calls took, waits and all attempts included"),
		attempts:   counter("backstay.attempt.count", "{attempt}", "Attempts that ended"),
		delay:      seconds("backstay.retry.delay", "Waits scheduled before another attempt"),
		stops:      counter("backstay.retry.stops", "{call}", "Calls for which a retry or a hedge made no further attempt"),
		rejections: counter("backstay.rejections", "{call}", "Calls and attempts that a policy refused"),
		shadow:     counter("backstay.shadow.rejections", "{call}", "Calls and attempts that a policy in shadow mode would have refused"),
		states:     counter("backstay.breaker.transitions", "{transition}", "Changes of state of breakers"),
		stale:      counter("backstay.breaker.stale", "{result}", "Results dropped because the breaker had changed its state meanwhile"),
		wait:       seconds("backstay.limit.wait.duration", "How long calls waited for a permit or a token, of those that got one after a wait"),
		timeouts:   counter("backstay.timeouts", "{call}", "Calls and attempts that a time limit ended"),
		hedges:     counter("backstay.hedge.attempts", "{attempt}", "Attempts started beside another"),
		wins:       counter("backstay.hedge.wins", "{call}", "Hedged calls, by the attempt that won"),
		fallbacks:  counter("backstay.fallbacks", "{call}", "Calls that a fallback answered"),
		evicted:    counter("backstay.keys.evicted", "{key}", "Keys whose state was forgotten for another"),
		unkeyed:    counter("backstay.keys.unprotected", "{call}", "Calls that ran without their keyed policy, as all keys were in use"),
		faults:     counter("backstay.chaos.faults", "{fault}", "Faults injected"),
		breakers:   gauge("backstay.breaker.count", "{breaker}", "Breakers, by their state"),
		inUse:      gauge("backstay.limit.in_use", "{permit}", "Permits taken"),
		waiting:    gauge("backstay.limit.waiting", "{call}", "Calls that wait for a permit or a token"),
		limit:      gauge("backstay.limit.max", "{permit}", "Permits in all"),
		tokens:     gauge("backstay.budget.tokens", "{token}", "Extra attempts that the budget allows now"),
		quota:      gauge("backstay.ratelimit.tokens", "{token}", "Calls that the rate limit lets start now; below zero when some wait"),
	}
	var err error
	i.perCall, err = m.Int64Histogram("backstay.call.attempts", metric.WithUnit("{attempt}"), metric.WithDescription("Attempts made for a call"), attemptBuckets)
	must(err)
	i.abandoned, err = m.Int64UpDownCounter("backstay.timeout.abandoned", metric.WithUnit("{call}"), metric.WithDescription("Functions that run on after their time limit"))
	must(err)
	return i
}

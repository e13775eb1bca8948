package httpclient

import (
	"net/http"
	"strconv"
	"time"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/telemetry"
)

// option changes a Transport's settings. It stands among the policies of [New] and does nothing as one.
type option func(*settings)

// Wrap implements backstay.Policy, so that options and policies mix.
func (o option) Wrap(next backstay.Handler) backstay.Handler { return next }

// OnAttempt runs hook before each attempt is sent, with a copy of the request that it may change: to sign it, to renew a token. It is the
// place for credentials that a repeated request needs anew. It is skipped on redirect hops that have left the first request's origin, so
// that credentials do not leak; see [OnAttemptCrossOrigin]. An error ends the call, unsent and unrepeated. Several hooks run in order.
func OnAttempt(hook func(a *Attempt) error) backstay.Policy {
	return option(func(s *settings) {
		if hook != nil {
			s.onAttempt = append(s.onAttempt, hook)
		}
	})
}

// OnAttemptCrossOrigin has the hooks of [OnAttempt] also run on hops to other origins, with Attempt.CrossOrigin set.
func OnAttemptCrossOrigin() backstay.Policy {
	return option(func(s *settings) { s.crossOrigin = true })
}

// KeyBy picks the key whose state applies to a request, in place of [Origin]. Few distinct values: no paths, no ids.
func KeyBy(key func(*http.Request) string) backstay.Policy {
	return option(func(s *settings) { s.keyBy = key })
}

// NameBy picks the operation's name for events and metrics, in place of the method. Few distinct values: no paths, no ids.
func NameBy(name func(*http.Request) string) backstay.Policy {
	return option(func(s *settings) { s.nameBy = name })
}

// TrustKeys makes unsafe requests that carry an idempotency key (the header Idempotency-Key or X-Idempotency-Key, or
// backstay.WithIdempotencyKey) repeatable. Only for servers that are known to honour them.
func TrustKeys() backstay.Policy { return option(func(s *settings) { s.trustKeys = true }) }

// IdempotencyKeys gives each unsafe request without a key a random one, the same for its attempts and for redirect hops within its
// origin, and trusts it as [TrustKeys] does.
func IdempotencyKeys() backstay.Policy {
	return option(func(s *settings) { s.makeKeys, s.trustKeys = true, true })
}

// RetryRejected repeats unsafe requests too when they were answered 429 or 503 with a Retry-After, for servers that are known to answer
// so only before they act.
func RetryRejected() backstay.Policy { return option(func(s *settings) { s.retryRefused = true }) }

// ErrorMode returns an error in place of the last response when the call ends in a status that counts as a failure: a *retry.ExhaustedError, or
// what else ended it, with a [*StatusError] inside.
func ErrorMode() backstay.Policy { return option(func(s *settings) { s.errorMode = true }) }

// BodyCap is how many bytes of a request body without GetBody are kept, while it is streamed, to be sent again. Default 64 KiB; 0 or less:
// none. A longer body is sent once.
func BodyCap(bytes int64) backstay.Policy {
	return option(func(s *settings) { s.bodyCap = max(bytes, 0) })
}

// BufferResponse reads up to that many bytes of a good response's body within the attempt, so that a body which breaks off fails the attempt and is
// repeated. Default 0: none. Event streams and upgraded connections are never buffered.
func BufferResponse(bytes int64) backstay.Policy {
	return option(func(s *settings) { s.bufferCap = max(bytes, 0) })
}

// ProgressTimeout is how long reading the response's body may block without a byte. Default 30s for a body of known length, else 5 min, and
// none for event streams and upgraded connections; a value set here holds for event streams too, a negative one for nothing.
func ProgressTimeout(d time.Duration) backstay.Policy {
	return option(func(s *settings) { s.idle = d })
}

// AttemptHeader sends the number of the attempt, from 1, in the header name.
func AttemptHeader(name string) backstay.Policy {
	return option(func(s *settings) { s.attemptName = name })
}

// DeadlineHeader sends how many milliseconds the attempt may take in the header name, so that the server can give up in time.
func DeadlineHeader(name string) backstay.Policy {
	return option(func(s *settings) { s.deadlineName = name })
}

// Metrics sets how calls are measured: the client's name, and how many hosts have labels of their own. Calls is HTTP in any case. Without it the zero
// telemetry.Config acts; where no OpenTelemetry SDK is installed nothing is measured. New panics when c is not valid.
func Metrics(c telemetry.Config) backstay.Policy {
	return option(func(s *settings) { s.metrics = c })
}

// NoMetrics measures nothing, as for a pipeline that telemetry.Attach has been given already.
func NoMetrics() backstay.Policy { return option(func(s *settings) { s.noMetrics = true }) }

// NoSpans starts no logical span: attempts' spans, and what the policies do as events, then belong to the caller's span. Without it each call whose
// caller's span records has a span of its own; see package telemetry.
func NoSpans() backstay.Policy { return option(func(s *settings) { s.noSpans = true }) }

// hasKey reports whether the request carries an idempotency key of its own, in either spelling that net/http knows.
func hasKey(h http.Header) bool {
	return h.Get("Idempotency-Key") != "" || h.Get("X-Idempotency-Key") != ""
}

// setOperation writes the headers that saga/guard's middleware reads.
func setOperation(h http.Header, op backstay.Operation) {
	if op.Key != "" {
		h.Set("Idempotency-Key", op.Key)
	}
	if op.Op != "" {
		h.Set("Saga-Op", op.Op)
	}
	if op.Epoch != 0 {
		h.Set("Saga-Epoch", strconv.FormatInt(op.Epoch, 10))
	}
}

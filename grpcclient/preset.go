package grpcclient

import (
	"context"
	"time"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/bulkhead"
	"github.com/backstay-go/backstay/hedge"
	"github.com/backstay-go/backstay/standard"
)

// Standard returns the pipeline of package standard as gRPC wants it: calls that ask for it ([Hedge]) are hedged, within the retry's budget; and
// the adaptive limit is for unary calls alone, while streams, which may stay for hours and would fill it, have a bulkhead of 1,000 for each key. It
// panics when the config is not valid.
func Standard(c standard.Config) *backstay.Pipeline {
	s := standard.Build(c)
	h := hedge.Config{DelayFor: HedgeAfter(-1), Budget: c.Retry.Budget, BudgetFor: c.Retry.BudgetFor}
	if s.Budgets != nil {
		h.BudgetFor = s.Budgets.For
	}
	streams := backstay.NewKeyed(backstay.KeyedConfig{Max: c.Keys, Idle: c.Idle, Observer: c.Observer}, func(key string) *bulkhead.Bulkhead {
		return bulkhead.New(bulkhead.Config{Name: key})
	})
	return backstay.Chain(s.Total, s.Retrying(), onRequest{hedge.New(h)}, ByKind(s.Limits, streams), s.Breakers, s.Attempt).Observe(c.Observer)
}

// onRequest is a hedge for calls that ask for one.
type onRequest struct{ *hedge.Hedge }

// Describe implements backstay.Describer.
func (h onRequest) Describe() backstay.Description {
	return backstay.Description{Kind: kindOnRequest, Detail: "1 more, for calls with the option Hedge", Pends: true} // streams are not hedged
}

const kindOnRequest = "hedge on request"

// ByKind returns a policy that is unary for unary calls and streams for streams. Either may be nil: none.
func ByKind(unary, streams backstay.Policy) backstay.Policy { return byKind{unary, streams} }

type byKind struct{ unary, streams backstay.Policy }

// Wrap implements backstay.Policy.
func (k byKind) Wrap(next backstay.Handler) backstay.Handler {
	unary, streams := backstay.Chain(k.unary).Wrap(next), backstay.Chain(k.streams).Wrap(next)
	return func(ctx context.Context, call *backstay.Call) backstay.Outcome {
		if call.Holds() {
			return streams(ctx, call)
		}
		return unary(ctx, call)
	}
}

// Describe implements backstay.Describer.
func (k byKind) Describe() backstay.Description {
	unary, streams := backstay.Chain(k.unary).Describe(), backstay.Chain(k.streams).Describe()
	return backstay.Description{Kind: "by kind", Detail: "unary, streams", Pends: streams.Pends, Inner: []backstay.Description{unary, streams}}
}

// Gauges implements backstay.Gauged.
func (k byKind) Gauges(tell func(backstay.Gauge)) {
	backstay.Chain(k.unary, k.streams).Gauges(tell)
}

// Watch implements backstay.Watchable.
func (k byKind) Watch(o backstay.Observer) (stop func()) {
	return backstay.Chain(k.unary, k.streams).Watch(o)
}

// mayRepeat reports whether a policy described by d may make more than one attempt. One that is not ours may.
func mayRepeat(d backstay.Description) bool {
	return has(d, func(d backstay.Description) bool { return d.Kind != "retry" || d.Attempts != 1 })
}

// mayHedge reports whether a policy described by d may make attempts beside each other of calls that do not ask for it. One that is not ours may.
func mayHedge(d backstay.Description) bool {
	return has(d, func(d backstay.Description) bool { return d.Kind == "hedge" })
}

// has reports whether d or what it wraps is of a kind that counts, or of none of ours.
func has(d backstay.Description, counts func(backstay.Description) bool) bool {
	switch d.Kind {
	case "breaker", "timeout", "bulkhead", "ratelimit", "fallback", "adaptive", "throttle", "chaos", "budget":
		return false
	case "retry", "hedge", kindOnRequest:
		return counts(d)
	case "pipeline", "per key", "by kind":
		for _, in := range d.Inner {
			if has(in, counts) {
				return true
			}
		}
		return false
	}
	return true
}

// never is a delay that does not pass.
const never = time.Duration(1<<63 - 1)

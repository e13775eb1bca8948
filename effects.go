package backstay

import (
	"context"
	"sync/atomic"
)

// Effects counts the requests of a context that may have had an effect, so that who answers for them can tell "it did not happen" from
// "nobody knows". httpclient counts each attempt but those of GET, HEAD, OPTIONS, TRACE and QUERY, redirects included; grpcclient each attempt but those of methods
// whose .proto says NO_SIDE_EFFECTS. An attempt of which provably nothing left this process is taken back. What other clients send is
// not counted, unless they do the same. The zero value is ready, a nil *Effects counts nothing; safe for concurrent use.
type Effects struct{ n atomic.Int64 }

// Begin counts an attempt that is about to be made.
func (e *Effects) Begin() {
	if e != nil {
		e.n.Add(1)
	}
}

// NeverSent takes the attempt of one Begin back: nothing of it has left this process.
func (e *Effects) NeverSent() {
	if e != nil {
		e.n.Add(-1)
	}
}

// Possible reports whether any attempt may have had an effect.
func (e *Effects) Possible() bool { return e != nil && e.n.Load() > 0 }

type effectsKey struct{}

// WithEffects returns a context whose requests are counted in e, and no longer in what the context above counts in.
func WithEffects(ctx context.Context, e *Effects) context.Context {
	return context.WithValue(ctx, effectsKey{}, e)
}

// EffectsFrom returns what the requests of ctx are counted in; nil if they are not.
func EffectsFrom(ctx context.Context) *Effects {
	e, _ := ctx.Value(effectsKey{}).(*Effects)
	return e
}

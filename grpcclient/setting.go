package grpcclient

import (
	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/breaker"
)

// setting changes a client's settings. It stands among the policies of [New] and does nothing as one.
type setting func(*settings)

// Wrap implements backstay.Policy, so that settings and policies mix.
func (s setting) Wrap(next backstay.Handler) backstay.Handler { return next }

// KeyBy picks the key whose breaker, limits and budget apply to a call, in place of [ByTarget]. target is that of grpc.NewClient, method
// "/package.Service/Method". Few distinct values. To share state with an httpclient, return what httpclient.Origin returns for the same host.
func KeyBy(key func(target, method string) string) backstay.Policy {
	return setting(func(s *settings) {
		if key != nil {
			s.keyBy = key
		}
	})
}

// ByTarget keys by the target of the connection, the default: one state for each server or service.
func ByTarget(target, _ string) string { return target }

// ByMethod keys by target and method, so that a method that fails leaves the others alone. It needs as much traffic to each method as ByTarget
// to all: a breaker decides on at least 20 calls.
func ByMethod(target, method string) string { return target + method }

// TrustKeys makes calls that carry an idempotency key (the metadata idempotency-key, or backstay.WithIdempotencyKey) repeatable. Only for servers
// that are known to honour them.
func TrustKeys() backstay.Policy { return setting(func(s *settings) { s.trustKeys = true }) }

// IdempotencyKeys gives each unary call that is not repeatable and has no key a random one, the same for its attempts, and trusts it as [TrustKeys] does.
func IdempotencyKeys() backstay.Policy {
	return setting(func(s *settings) { s.makeKeys, s.trustKeys = true, true })
}

// PerTarget returns a policy that has a breaker for each key, which is the target unless [KeyBy] says otherwise: [backstay.Keyed] with its defaults. The
// breakers are named by their key.
func PerTarget(c breaker.Config) *backstay.Keyed[*breaker.Breaker] {
	if err := c.Validate(); err != nil {
		panic(err)
	}
	return backstay.NewKeyed(backstay.KeyedConfig{}, func(key string) *breaker.Breaker {
		own := c
		own.Name = key
		return breaker.New(own)
	})
}

package backstay

import "context"

// Operation identifies an effect across repetitions, for participants that run each at most once.
type Operation struct {
	Key   string // the idempotency key: the same for every attempt
	Op    string // what is done under the key, for participants that also undo: "action", "compensate"; may be empty
	Epoch int64  // which owner asks; a later one has a higher number; 0: not fenced
}

type operationKey struct{}

// WithIdempotencyKey returns a context whose unsafe requests carry key: httpclient sends it as the Idempotency-Key header, grpcclient as metadata. The
// same key goes with every attempt. It makes a request repeatable only where the client is configured to trust
// keys, since most servers ignore them. An empty key removes one.
func WithIdempotencyKey(ctx context.Context, key string) context.Context {
	return WithOperation(ctx, func() (Operation, error) { return Operation{Key: key}, nil })
}

// WithOperation is [WithIdempotencyKey] for a key that depends on the request: take is called once for each call that has an
// unsafe request, before its first attempt. Its error fails that call, and nothing is sent.
func WithOperation(ctx context.Context, take func() (Operation, error)) context.Context {
	return context.WithValue(ctx, operationKey{}, take)
}

// TakeOperation returns the operation of ctx for a call that is about to be made, and the zero one when there is none. Transports
// call it once for each unsafe call.
func TakeOperation(ctx context.Context) (Operation, error) {
	take, _ := ctx.Value(operationKey{}).(func() (Operation, error))
	if take == nil {
		return Operation{}, nil
	}
	return take()
}

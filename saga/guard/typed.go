package guard

import (
	"context"
	"encoding/json"
	"fmt"
)

// An Option changes one guarded call.
type Option func(*options)

type options struct {
	epoch  int64
	report bool
}

// Epoch records the epoch of the saga's owner in the row.
func Epoch(n int64) Option { return func(o *options) { o.epoch = n } }

// ReportReplay makes [Action] return ErrReplayed beside the stored result
// when the action had run before.
func ReportReplay() Option { return func(o *options) { o.report = true } }

// Action runs fn at most once under key, in the transaction behind log, and
// returns its result. A later call with the same key returns the stored result
// and does not run fn. If the undo of key came first the error is ErrPoisoned
// and fn does not run.
//
// The result is stored as JSON, at most MaxResult bytes.
//
// On an error the caller must roll back. On nil the caller must commit, and
// must not use the result before it has.
func Action[O any](ctx context.Context, log Log, key string, fn func(context.Context) (O, error), opts ...Option) (O, error) {
	var o options
	for _, opt := range opts {
		opt(&o)
	}
	var out O
	a, err := Run(ctx, log, Call{Key: key, Op: OpAction, Epoch: o.epoch}, func(ctx context.Context, _ []byte) ([]byte, error) {
		v, err := fn(ctx)
		if err != nil {
			return nil, err
		}
		out = v
		return json.Marshal(v)
	})
	if err != nil {
		var zero O
		return zero, err
	}
	if a.How == Replayed {
		if err := json.Unmarshal(a.Result, &out); err != nil {
			return out, fmt.Errorf("guard: stored result of %q: %w", key, err)
		}
		if o.report {
			return out, ErrReplayed
		}
	}
	return out, nil
}

// Compensate undoes the action of key at most once, in the transaction behind
// log. fn gets the stored result of the action. It does not run when the
// action never happened (which is recorded, so that a late action is refused)
// nor when the undo ran before; both return nil.
//
// On an error the caller must roll back, on nil commit, whether fn ran or not.
func Compensate[O any](ctx context.Context, log Log, key string, fn func(context.Context, O) error, opts ...Option) error {
	var o options
	for _, opt := range opts {
		opt(&o)
	}
	_, err := Run(ctx, log, Call{Key: key, Op: OpCompensate, Epoch: o.epoch}, func(ctx context.Context, prior []byte) ([]byte, error) {
		var v O
		if err := json.Unmarshal(prior, &v); err != nil {
			return nil, fmt.Errorf("guard: stored result of %q: %w", key, err)
		}
		return nil, fn(ctx, v)
	})
	return err
}

package httpclient

import (
	"context"
	"slices"

	"github.com/backstay-go/backstay"
)

type optionsKey struct{}

// With returns a context whose requests have the call options opts, after those that ctx has already.
func With(ctx context.Context, opts ...backstay.CallOption) context.Context {
	return context.WithValue(ctx, optionsKey{}, append(slices.Clip(optionsFrom(ctx)), opts...))
}

// Idempotent returns a context whose requests may be made more than once, whatever their method.
func Idempotent(ctx context.Context) context.Context { return With(ctx, backstay.Idempotent()) }

// NoRetry returns a context whose requests are made once.
func NoRetry(ctx context.Context) context.Context { return With(ctx, backstay.NoRetry()) }

// Attempts returns a context whose requests get n attempts in all.
func Attempts(ctx context.Context, n int) context.Context { return With(ctx, backstay.Attempts(n)) }

// WithCallInfo returns a context whose next request reports how it went: attempts, waits, errors.
func WithCallInfo(ctx context.Context) (context.Context, *backstay.Report) {
	return backstay.WithReport(ctx)
}

func optionsFrom(ctx context.Context) []backstay.CallOption {
	opts, _ := ctx.Value(optionsKey{}).([]backstay.CallOption)
	return opts
}

package breaker_test

import (
	"context"
	"runtime"
	"testing"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/breaker"
)

// A breaker per host is only cheap when a breaker is: at most 1 KiB with the default config, also once it has been open.
func TestSize(t *testing.T) {
	const n, limit = 4096, 1024
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	all := make([]*breaker.Breaker, n)
	before := heap()
	for i := range all {
		all[i] = breaker.New(breaker.Config{Name: "host"})
		times(all[i], 3, errDown)
	}
	closed := (heap() - before) / n
	for _, b := range all {
		b.Trip()
	}
	open := (heap() - before) / n
	t.Logf("%d bytes closed, %d open", closed, open)
	if closed > limit || open > limit {
		t.Errorf("got %d bytes closed and %d open, want at most %d", closed, open, limit)
	}
	runtime.KeepAlive(all)
}

// A call through a closed breaker allocates nothing, and a refused one its error.
func TestAllocations(t *testing.T) {
	count := func(b *breaker.Breaker, out backstay.Outcome) (n float64) {
		h := b.Wrap(func(context.Context, *backstay.Call) backstay.Outcome { return out })
		measure := backstay.PolicyFunc(func(backstay.Handler) backstay.Handler {
			return func(ctx context.Context, call *backstay.Call) backstay.Outcome {
				n = testing.AllocsPerRun(1000, func() { h(ctx, call) })
				return backstay.Outcome{}
			}
		})
		_ = backstay.Run(context.Background(), backstay.Chain(measure), func(context.Context) error { return nil })
		return n
	}
	off := breaker.Config{FailureRate: -1, Consecutive: -1}
	shadow := off
	shadow.Mode = breaker.Shadow
	open := breaker.New(breaker.Config{OpenFor: 1 << 40})
	open.Trip()
	for _, c := range []struct {
		name string
		b    *breaker.Breaker
		out  backstay.Outcome
		want float64
	}{
		{"success", breaker.New(breaker.Config{}), backstay.Outcome{Class: backstay.Success}, 0},
		{"success, last calls", breaker.New(breaker.Config{Count: 100}), backstay.Outcome{Class: backstay.Success}, 0},
		{"failure", breaker.New(off), backstay.Outcome{Class: backstay.Failure, Err: errDown}, 0},
		{"neutral", breaker.New(off), backstay.Outcome{Class: backstay.Neutral, Err: errDown}, 0},
		{"shadow", breaker.New(shadow), backstay.Outcome{Class: backstay.Success}, 0},
		{"refusal", open, backstay.Outcome{}, 1},
	} {
		if got := count(c.b, c.out); got != c.want {
			t.Errorf("%s: got %v allocations, want %v", c.name, got, c.want)
		}
	}
}

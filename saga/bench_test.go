package saga_test

import (
	"context"
	"strconv"
	"testing"

	"github.com/backstay-go/backstay/saga"
	"github.com/backstay-go/backstay/saga/sagamem"
)

// BenchmarkFourSteps runs sagas of four empty steps, 64 at a time, on the memory store.
func BenchmarkFourSteps(b *testing.B) {
	d := saga.Must(saga.Define("four", 1, func(b *saga.Builder[int]) {
		for _, n := range []string{"a", "b", "c", "d"} {
			saga.Step(b, n, noop).Compensate(nothing)
		}
	}))
	e := saga.New(sagamem.New(), saga.Register(d))
	ctx, stop := context.WithCancel(b.Context())
	done := make(chan error)
	go func() { done <- e.Run(ctx) }()
	slots := make(chan struct{}, 64)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		slots <- struct{}{}
		go func() {
			defer func() { <-slots }()
			h, err := d.Start(ctx, e, strconv.Itoa(i), 1)
			if err == nil {
				err = e.Wait(ctx, h.ID)
			}
			if err != nil {
				b.Error(err)
			}
		}()
	}
	for range cap(slots) {
		slots <- struct{}{}
	}
	b.ReportMetric(4*float64(b.N)/b.Elapsed().Seconds(), "steps/s")
	stop()
	if err := <-done; err != nil {
		b.Fatal(err)
	}
}

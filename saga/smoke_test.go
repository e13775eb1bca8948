package saga_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backstay-go/backstay/saga"
	"github.com/backstay-go/backstay/saga/sagamem"
)

func noop(*saga.Ctx, int) (int, error)            { return 1, nil }
func undo(*saga.Ctx, int, saga.Result[int]) error { return nil }

func TestSmoke(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log []string
		no := errors.New("no")
		d := saga.Must(saga.Define("trip", 1, func(b *saga.Builder[int]) {
			for _, n := range []string{"a", "b", "c"} {
				saga.Step(b, n, func(c *saga.Ctx, in int) (int, error) {
					log = append(log, "+"+n)
					if n == "c" && in == 1 {
						return 0, saga.Fail(no)
					}
					return 1, nil
				}).Compensate(func(c *saga.Ctx, in int, r saga.Result[int]) error { log = append(log, "-"+n); return nil })
			}
			b.Delay("d", time.Hour)
			saga.Step(b, "p", noop).Pivot()
			saga.Step(b, "r", noop).Retriable()
		}))
		if err := sagamem.Run(t.Context(), d, 0); err != nil {
			t.Fatal(err)
		}
		err := sagamem.Run(t.Context(), d, 1)
		t.Log(err, log)
		if !errors.Is(err, no) {
			t.Fatal(err)
		}
	})
}

func BenchmarkFourSteps(b *testing.B) {
	d := saga.Must(saga.Define("four", 1, func(b *saga.Builder[int]) {
		for _, n := range []string{"a", "b", "c", "d"} {
			saga.Step(b, n, noop).Compensate(undo)
		}
	}))
	e := saga.New(sagamem.New(), saga.Register(d))
	ctx, stop := context.WithCancel(b.Context())
	done := make(chan error)
	go func() { done <- e.Run(ctx) }()
	sem := make(chan struct{}, 64)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		sem <- struct{}{}
		go func() {
			defer func() { <-sem }()
			h, err := d.Start(ctx, e, time.Duration(i).String(), 1)
			if err != nil {
				b.Error(err)
			}
			if err := e.Wait(ctx, h.ID); err != nil {
				b.Error(err)
			}
		}()
	}
	for range 64 {
		sem <- struct{}{}
	}
	b.ReportMetric(float64(b.N)*4/b.Elapsed().Seconds(), "steps/s")
	stop()
	<-done
}

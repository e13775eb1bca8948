package breaker_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/breaker"
)

// Everything at once, for the race detector. What must hold afterwards: nothing is left in flight, and the breaker still lets calls through.
func TestConcurrentUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		c := breaker.Config{Consecutive: 3, Spread: -1, Tolerated: 1, Successes: 3, MinCalls: 5, OpenFor: time.Millisecond, ProbeTimeout: 5 * time.Millisecond}
		c.OpenFunc = func(int) time.Duration { return 2 * time.Millisecond }
		l := &log{}
		c.Observer = l
		b := breaker.New(c)
		p := backstay.Chain(b)
		modes := []breaker.Mode{breaker.ForcedOpen, breaker.Shadow, breaker.Disabled, breaker.ForcedClosed, breaker.Auto}
		var all sync.WaitGroup
		for g := range 16 {
			all.Go(func() {
				for i := range 300 {
					switch (g + i) % 16 {
					case 0:
						b.Trip()
					case 1:
						b.Snapshot()
						b.Keep()
					case 2:
						permit, _ := b.Acquire(ctx)
						permit.Cancel(ctx)
					case 3:
						b.Record(backstay.Failure)
					case 4:
						if i%10 == 0 {
							b.SetMode(modes[i/10%len(modes)])
						}
					case 5:
						c := c
						c.Successes = 2 + i%3
						_ = b.Apply(c)
					case 6:
						if i%20 == 0 {
							b.Reset()
						}
					default:
						_ = backstay.Run(ctx, p, func(context.Context) error {
							time.Sleep(time.Duration(g) * 100 * time.Microsecond)
							if i%3 == 0 {
								return errDown
							}
							return nil
						})
					}
				}
			})
		}
		all.Wait()
		b.SetMode(breaker.Auto)
		for range 100 {
			if err := try(b, nil); err != nil && !errors.Is(err, breaker.ErrOpen) {
				t.Fatalf("got error %v", err)
			}
			time.Sleep(time.Second)
		}
		wantState(t, b, breaker.Closed)
		if got := b.Snapshot(); got.Held != 0 || got.Probes != 0 || got.Share != 1 {
			t.Errorf("got %+v, want nothing in flight", got)
		}
		for i, e := range l.kinds(backstay.EventState) {
			if i > 0 && e.From != l.kinds(backstay.EventState)[i-1].To {
				t.Fatalf("change %d is from %q, but the one before it was to %q", i, e.From, l.kinds(backstay.EventState)[i-1].To)
			}
		}
	})
}

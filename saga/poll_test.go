package saga_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backstay-go/backstay/saga"
	"github.com/backstay-go/backstay/saga/sagamem"
)

// hinting is a store whose hints the test makes up.
type hinting struct {
	*sagamem.Store
	hints chan saga.Hint
}

func (s *hinting) Hints(ctx context.Context, hint func(saga.Hint)) error {
	hint(saga.Hint{})
	for {
		select {
		case h := <-s.hints:
			hint(h)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// TestSoon: after a hint of a coming commit the engine looks a few times, not once, and then no more than before.
func TestSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ran := make(chan time.Time, 1)
		d := saga.Must(saga.Define("d", 1, func(b *saga.Builder[int]) {
			saga.Step(b, "a", func(*saga.Ctx, int) (int, error) { ran <- time.Now(); return 1, nil }).Compensate(nothing)
		}))
		store := &hinting{sagamem.New(), make(chan saga.Hint)}
		e := run(t, store, saga.Register(d), saga.Config{Poll: time.Hour})
		store.hints <- saga.Hint{Soon: true}
		time.Sleep(20 * time.Millisecond)
		committed := time.Now()
		start(t, d, store, "k", 1)
		if took := (<-ran).Sub(committed); took > 20*time.Millisecond {
			t.Errorf("found %v after the commit, want within 20ms", took)
		}
		time.Sleep(time.Second)
		committed = time.Now()
		start(t, d, store, "unhinted", 1)
		if took := (<-ran).Sub(committed); took < 10*time.Minute {
			t.Errorf("without a hint found after %v, want at the next poll", took)
		}
		e.end(t)
	})
}

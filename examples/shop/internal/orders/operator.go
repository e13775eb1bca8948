package orders

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/examples/shop/internal/service"
	"github.com/backstay-go/backstay/saga"
)

// operateEvery is how often somebody looks at what is parked.
const operateEvery = 5 * time.Second

// operate plays the person who looks after parked sagas. It always says "try again": every step of the shop may be repeated by its key, so that is safe whatever
// had become of it. A real shop would alert a human, who can also say that the pivot was done, or was not.
func (s *shop) operate(ctx context.Context) {
	tick := time.NewTicker(operateEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		parked, err := s.engine.List(ctx, saga.Filter{States: []saga.State{saga.ParkedFwd, saga.ParkedUndo}, Limit: 100})
		if err != nil {
			continue // the next round will do
		}
		for _, inst := range parked {
			if err := s.engine.Operator().Retry(ctx, inst.ID, saga.By{Actor: "the shop", Reason: "every step is idempotent"}); err == nil {
				s.host.Feed.Info("order %s, parked at %s: tried again", inst.Key, inst.Step)
			}
		}
	}
}

// watch notes the sagas that need a human.
func watch(feed *service.Feed) backstay.Observer {
	return backstay.ObserverFunc(func(_ context.Context, e backstay.Event) {
		if e.Kind == backstay.EventState && saga.State(e.To).Parked() {
			feed.Bad("a saga is parked at %s: %v", e.Call, e.Err)
		}
	})
}

// gate is the policy around the relay's publishing by which it is paused.
type gate struct{ shut atomic.Bool }

// Wrap implements backstay.Policy.
func (g *gate) Wrap(next backstay.Handler) backstay.Handler {
	return func(ctx context.Context, call *backstay.Call) backstay.Outcome {
		if g.shut.Load() {
			return backstay.Reject(&backstay.Rejected{Policy: "gate", Name: "relay", Reason: "paused by hand"})
		}
		return next(ctx, call)
	}
}

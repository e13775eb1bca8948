package consumer

import (
	"context"
	"hash/maphash"
	"sync"
	"time"

	"github.com/backstay-go/backstay/outbox"
)

// Delivery is one message in the hands of a consumer. Broker packages make them.
type Delivery struct {
	Message *outbox.Message

	// Extend, when not nil, tells the broker each Every that the message is still being worked on. It must not block for long.
	Extend func()
	Every  time.Duration

	// Settle tells the broker. It is called once for each delivery.
	Settle func(Verdict)
}

// Run hands deliveries to lanes until ctx is over or next fails. Deliveries not yet begun are then settled as Left, those in hand may
// go on for the grace period, and Run returns after the last of them: nil when ctx ended it, otherwise next's error.
func Run(ctx context.Context, c Config, h Handler, next func(context.Context) (Delivery, error)) error {
	c = c.WithDefaults()
	ctx, end := context.WithCancel(ctx)
	lanes := make([]chan Delivery, c.Lanes)
	var wg sync.WaitGroup
	for i := range lanes {
		lane := make(chan Delivery, laneBuffer)
		lanes[i] = lane
		wg.Go(func() {
			for d := range lane {
				if ctx.Err() != nil {
					d.Settle(Left)
					continue
				}
				d.Settle(d.handle(ctx, c, h))
			}
		})
	}
	err := spread(ctx, lanes, next)
	if ctx.Err() != nil {
		err = nil
	}
	end()
	for _, lane := range lanes {
		close(lane)
	}
	wg.Wait()
	return err
}

// laneBuffer is how many deliveries wait in front of a lane, so that one slow key does not idle the other lanes at once.
const laneBuffer = 16

func spread(ctx context.Context, lanes []chan Delivery, next func(context.Context) (Delivery, error)) error {
	seed := maphash.MakeSeed()
	turn := 0
	for ctx.Err() == nil {
		d, err := next(ctx)
		if err != nil {
			return err
		}
		n := turn
		if d.Message.Key != "" {
			n = int(maphash.String(seed, d.Message.Key) % uint64(len(lanes)))
		} else {
			turn = (turn + 1) % len(lanes)
		}
		select {
		case lanes[n] <- d:
		case <-ctx.Done():
			d.Settle(Left)
		}
	}
	return nil
}

// handle keeps the broker informed while the handler works.
func (d Delivery) handle(ctx context.Context, c Config, h Handler) Verdict {
	if d.Extend == nil {
		return Handle(ctx, c, h, d.Message)
	}
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(d.Every)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				d.Extend()
			case <-done:
				return
			}
		}
	})
	defer wg.Wait()
	defer close(done)
	return Handle(ctx, c, h, d.Message)
}

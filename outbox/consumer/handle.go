package consumer

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/backstay-go/backstay/outbox"
)

// Handle tries one message in place until it is settled or ctx is over, and says what became of it. The configuration must have its
// defaults ([Config.WithDefaults]). Broker packages call it; it keeps no state.
func Handle(ctx context.Context, c Config, h Handler, m *outbox.Message) Verdict {
	work, stop := graceful(ctx, c.Grace)
	defer stop()
	work = outbox.Extract(work, m.Headers) // the enqueue is the parent, however long ago it was
	wait := c.Wait
	for attempt := 1; ; attempt++ {
		err := c.try(work, h, m)
		if err == nil {
			return Done
		}
		if c.Failed != nil {
			c.Failed(m, attempt, err)
		}
		if c.Attempts > 0 && attempt >= c.Attempts || errors.Is(err, outbox.ErrPermanent) {
			if v := c.GiveUp(work, m, err); v != Left {
				return v
			}
		}
		if !pause(ctx, wait/2+rand.N(wait/2+1)) {
			return Left
		}
		wait = min(2*wait, c.MaxWait)
	}
}

func (c Config) try(ctx context.Context, h Handler, m *outbox.Message) error {
	if c.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.Timeout)
		defer cancel()
	}
	if c.Open != nil {
		m = m.Clone() // so that the next try and Dead find it sealed
		if err := c.Open.Open(ctx, m); err != nil {
			return err
		}
	}
	return h(ctx, m)
}

// GiveUp says what becomes of a message that will not be tried (again). Broker packages call it for one they cannot decode.
func (c Config) GiveUp(ctx context.Context, m *outbox.Message, cause error) Verdict {
	if c.Dead == nil {
		return Rejected
	}
	if err := c.Dead(ctx, m, cause); err != nil {
		return Left
	}
	return Done
}

// graceful returns a context that outlives ctx by grace, so that a commit under way is not cut off by an orderly end.
func graceful(ctx context.Context, grace time.Duration) (context.Context, context.CancelFunc) {
	if grace < 0 {
		return context.WithCancel(ctx)
	}
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan *time.Timer, 1)
	stop := context.AfterFunc(ctx, func() { ended <- time.AfterFunc(grace, cancel) })
	return work, func() {
		if !stop() {
			(<-ended).Stop()
		}
		cancel()
	}
}

// pause reports false when ctx was over first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

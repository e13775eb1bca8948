package saga

import (
	"context"
	"math/rand/v2"
	"time"
)

// poll claims due instances until ctx ends.
func (e *Engine) poll(ctx context.Context) {
	var step time.Duration // after a Hint of something that is about to be committed; 0: none
	for {
		if e.claim(ctx) {
			continue
		}
		wait := e.cfg.Poll
		wait += time.Duration(float64(wait) * (rand.Float64() - 0.5) / 2)
		if e.soon.Swap(false) {
			step = soonFirst
		}
		if step > 0 {
			wait = min(wait, step)
			if step *= 2; step > soonLast {
				step = 0
			}
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-e.wake:
			timer.Stop()
		case <-timer.C:
		}
	}
}

// A transaction that starts a saga is over in milliseconds as a rule. Seven looks within 127 ms find it at about the time it has
// taken anyhow; the next Poll finds the slow ones.
const (
	soonFirst = time.Millisecond
	soonLast  = 64 * time.Millisecond
)

// listener is how the store tells of due instances; nil if it does not.
func (e *Engine) listener() func(context.Context) error {
	switch l := e.store.(type) {
	case Hinter:
		return func(ctx context.Context) error { return l.Hints(ctx, e.heard) }
	case Listener:
		return func(ctx context.Context) error { return l.Listen(ctx, e.Wake) }
	}
	return nil
}

// heard takes a hint.
func (e *Engine) heard(h Hint) {
	if h.Soon {
		e.soon.Store(true)
	}
	if h.Mail == "" || !e.nudge(h.Mail) {
		e.Wake()
	}
}

func (e *Engine) listen(ctx context.Context, listen func(context.Context) error) {
	for ctx.Err() == nil {
		_ = listen(ctx) // polling covers what is missed
		select {
		case <-ctx.Done():
		case <-time.After(min(e.cfg.Poll, time.Second)):
		}
	}
}

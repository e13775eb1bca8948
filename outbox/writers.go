package outbox

import (
	"context"
	"errors"
	"time"
)

// writers is what the reading loop knows of the transactions that have enqueued and not yet ended.
type writers struct {
	watched bool      // the last question was answered
	mute    bool      // the source cannot tell
	asked   time.Time // the last question
	since   time.Time // no transaction that was open then, or began later, holds a message enqueued before
}

// safe returns the instant before which nobody still open has enqueued.
func (w *writers) safe(now time.Time, lag time.Duration) time.Time {
	if w.watched {
		return w.since
	}
	return now.Add(-lag)
}

// watchWriters asks the source four times in a lag, while there is something new to start behind. True: it took a while.
func (r *Relay) watchWriters(ctx, work context.Context, now time.Time) bool {
	w := &r.writers
	watcher, ok := r.src.(WriterWatcher)
	if !ok || w.mute || now.Sub(w.asked) < r.cfg.Lag/4 {
		return false
	}
	r.board.mu.Lock()
	behind := !w.watched || r.marks.newest > r.marks.stood(w.since)
	r.board.mu.Unlock()
	if !behind {
		return false
	}
	call, cancel := context.WithTimeout(work, max(r.cfg.Lease, time.Second))
	defer cancel()
	age, err := watcher.OldestWriter(call)
	w.asked = now
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		w.mute, w.watched = true, false
		r.log.WarnContext(ctx, "outbox: the store cannot tell of open transactions: one that is open for longer than Lag after its enqueue may be overtaken", "lag", r.cfg.Lag, "err", err)
	case err != nil: // what was known stays true: readings start where they did
		if ctx.Err() == nil {
			r.log.WarnContext(ctx, "outbox: open transactions", "err", err)
		}
		w.asked = time.Now()
	default:
		if since := now.Add(-age); !w.watched || since.After(w.since) {
			w.since = since
		}
		w.watched = true
	}
	return true
}

package saga

import (
	"context"
	"time"
)

// write is a checkpoint on its way to the store.
type write struct {
	cp   Checkpoint
	done chan Committed // capacity 1
}

// write commits whatever checkpoints it finds waiting, at once and in one transaction: alone, an
// instance waits for nobody; in a crowd, they share the cost of a commit.
func (e *Engine) write(hard context.Context) {
	batch := make([]*write, 0, e.cfg.Batch)
	cps := make([]Checkpoint, 0, e.cfg.Batch)
	for {
		batch, cps = batch[:0], cps[:0]
		select {
		case <-hard.Done():
			return
		case w := <-e.writes:
			batch, cps = append(batch, w), append(cps, w.cp)
		}
		for full := false; !full && len(batch) < e.cfg.Batch; {
			select {
			case w := <-e.writes:
				batch, cps = append(batch, w), append(cps, w.cp)
			default:
				full = true
			}
		}
		results, ok := e.commit(hard, cps)
		if !ok {
			return // the lease runs out, and the next owner reads what became of it
		}
		for i, w := range batch {
			w.done <- results[i]
		}
	}
}

// commit repeats until the store has answered: an outcome never heard is asked for again, which duty
// 6 makes safe. Such trouble is the store's and is not charged to any step.
func (e *Engine) commit(hard context.Context, cps []Checkpoint) ([]Committed, bool) {
	for wait := 10 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		call, cancel := context.WithTimeout(hard, e.cfg.Lease) // a hung connection must not hold the writer up
		results, err := e.store.Commit(call, cps)
		cancel()
		if err == nil && len(results) == len(cps) {
			return results, true
		}
		if !sleep(hard, wait) {
			return nil, false
		}
	}
}

// sleep waits and reports whether ctx is still on.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

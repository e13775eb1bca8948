package saga

import (
	"context"
	"sync/atomic"
	"time"
)

// write is a checkpoint on its way to the store.
type write struct {
	cp   [1]Checkpoint
	done chan Committed // capacity 1
}

// turns counts who may talk to the store at a time, and who waits for it in a queue. One who finds a free place and
// an empty queue goes at once, on its own goroutine; the others are collected into batches by those who serve the
// queue.
type turns struct {
	places  chan struct{}
	waiting atomic.Int64
}

func newTurns(n int) turns { return turns{places: make(chan struct{}, n)} }

// try takes a place if nobody is before the caller; it is given back by leave.
func (t *turns) try() bool {
	if t.waiting.Load() > 0 {
		return false
	}
	select {
	case t.places <- struct{}{}:
		return true
	default:
		return false
	}
}

func (t *turns) leave()        { <-t.places }
func (t *turns) queue()        { t.waiting.Add(1) }
func (t *turns) unqueue(n int) { t.waiting.Add(int64(-n)) }

// enter waits for a place on behalf of the queue.
func (t *turns) enter(ctx context.Context) bool {
	select {
	case t.places <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

// write commits whatever checkpoints it finds waiting, at once and in one transaction: in a crowd, instances share
// the cost of a commit.
func (e *Engine) write(hard context.Context) {
	batch := make([]*write, 0, e.cfg.Batch)
	cps := make([]Checkpoint, 0, e.cfg.Batch)
	for {
		batch, cps = batch[:0], cps[:0]
		select {
		case <-hard.Done():
			return
		case w := <-e.writes:
			batch, cps = append(batch, w), append(cps, w.cp[0])
		}
		if !e.writers.enter(hard) {
			return
		}
		for full := false; !full && len(batch) < e.cfg.Batch; {
			select {
			case w := <-e.writes:
				batch, cps = append(batch, w), append(cps, w.cp[0])
			default:
				full = true
			}
		}
		e.writers.unqueue(len(batch))
		results, ok := e.commit(hard, cps)
		e.writers.leave()
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
		call := e.patient(hard)
		results, err := e.store.Commit(call, cps)
		call.Cancel()
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

package outbox

import (
	"context"
	"math/rand/v2"
	"time"
)

const (
	// hotFor is how long after a hint the relay looks each hotPoll: the transaction that the hint came from has to commit yet.
	hotFor  = 50 * time.Millisecond
	hotPoll = time.Millisecond
	// urgentPoll is the least pause between two looks, whatever the hints.
	urgentPoll = 200 * time.Microsecond
	// maxFailing is how many keys of a partition may be failing at once before the relay stops reading it: each costs memory.
	maxFailing = 50_000
)

// readLoop looks for messages and puts them on the board.
func (r *Relay) readLoop(ctx, work context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	idle := r.cfg.MinPoll
	var rows []Row
	for {
		began := time.Now()
		if r.watchWriters(ctx, work, began) {
			began = time.Now()
		}
		spans, epochs, limit := r.spans(began)
		pause := idle
		if len(spans) > 0 {
			var err error
			var added int
			var more bool
			call, cancel := context.WithTimeout(work, max(r.cfg.Lease, time.Second))
			rows, err = r.src.Read(call, spans, limit, rows[:0])
			cancel()
			if err == nil {
				added, more = r.takeRows(spans, epochs, limit, rows)
			}
			switch {
			case err != nil:
				if ctx.Err() == nil {
					r.log.WarnContext(ctx, "outbox: read", "err", err)
				}
				rows = nil
				idle = min(idle*2, r.cfg.MaxPoll)
			case added > 0:
				rows = make([]Row, 0, cap(rows)) // the board keeps what was read
				r.kick.raise()
				idle = r.cfg.MinPoll
				if more {
					pause = 0
				} else {
					pause = idle
				}
			default:
				if more { // pages of nothing but known messages: go past them, but let them be published and deleted
					pause = r.cfg.MinPoll
				} else {
					idle = min(idle*2, r.cfg.MaxPoll)
				}
			}
		} else {
			idle = min(idle*2, r.cfg.MaxPoll)
		}
		if !r.rest(ctx, timer, began, pause) {
			return
		}
	}
}

// rest waits for the next look: for pause with some jitter, less when a hint comes. False: ctx is over.
func (r *Relay) rest(ctx context.Context, timer *time.Timer, began time.Time, pause time.Duration) bool {
	if pause > 0 {
		pause = pause - pause/8 + rand.N(pause/4+1)
	}
	for {
		now := time.Now()
		next := began.Add(pause)
		if now.Sub(r.starts) < time.Duration(r.hot.Load()) {
			next = earlier(next, began.Add(hotPoll))
		}
		if r.urgent.Load() {
			next = earlier(next, began.Add(urgentPoll))
		}
		if !next.After(now) {
			r.urgent.Store(false)
			return ctx.Err() == nil
		}
		timer.Reset(next.Sub(now))
		select {
		case <-ctx.Done():
			return false
		case <-timer.C:
		case <-r.wake:
		}
	}
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// spans says what to read next: the owned partitions that have room, and how many rows of each.
func (r *Relay) spans(now time.Time) (spans []Span, epochs []int64, limit int) {
	b := r.board
	b.mu.Lock()
	defer b.mu.Unlock()
	owned := 0
	for _, p := range b.parts {
		if p.owned && !p.draining {
			owned++
		}
	}
	if owned == 0 {
		return nil, nil, 0
	}
	safe, clock := r.writers.safe(now, r.cfg.Lag), b.clock.time(now)
	// About four batches wait in memory and eight are published and not yet deleted, at the most; two are read at a time. Reading further ahead of the deletes
	// would read rows that are known again and again.
	limit = max(2*r.cfg.Batch/owned, 32)
	// Many small reads cost the database more than their rows do: so there is none until a quarter of the room is empty, or most of one partition's.
	room, most, low := 0, 0, false
	for _, p := range b.parts {
		if p.readable(now) && p.pending < 4*limit {
			room += max(2*limit-p.queued, 0)
			most += 2 * limit
			low = low || p.queued < limit/2
		}
	}
	low = low || 4*room >= most
	for _, p := range b.parts {
		if !p.readable(now) {
			continue
		}
		if !low || p.queued >= 2*limit || p.pending >= 4*limit {
			b.crowded = true
			continue
		}
		spans = append(spans, p.begin(now, safe, clock, &r.marks, r.cfg.Sweep))
		epochs = append(epochs, p.Epoch)
	}
	return spans, epochs, limit
}

// takeRows puts what was read on the board. more: a partition with room has more to read.
func (r *Relay) takeRows(spans []Span, epochs []int64, limit int, rows []Row) (added int, more bool) {
	b := r.board
	b.mu.Lock()
	defer b.mu.Unlock()
	byPart := make(map[int][2]int, len(spans)) // rows of a partition stand together
	for i := 0; i < len(rows); {
		j := i + 1
		for j < len(rows) && rows[j].Part == rows[i].Part {
			j++
		}
		byPart[rows[i].Part] = [2]int{i, j}
		i = j
	}
	now := time.Now()
	for i, span := range spans {
		own := rows[byPart[span.Part][0]:byPart[span.Part][1]]
		short := len(own) < limit
		p := b.part(span.Part)
		if !p.owned || p.Epoch != epochs[i] || p.draining {
			continue
		}
		n, left := b.add(now, span, epochs[i], own, short)
		added += n
		last := span.From
		if len(own) > 0 {
			last = own[len(own)-1].Message.Seq
			r.marks.note(now, last)
		}
		p.end(now, &r.marks, last, short, left)
		if (p.full || left > 0) && p.queued < 2*limit {
			more = true
		}
	}
	if len(b.done) > 0 || len(b.parks) > 0 { // expired, or of a parked key
		r.flush.raise()
	}
	return added, more
}

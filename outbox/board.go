package outbox

import (
	"container/heap"
	"sync"
	"time"
)

// A board is a relay's memory of messages: what was read, what may be published next, what has become of it. It does no I/O, asks no clock and
// starts nothing; the relay's loops call it. The rule that it keeps: of one key at most one batch is with the
// publisher, and nothing of the key passes a message that failed.
type board struct {
	mu      sync.Mutex // guards everything below
	rules   rules
	parts   map[int]*partition
	ready   laneQueue
	waiting laneHeap
	line    line

	done  []*record // confirmed or expired, to be deleted
	tries map[*record]string
	parks []*parking

	crowded bool  // a partition was not read because too much of it is in hand
	clock   clock // the database's
	counts  counts
}

// A clock is the database's, as it was read once and goes on by our monotonic clock, so that nobody's setting ours changes it.
type clock struct{ is, at time.Time }

// set takes in that the clock showed is before at, how long before nobody knows: the clock is late, a message expires a little late and never early. The
// answer that took least time is the best, for half a minute.
func (c *clock) set(is, at time.Time) {
	if old := at.Sub(c.at); c.at.IsZero() || old > 30*time.Second || !c.is.Add(old).After(is) {
		c.is, c.at = is, at
	}
}

// time is what the clock shows at now.
func (c clock) time(now time.Time) time.Time {
	if c.at.IsZero() {
		return now
	}
	return c.is.Add(now.Sub(c.at))
}

// rules is the part of a relay's config that the board needs.
type rules struct {
	runs        bool // the publisher keeps the order of a key within a batch
	maxAttempts int  // ≤ 0: no limit
	poison      Poison
	backoff     func(failures int, err error) time.Duration
}

// counts is what the board counts; see Stats.
type counts struct {
	Published, Failed, Unknown, Parked, Expired, Rescued, Duplicates int64
}

// A parking is a message on its way to the dead letters.
type parking struct {
	rec    *record
	lease  Lease
	reason string
	holds  bool
}

func newBoard(r rules) *board {
	return &board{rules: r, parts: map[int]*partition{}, tries: map[*record]string{}}
}

// part returns the partition, making it when it is new.
func (b *board) part(id int) *partition {
	p := b.parts[id]
	if p == nil {
		p = newPartition(id)
		b.parts[id] = p
	}
	return p
}

// add takes the rows of one partition in, as they were read from span. short says that the partition held no more than
// these. It returns how many were new, and the first that it had to leave for the next run, or 0.
func (b *board) add(now time.Time, span Span, epoch int64, rows []Row, short bool) (added int, left int64) {
	p := b.part(span.Part)
	if !p.owned || p.draining || p.Epoch != epoch {
		return 0, 0
	}
	rescue := p.settled
	if len(p.gapped) > 0 {
		rescue = 0 // rows seen before are to be expected
	}
	var records []record // one allocation for all that are new
	for i, all := 0, rows; i < len(all); i++ {
		m := &all[i].Message
		if _, ok := p.known[m.Seq]; ok {
			continue
		}
		if p.late(m) {
			rows, short, left = rows[:i], false, m.Seq
			break
		}
		if records == nil {
			records = make([]record, 0, len(all)-i)
		}
		records = append(records, record{msg: m, attempts: p.attempts[m.Seq]})
		if b.place(now, p, &records[len(records)-1], span.From) {
			added++
			if m.Seq < rescue {
				b.counts.Rescued++
			}
		} else {
			records = records[:len(records)-1]
		}
	}
	last := span.From
	if len(rows) > 0 {
		last = rows[len(rows)-1].Message.Seq
	}
	for l := range p.gapped {
		if span.From <= l.gap && (short || last >= l.gap) {
			l.gap = 0
			delete(p.gapped, l)
			b.retire(l)
		}
	}
	return added, left
}

// place puts a record where it belongs; false: it was not kept.
func (b *board) place(now time.Time, p *partition, r *record, from int64) bool {
	m := r.msg
	if b.expired(now, m) {
		p.known[m.Seq] = struct{}{}
		r.lane = &lane{part: p}
		b.counts.Expired++
		b.finished(p, r)
		return true
	}
	l := p.lanes[m.Key]
	if m.Key == "" {
		l = nil
	} else if _, held := p.parked[m.Key]; held {
		p.known[m.Seq] = struct{}{}
		b.park(p, r, "an earlier message of the key is parked", true)
		return true
	}
	if l == nil {
		l = &lane{key: m.Key, part: p, epoch: p.Epoch}
		if m.Key != "" {
			p.lanes[m.Key] = l
		}
	}
	if l.failing() {
		l.skip(m.Seq)
		return false
	}
	if l.gap != 0 && from > l.gap {
		return false // the read that fetches what was dropped is still to come
	}
	p.known[m.Seq] = struct{}{}
	idle := l.head == nil
	l.push(r)
	r.counted = true
	p.queued++
	if idle {
		b.ready.push(l)
	}
	return true
}

// take fills batch with up to max messages that may be published at now, in an order that the publisher may send them in. The
// returned time is until when all of them may be started.
func (b *board) take(now time.Time, max int, batch []*record) ([]*record, time.Time) {
	b.waiting.due(now, func(l *lane) { b.ready.push(l) })
	var until time.Time
	for len(batch) < max {
		l := b.ready.pop()
		if l == nil {
			break
		}
		p := l.part
		if l.head == nil || l.parking || l.sending > 0 {
			continue
		}
		if !p.owned || p.draining || l.epoch != p.Epoch {
			b.abandon(l)
			continue
		}
		if !now.Before(p.until) { // the lease is in doubt; the next renewal decides
			b.wait(l, now.Add(5*time.Millisecond))
			continue
		}
		if b.expired(now, l.head.msg) {
			r := l.head
			p.uncount(r)
			l.remove(nil, r)
			b.counts.Expired++
			b.finished(p, r)
			b.pass(l)
			continue
		}
		if until.IsZero() || p.until.Before(until) {
			until = p.until
		}
		for r := l.head; r != nil && len(batch) < max; r = r.next {
			p.uncount(r)
			p.pending++
			r.sends++
			r.msg.Attempt = r.sends
			l.sending++
			batch = append(batch, r)
			if !b.rules.runs {
				break
			}
		}
	}
	b.ready.compact()
	return batch, until
}

func (b *board) expired(now time.Time, m *Message) bool {
	return !m.ExpiresAt.IsZero() && !b.clock.time(now).Before(m.ExpiresAt)
}

// abandon forgets the queued messages of a lane whose partition is not, or no longer, published from here.
func (b *board) abandon(l *lane) {
	p := l.part
	for r := l.head; r != nil; r = r.next {
		p.forget(r)
		p.rewind(r.msg.Seq)
	}
	l.head, l.tail, l.dead = nil, nil, true
	p.heal(l)
	if p.lanes[l.key] == l {
		delete(p.lanes, l.key)
	}
	delete(p.gapped, l)
}

func (b *board) wait(l *lane, until time.Time) {
	l.until = until
	heap.Push(&b.waiting, l)
}

// next is when the first waiting lane comes due; zero: none waits.
func (b *board) next() time.Time {
	if len(b.waiting) == 0 {
		return time.Time{}
	}
	return b.waiting[0].until
}

// queued is how many messages of healthy keys are in memory and not being published.
func (b *board) queued() (n int) {
	for _, p := range b.parts {
		n += p.queued
	}
	return n
}

// putBack undoes a take: nothing of the batch was started.
func (b *board) putBack(batch []*record) {
	for _, r := range batch {
		r.sends--
		l, p := r.lane, r.lane.part
		p.pending--
		l.sending--
		if !l.failing() {
			r.counted = true
			p.queued++
		}
		if l.sending == 0 {
			b.ready.push(l)
		}
	}
}

// finished hands a message over for deletion.
func (b *board) finished(p *partition, r *record) {
	p.pending++
	b.done = append(b.done, r)
}

// park hands a message over to the dead letters.
func (b *board) park(p *partition, r *record, reason string, holds bool) {
	p.pending++
	if r.lane == nil {
		r.lane = &lane{part: p}
	}
	b.parks = append(b.parks, &parking{rec: r, lease: p.Lease, reason: reason, holds: holds})
}

// retire drops a lane that holds nothing and waits for nothing.
func (b *board) retire(l *lane) {
	if l.head == nil && l.gap == 0 && !l.failing() {
		l.dead = true
		if l.part.lanes[l.key] == l {
			delete(l.part.lanes, l.key)
		}
	}
}

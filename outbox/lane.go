package outbox

import (
	"container/heap"
	"time"
)

// A record is one message in a relay's memory.
type record struct {
	msg      *Message
	lane     *lane
	next     *record // in the lane
	attempts int     // counted ones, persisted
	sends    int     // publications by this relay
	counted  bool    // is part of partition.queued
}

// A lane is the queue of one key, or of one message without key. Its first messages are being published (sending of them), the rest waits.
// A lane whose head has failed keeps the head only: what follows is dropped from memory and read again (gap) when the head got through, so that a
// key that is stuck costs one message of memory however much piles up behind it.
type lane struct {
	key      string
	part     *partition
	epoch    int64 // of the lease under which it was made
	head     *record
	tail     *record
	sending  int       // records from head that are with the publisher
	failures int       // in a row, of the head
	until    time.Time // waits until then
	gap      int64     // the lowest number dropped; 0: none
	parking  bool      // the head is on its way to the dead letters
	dead     bool      // not in use any more: skip it where it is still listed
	slot     int       // in the heap of waiting lanes
}

func (l *lane) push(r *record) {
	r.lane = l
	if l.tail == nil {
		l.head = r
	} else {
		l.tail.next = r
	}
	l.tail = r
}

// remove unlinks r, whose predecessor is prev (nil: r is the head).
func (l *lane) remove(prev, r *record) {
	if prev == nil {
		l.head = r.next
	} else {
		prev.next = r.next
	}
	if l.tail == r {
		l.tail = prev
	}
}

// failing reports that the head has failed and nothing may pass it.
func (l *lane) failing() bool { return l.failures > 0 || l.parking }

// cut drops everything after the first keep records and remembers from where to read again.
func (l *lane) cut(keep int) {
	var last *record
	r := l.head
	for range keep {
		last, r = r, r.next
	}
	for ; r != nil; r = r.next {
		l.part.forget(r)
		l.skip(r.msg.Seq)
	}
	if last == nil {
		l.head = nil
	} else {
		last.next = nil
	}
	l.tail = last
}

// skip notes that a message of the lane was seen and not kept.
func (l *lane) skip(seq int64) {
	if l.gap == 0 || seq < l.gap {
		l.gap = seq
	}
}

// laneQueue is first in, first out, without giving up its memory.
type laneQueue struct {
	items []*lane
	first int
}

func (q *laneQueue) push(l *lane) { q.items = append(q.items, l) }

func (q *laneQueue) pop() *lane {
	for q.first < len(q.items) {
		l := q.items[q.first]
		q.items[q.first] = nil
		q.first++
		if q.first == len(q.items) {
			q.items, q.first = q.items[:0], 0
		}
		if !l.dead {
			return l
		}
	}
	return nil
}

// compact moves the rest to the front when most of the slice is spent.
func (q *laneQueue) compact() {
	if q.first > 1024 && q.first > len(q.items)/2 {
		n := copy(q.items, q.items[q.first:])
		clear(q.items[n:])
		q.items, q.first = q.items[:n], 0
	}
}

// laneHeap holds the lanes that wait, the earliest first.
type laneHeap []*lane

func (h laneHeap) Len() int           { return len(h) }
func (h laneHeap) Less(i, j int) bool { return h[i].until.Before(h[j].until) }
func (h laneHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i]; h[i].slot = i; h[j].slot = j }
func (h *laneHeap) Push(x any)        { l := x.(*lane); l.slot = len(*h); *h = append(*h, l) }
func (h *laneHeap) Pop() any {
	old := *h
	l := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return l
}

// due takes the lanes whose time has come.
func (h *laneHeap) due(now time.Time, to func(*lane)) {
	for len(*h) > 0 && ((*h)[0].dead || !(*h)[0].until.After(now)) {
		if l := heap.Pop(h).(*lane); !l.dead {
			to(l)
		}
	}
}

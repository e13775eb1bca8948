package window

import (
	"math"
	"time"
)

// Slots is how many parts a [Time] is cut into. An ending is forgotten with its part, so it is kept for
// between nine and ten tenths of the window.
const Slots = 10

// Time counts the endings of the last while. Time runs from any fixed point and is given by the caller.
type Time struct {
	width time.Duration // of a slot
	end   time.Duration // when the newest slot ends
	slot  int64         // the number of the newest slot since time 0; its place is slot modulo Slots
	sum   Counts
	slots [Slots]counts
}

// counts is Counts in half the space: a breaker is to fit in 1 KiB.
type counts struct{ total, failures, slow uint32 }

// NewTime returns an empty window that is length long, at least Slots nanoseconds.
func NewTime(length time.Duration) *Time {
	width := max(length/Slots, 1)
	return &Time{width: width, end: width}
}

// Add files an ending under now and returns the sums that include it. A now before that of an
// earlier Add is filed with the newest.
func (w *Time) Add(now time.Duration, failed, slow bool) Counts {
	if now >= w.end {
		w.advance(now)
	}
	s := &w.slots[w.slot%Slots]
	if s.total == math.MaxUint32 { // full: the rate is known well enough
		return w.sum
	}
	s.total++
	w.sum.Total++
	if failed {
		s.failures++
		w.sum.Failures++
	}
	if slow {
		s.slow++
		w.sum.Slow++
	}
	return w.sum
}

// advance makes the slot of now the newest and empties those that it passes.
func (w *Time) advance(now time.Duration) {
	slot := int64(now / w.width)
	if slot-w.slot >= Slots {
		w.sum, w.slots = Counts{}, [Slots]counts{}
	} else {
		for i := w.slot + 1; i <= slot; i++ {
			s := &w.slots[i%Slots]
			w.sum = w.sum.minus(*s)
			*s = counts{}
		}
	}
	w.slot, w.end = slot, time.Duration(slot+1)*w.width
}

// Counts returns the sums at now. It changes nothing.
func (w *Time) Counts(now time.Duration) Counts {
	if now < w.end {
		return w.sum
	}
	sum := w.sum
	for i, n := w.slot+1, int64(now/w.width); i <= n; i++ {
		if i-w.slot > Slots {
			break
		}
		sum = sum.minus(w.slots[i%Slots])
	}
	return sum
}

// Reset empties the window.
func (w *Time) Reset() { w.sum, w.slots = Counts{}, [Slots]counts{} }

func (c Counts) minus(s counts) Counts {
	return Counts{c.Total - int(s.total), c.Failures - int(s.failures), c.Slow - int(s.slow)}
}

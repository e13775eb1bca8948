package window

import "time"

// Last counts the last n endings, in a quarter of a byte each.
type Last struct {
	size int
	next int // where the next ending goes; the oldest one's place once the window is full
	sum  Counts
	bits []uint64 // two bits an ending: failed, slow
}

// perWord is how many endings a word of bits holds.
const perWord = 32

// NewLast returns an empty window of the last n endings, at least one.
func NewLast(n int) *Last {
	n = max(n, 1)
	return &Last{size: n, bits: make([]uint64, (n+perWord-1)/perWord)}
}

// Add files an ending and returns the sums that include it. The time does not matter.
func (w *Last) Add(_ time.Duration, failed, slow bool) Counts {
	word, shift := &w.bits[w.next/perWord], w.next%perWord*2
	if w.sum.Total == w.size {
		old := *word >> shift
		w.sum.Total--
		w.sum.Failures -= int(old & 1)
		w.sum.Slow -= int(old >> 1 & 1)
	}
	var b uint64
	w.sum.Total++
	if failed {
		b |= 1
		w.sum.Failures++
	}
	if slow {
		b |= 2
		w.sum.Slow++
	}
	*word = *word&^(3<<shift) | b<<shift
	if w.next++; w.next == w.size {
		w.next = 0
	}
	return w.sum
}

// Counts returns the sums. It changes nothing.
func (w *Last) Counts(time.Duration) Counts { return w.sum }

// Reset empties the window.
func (w *Last) Reset() {
	w.next, w.sum = 0, Counts{}
	clear(w.bits)
}

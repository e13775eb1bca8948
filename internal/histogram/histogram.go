// Package histogram remembers how long things took of late: a histogram with logarithmic buckets that forgets.
package histogram

import (
	"math"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"
)

// Buckets: values are counted in units of 2^unitBits ns, about a microsecond. Below 2^subBits units each unit has a bucket; above, each power
// of two is cut into 2^subBits buckets, so that a bucket is at most 1/16 of its values wide and its middle is wrong by at most 3.2 %.
const (
	unitBits = 10
	subBits  = 4
	sub      = 1 << subBits
	octaves  = 27 // up to 2^(unitBits+subBits+octaves) ns, about 36 min; what is longer counts as that
	buckets  = sub * (octaves + 1)
)

// Longest is about the longest duration told apart from longer ones.
const Longest = time.Duration(1)<<(unitBits+subBits+octaves) - 1

// Rotating is a histogram of the last one to two spans. All methods are safe for concurrent use. Recording takes no lock
// but once a span, and a record made while the histogram turns may be lost.
type Rotating struct {
	span   time.Duration
	turnAt atomic.Int64 // when the current half becomes the older one
	now    atomic.Uint32

	mu    sync.Mutex // held to turn and to read
	halfs [2]half
}

type half struct {
	counts [buckets]atomic.Uint32
}

// New returns an empty histogram. Times are given as durations since an origin that the caller keeps.
func New(span time.Duration) *Rotating {
	r := &Rotating{span: span}
	r.turnAt.Store(int64(span))
	return r
}

// Record counts d at the time now.
func (r *Rotating) Record(now, d time.Duration) {
	if int64(now) >= r.turnAt.Load() {
		r.turn(now)
	}
	h := &r.halfs[r.now.Load()&1]
	h.counts[bucket(d)].Add(1)
}

// turn empties the older half and makes it the current one; both, when nothing came for a whole span.
func (r *Rotating) turn(now time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	late := int64(now) - r.turnAt.Load()
	if late < 0 {
		return // another one has
	}
	next := (r.now.Load() + 1) & 1
	r.halfs[next].clear()
	if late >= int64(r.span) {
		r.halfs[next^1].clear()
	}
	r.now.Store(next)
	r.turnAt.Store(int64(now) + int64(r.span))
}

func (h *half) clear() {
	for i := range h.counts {
		h.counts[i].Store(0)
	}
}

// Quantile returns the duration below which the share q, from 0 to 1, of what was recorded lies, as of now, and how many
// records there are; 0 when there are none. It reads some hundred counters: keep the answer for a while.
func (r *Rotating) Quantile(now time.Duration, q float64) (d time.Duration, n int) {
	if int64(now) >= r.turnAt.Load() {
		r.turn(now)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	var all [buckets]uint64
	var total uint64
	for i := range all {
		all[i] = uint64(r.halfs[0].counts[i].Load()) + uint64(r.halfs[1].counts[i].Load())
		total += all[i]
	}
	if total == 0 {
		return 0, 0
	}
	rank := uint64(math.Ceil(q * float64(total)))
	rank = min(max(rank, 1), total)
	for i, c := range all {
		if c < rank {
			rank -= c
			continue
		}
		low, width := bounds(i)
		return low + time.Duration(float64(width)*(float64(rank)-0.5)/float64(c)), int(min(total, math.MaxInt32))
	}
	return Longest, int(min(total, math.MaxInt32)) // not reached: the ranks add up to total
}

// bucket returns the bucket of d.
func bucket(d time.Duration) int {
	v := uint64(min(max(d, 0), Longest)) >> unitBits
	if v < sub {
		return int(v)
	}
	octave := bits.Len64(v) - subBits - 1 // 0 for [sub, 2*sub)
	return (octave+1)<<subBits + int(v>>octave) - sub
}

// bounds returns where bucket i begins and how wide it is.
func bounds(i int) (low, width time.Duration) {
	if i < sub {
		return time.Duration(i) << unitBits, 1 << unitBits
	}
	octave := i>>subBits - 1
	return time.Duration(i&(sub-1)+sub) << (octave + unitBits), 1 << (octave + unitBits)
}

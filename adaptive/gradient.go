package adaptive

import (
	"cmp"
	"math"
	"math/bits"
	"time"
)

// gradient is the algorithm, without clock and locks: it is told what happened when, and keeps a limit. Times are durations since
// one origin, response times are base-2 logarithms of nanoseconds: means of logarithms are little moved by the long
// tail that response times have, and a factor is a difference.
//
// It is Netflix's Gradient2 (concurrency-limits, Gradient2Limit.java): every window
//
//	limit = limit × clamp(tolerance × baseline/now, 1/2, 1) + max(headroom, √limit)
//
// so the limit comes to rest where the queue in the dependency holds a few calls more than tolerance allows. Three things differ, each for
// a defect of the original:
//   - the baseline is not a long average, which follows an overload upwards and lets the limit grow with it. It is the lowest response time
//     of the last seconds, measured again at half the limit when it is old (BBR, Cardwell et al., ACM Queue 14/5, 2016);
//   - a drop cuts the limit at most once in a response time, and when drops are a share of the endings, not for each one (one
//     cut per round trip: Jacobson, SIGCOMM 1988);
//   - until the first sign of a queue the limit doubles, as in TCP's slow start.
type gradient struct {
	min, max  float64
	tolerance float64 // log2
	least     float64 // the least headroom
	window    time.Duration
	refresh   time.Duration // age at which the baseline is measured again; negative: never
	phase     time.Duration // the wall clock at the origin of times
	dropRate  float64

	limit float64
	start bool // no queue seen yet: double

	fast, slow float64 // response time over the last 16 and 64 samples or so; log2 ns
	base       float64 // response time without a queue; log2 ns
	floor      float64 // the lowest base since one was measured for being in doubt
	baseAt     time.Duration
	known      bool // fast, slow, base and floor are set

	drops   float64       // share of drops among the last sixteen endings or so
	counted int           // samples of this window that are in drops
	cutAt   time.Duration // calls that started before say nothing about the limit since
	dropped bool          // a drop in this window: no growth

	top, topRTT   float64 // limit from which it has been shrinking, and fast at that time; 0: it is not
	from, fromRTT float64 // the same since fast last changed

	dipAt    time.Duration // when the next one is due
	dip      dipPhase
	depth    int     // halvings in this dip
	before   float64 // fast when it began
	flown    float64 // calls in flight when it began, if the limit was not reached; else 0
	measured float64 // mean of the samples of a dip so far
	samples  float64
	looks    int
}

type dipPhase uint8

const (
	noDip     dipPhase = iota
	draining           // calls from before the dip are still ending: what they tell is dropped
	measuring          // samples are those of a shorter queue
)

// current returns the limit to act on.
func (g *gradient) current() int {
	if g.dip != noDip {
		return int(g.dipped())
	}
	return int(g.limit)
}

// dipped returns the limit of a dip.
func (g *gradient) dipped() float64 {
	return max(g.min, cmp.Or(g.flown, g.limit)/float64(int(1)<<g.depth))
}

// doubt is how far the baseline of a limit that nobody reaches may rise until it is measured (log2: three times). Such a limit
// takes for its baseline what it sees, also the queue of others; and it would be alone in keeping that queue up when they all measure.
const doubt = 1.6

// crowd is how many calls in flight make a limit that nobody reaches come down when they queue. With fewer, a limit of twice as many would refuse
// the next ordinary burst. When they take far longer than the baseline (log2: eight times as long), a few are enough.
const (
	crowd = 20
	few   = 8
	far   = 3
)

// look takes in a window that ends now: n samples with the mean response time x, with peak calls in flight at once. It
// returns when the next window ends.
func (g *gradient) look(now time.Duration, n int, x float64, peak int) time.Duration {
	if n == 0 {
		return now + g.window
	}
	g.well(n)
	g.counted = 0
	if g.dip != noDip {
		return g.lookInDip(now, n, x)
	}
	if !g.known {
		g.fast, g.slow, g.base, g.floor, g.baseAt, g.known = x, x, x, x, now, true
		g.dipAt = g.nextDip(now)
	}
	g.fast += (x - g.fast) * min(1, float64(n)/16)
	g.slow += (x - g.slow) * min(1, float64(n)/64)
	if g.slow < g.base {
		g.base, g.floor, g.baseAt = g.slow, min(g.floor, g.slow), now
	}
	dropped := g.dropped
	g.dropped = false
	bound := 2*float64(peak) > g.limit // else the callers ask for less, and the limit has not been tried
	if g.refresh > 0 && now >= g.dipAt {
		g.dipAt = g.nextDip(now)
		doubted := !bound && peak >= few && g.floor+doubt < g.base
		if (bound || doubted) && g.limit > g.min && g.drops < g.dropRate { // not in the middle of a fault
			g.dip, g.depth, g.before, g.flown = draining, 1, g.fast, 0
			if doubted {
				g.flown = float64(peak)
			}
			return now + g.rtts(1.5)
		}
		if !bound && now-g.baseAt > g.refresh {
			g.base, g.baseAt = g.slow, now
		}
	}
	switch {
	case bound:
		g.adjust(now, dropped)
	case peak >= few && g.base+far < g.fast:
		// Calls tell of a queue only once they have been through it, and it has grown since: come down at once, to what is in flight. The end of the start would
		// measure the baseline now, which is no moment for it.
		g.limit, g.start = max(g.min, float64(peak)), false
	case peak >= crowd && g.tolerance+g.base < g.fast:
		// Calls queue, and the limit is too far above them to say anything: let it come down to where it is tried.
		g.limit = max(g.min, g.limit/2, float64(2*peak-1))
	}
	next := now + max(g.window, g.rtts(2))
	if g.refresh > 0 && g.dipAt > now {
		next = min(next, g.dipAt) // not a moment later than the others
	}
	return next
}

// adjust moves the limit by the gradient.
func (g *gradient) adjust(now time.Duration, dropped bool) {
	ratio := g.tolerance + g.base - g.fast
	if ratio < 0 && g.start {
		g.start, g.dipAt = false, now // the baseline so far was seen with a limit that grew: measure it now
	}
	want := g.limit*math.Exp2(min(0, max(-1, ratio))) + g.headroom(g.limit)
	if g.start {
		want = 2 * g.limit
	}
	if dropped {
		want = min(want, g.limit)
	}
	before := g.limit
	g.limit = min(g.max, max(g.min, want))
	g.judgeShrinking(before, now)
}

// better is by how much a response time must fall for that to count: 10 %; log2.
const better = 0.15

// judgeShrinking finds out whether it helps to shrink. A queue of our own gets shorter with the limit. When half of it brings no better time,
// the dependency itself has become slower: that is the new baseline. The half counts from the limit at which the time last changed, since the first
// windows of a fall still hold calls from before it, and a step of theirs would be taken for help.
func (g *gradient) judgeShrinking(before float64, now time.Duration) {
	switch {
	case g.limit >= before:
		g.from, g.top = 0, 0
		return
	case g.top == 0:
		g.top, g.topRTT = before, g.fast
		fallthrough
	case g.from == 0:
		g.from, g.fromRTT = before, g.fast
	}
	change := math.Abs(g.fast - g.fromRTT)
	if change >= better { // for the better, or for the worse by a queue that others build
		g.from, g.fromRTT = before, g.fast
		return
	}
	// Half is more than the queue of others brings about. Where the headroom does not let the limit fall by half, a long fall that has come to its end
	// will do, and a change in proportion to what is left of it.
	halvings := math.Log2(g.from / g.limit)
	ended := before-g.limit < 0.05*g.limit && g.limit < 0.7*g.top
	if halvings < 1 && !(ended && halvings > 0.25 && change < 2*halvings*better) {
		return
	}
	g.slow, g.base, g.baseAt = g.fast, g.fast, now
	g.settle(g.top, g.topRTT)
	g.from, g.top = 0, 0
}

// headroom is how many calls may be queued with a limit, beyond what the tolerance allows.
func (g *gradient) headroom(limit float64) float64 { return max(g.least, math.Sqrt(limit)) }

// settle sets the limit from the response time rtt that was seen at limit: by Little's law the share of the time that was not spent in a queue
// is the share of the calls that were not in it.
func (g *gradient) settle(limit, rtt float64) {
	g.limit = limit*math.Exp2(min(0, g.tolerance+g.base-rtt)) + g.headroom(limit)
	g.limit = min(g.max, max(g.min, g.limit))
}

// lookInDip is look while the limit is lowered to measure the baseline.
func (g *gradient) lookInDip(now time.Duration, n int, x float64) time.Duration {
	if g.dip == draining {
		g.dip, g.samples, g.looks = measuring, 0, 0
		return now + g.rtts(1)
	}
	g.looks++
	g.samples += float64(n)
	g.measured += (x - g.measured) * float64(n) / g.samples
	if g.samples < 8 && g.looks < 4 {
		return now + g.rtts(1)
	}
	faster := g.measured < g.fast-better
	g.fast = g.measured
	if faster && g.depth < 8 && g.dipped() > g.min {
		g.depth++ // half the calls, shorter times: there may still be a queue
		g.dip = draining
		return now + g.rtts(1.5)
	}
	g.dip, g.depth, g.from, g.top = noDip, 0, 0, 0
	g.slow, g.base, g.baseAt = g.measured, g.measured, now
	if g.flown == 0 {
		g.floor = min(g.floor, g.base)
		g.settle(g.limit, g.before)
	} else {
		g.floor = g.base
		if g.base < g.before-better {
			g.settle(g.flown, g.before)
		}
	}
	return now + max(g.window, g.rtts(1.5)) // let the calls of the dip end
}

// well lets the share of drops fall by the samples of this window, of which there are n so far.
func (g *gradient) well(n int) {
	g.drops *= math.Pow(15.0/16, float64(n-g.counted))
	g.counted = n
}

// drop takes in a call, started at start, that showed an overload: it timed out or was turned away. peak calls were in flight, and n samples
// have been seen since the last look.
func (g *gradient) drop(now, start time.Duration, peak, n int) {
	g.well(n)
	g.drops += (1 - g.drops) / 16
	g.dropped = true
	if start < g.cutAt || g.drops < g.dropRate {
		return
	}
	g.cutAt, g.start = now, false
	g.dip, g.depth, g.from, g.top = noDip, 0, 0, 0
	// What was tried and failed is what was in flight, which may be far less than an untried limit.
	g.limit = max(g.min, min(g.limit, float64(peak))/2)
}

// nextDip returns when to measure the baseline after now: the next multiple of the refresh time, or of enough of them to make fifty response times, on the
// wall clock. Clients of one dependency do not know of each other, but so they lower their limits together, and what they measure is
// the dependency without the queue of them all. (Flows under BBR fall into step by themselves, since each sees the others' queue go.)
func (g *gradient) nextDip(now time.Duration) time.Duration {
	period := g.refresh
	for float64(period) < 50*math.Exp2(g.base) && period < time.Hour {
		period *= 2
	}
	return now + period - (now+g.phase)%period
}

// rtts returns n response times.
func (g *gradient) rtts(n float64) time.Duration {
	return time.Duration(min(n*math.Exp2(g.fast), float64(10*time.Second)))
}

// log2 returns the base-2 logarithm of d in nanoseconds times 1,024, within 0.09: linear between powers of two.
func log2(d time.Duration) uint64 {
	v := uint64(max(d, 1))
	e := bits.Len64(v) - 1
	return uint64(e)<<10 | (v<<(63-e)&(1<<63-1))>>53
}

// exp2 is the inverse of log2, without its factor.
func exp2(x float64) time.Duration {
	e, f := math.Modf(x)
	return time.Duration(math.Ldexp(1+f, int(e)))
}

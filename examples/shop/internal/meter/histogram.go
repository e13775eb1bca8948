package meter

import (
	"math"
	"time"
)

// Histogram counts durations from a millisecond to a minute in steps of 9 %. The zero value is empty.
type Histogram struct {
	n     int
	steps [histogramSteps]uint32
}

const (
	stepsPerOctave = 8
	histogramSteps = 16 * stepsPerOctave // 2^16 ms
)

// Add counts d.
func (h *Histogram) Add(d time.Duration) {
	i := 0
	if ms := float64(d) / float64(time.Millisecond); ms > 1 {
		i = min(int(math.Ceil(stepsPerOctave*math.Log2(ms))), histogramSteps-1)
	}
	h.n++
	h.steps[i]++
}

// Merge adds what other has counted.
func (h *Histogram) Merge(other *Histogram) {
	h.n += other.n
	for i, n := range other.steps {
		h.steps[i] += n
	}
}

// Quantile returns the upper end of the step in which the quantile lies; 0 when nothing was counted.
func (h *Histogram) Quantile(q float64) time.Duration {
	rest := int(math.Ceil(q * float64(h.n)))
	if rest == 0 {
		return 0
	}
	for i, n := range h.steps {
		if rest -= int(n); rest <= 0 {
			return time.Duration(math.Exp2(float64(i)/stepsPerOctave) * float64(time.Millisecond))
		}
	}
	return 0
}

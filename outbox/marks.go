package outbox

import (
	"slices"
	"time"
)

// marks remembers which number was the newest one read, when. Numbers taken after some instant are higher than what had been read by then, so a
// reading that starts at the mark of an instant at which no transaction still open had taken a number sees every message that has not been seen.
type marks struct {
	lag     time.Duration
	newest  int64
	samples []sample // rising in both
}

type sample struct {
	at  time.Time // the end of a reading
	seq int64
}

// note takes in that seq was read by now.
func (m *marks) note(now time.Time, seq int64) {
	m.newest = max(m.newest, seq)
	n := len(m.samples)
	if n > 0 && now.Sub(m.samples[n-1].at) < m.lag/16 {
		return
	}
	m.samples = append(m.samples, sample{now, m.newest})
	first := 0
	for first+1 < n && now.Sub(m.samples[first+1].at) >= 30*m.lag {
		first++
	}
	if first > 64 {
		m.samples = append(m.samples[:0], m.samples[first:]...)
	}
}

// far is the newest number as it stood thirty lags before now.
func (m *marks) far(now time.Time) int64 { return m.stood(now.Add(-30 * m.lag)) }

// stood is the newest number as it stood at an instant.
func (m *marks) stood(at time.Time) int64 {
	for _, v := range slices.Backward(m.samples) {
		if v.at.Before(at) {
			return v.seq
		}
	}
	return 0
}

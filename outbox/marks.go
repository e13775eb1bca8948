package outbox

import "slices"

import "time"

// marks remembers which number was the newest one read, when. A reading that starts at the mark of one lag ago sees every message whose
// transaction committed within that lag of taking its number. Without the lag the message with the older number of two overlapping
// transactions would wait for the sweep whenever the newer one commits first.
type marks struct {
	lag     time.Duration
	newest  int64
	samples []sample // rising in both
}

type sample struct {
	at  time.Time
	seq int64
}

// note takes in that seq was read at now.
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

// near is the newest number as it stood one lag before now.
func (m *marks) near(now time.Time) int64 { return m.stood(now.Add(-m.lag)) }

// far is the newest number as it stood thirty lags before now.
func (m *marks) far(now time.Time) int64 { return m.stood(now.Add(-30 * m.lag)) }

func (m *marks) stood(at time.Time) int64 {
	for _, v := range slices.Backward(m.samples) {
		if !v.at.After(at) {
			return v.seq
		}
	}
	return 0
}

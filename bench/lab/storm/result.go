package storm

import (
	"math"
	"time"
)

// Second is what became of the calls that began in one second of a run; attempts are those made in it.
type Second struct {
	Offered, Good, Attempts int
	Took                    time.Duration // of the good calls, together
	Queue                   int           // most jobs waiting at one replica, as attempts found it
}

// Result is a run by seconds.
type Result []Second

// Sum adds up the seconds [from, to).
func (r Result) Sum(from, to int) (sum Second) {
	for _, s := range r[from:min(to, len(r))] {
		sum.Offered += s.Offered
		sum.Good += s.Good
		sum.Attempts += s.Attempts
		sum.Took += s.Took
		sum.Queue = max(sum.Queue, s.Queue)
	}
	return sum
}

// Share is the part of the calls of the seconds [from, to) that was good.
func (r Result) Share(from, to int) float64 {
	s := r.Sum(from, to)
	return float64(s.Good) / float64(s.Offered)
}

// Amplification is the attempts for each call of the seconds [from, to).
func (r Result) Amplification(from, to int) float64 {
	s := r.Sum(from, to)
	return float64(s.Attempts) / float64(s.Offered)
}

// Never is the recovery of a run that did not recover.
const Never = math.MaxInt32

// Recovery is how many seconds after the second from the first five in a row began in each of which at least 90 % of the calls were good.
func (r Result) Recovery(from int) int {
	row := 0
	for i := from; i < len(r); i++ {
		if float64(r[i].Good) < 0.9*float64(r[i].Offered) {
			row = 0
		} else if row++; row == 5 {
			return i - 4 - from
		}
	}
	return Never
}

// Peak is the most attempts in one second.
func (r Result) Peak() (most int) {
	for _, s := range r {
		most = max(most, s.Attempts)
	}
	return most
}

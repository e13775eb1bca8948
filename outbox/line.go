package outbox

import "time"

const (
	// holdFor is how long a batch that is not full waits for company, at the most.
	holdFor = 10 * time.Millisecond
	// lineFor is for how long what calls took tells what the next ones will.
	lineFor = 250 * time.Millisecond
	// lineCalls is how many calls are needed to tell it.
	lineCalls = 4
)

// A line is what a relay knows of its calls of Publish under way. All fields are guarded by the board's mutex.
//
// A client that lets only so many messages be on their way makes calls wait for each other: one more, of the few messages that are ready, has the turn that a full
// one might have. And the keys of a call become ready together when it comes back, so that small batches would stay small for as long as there is a backlog. With
// other clients calls go side by side, and to hold one back would be a loss. Which kind it is shows in how much longer calls take beside one more.
type line struct {
	under int           // calls under way
	took  map[int]usual // by how many were under way when a call began, itself included
	since time.Time     // since when a batch is held; zero: none is
}

// usual is a running mean.
type usual struct {
	calls int // in it; not more than twice lineCalls
	mean  time.Duration
	at    time.Time // when the last of them began
}

// begin takes in that a call begins, and returns its place.
func (l *line) begin() int {
	l.since = time.Time{}
	l.under++
	return l.under
}

// end takes in that the call of a place came back. One that failed does not tell how long calls take.
func (l *line) end(place int, began, now time.Time, failed bool) {
	l.under--
	if failed || now.Sub(began) > lineFor {
		return
	}
	if l.took == nil {
		l.took = map[int]usual{}
	}
	u := l.usual(place, began, lineFor)
	u.calls = min(u.calls+1, 2*lineCalls)
	u.mean += (now.Sub(began) - u.mean) / time.Duration(u.calls)
	u.at = began
	l.took[place] = u
}

// usual is what is known of a place, if it is not older than age.
func (l *line) usual(place int, now time.Time, age time.Duration) usual {
	if u := l.took[place]; now.Sub(u.at) <= age {
		return u
	}
	return usual{}
}

// hold says until when the n messages that are ready are to wait for company, of which there are queued behind the calls under way; zero: they go. Two calls
// are under way at any rate: one in the broker's hands and the next.
func (l *line) hold(now time.Time, n, size, queued int) time.Time {
	if n == 0 {
		l.since = time.Time{}
	}
	if n == 0 || n >= size || n+queued < size || l.under < 2 {
		return time.Time{}
	}
	// The less often tried is tried again the sooner: it costs less to hold what might go than to be wrong about it for long.
	with, without := l.usual(l.under+1, now, lineFor), l.usual(l.under, now, lineFor/2)
	if with.calls < lineCalls {
		return time.Time{} // to see
	}
	if full := l.under * size; without.calls >= lineCalls && int64(full)*int64(with.mean) < int64(full+n)*int64(without.mean) {
		return time.Time{} // more messages come back in a while
	}
	if l.since.IsZero() {
		l.since = now
	}
	if until := l.since.Add(holdFor); now.Before(until) {
		return until
	}
	return time.Time{}
}

package outbox

import "time"

// A partition is what a relay knows of one partition, owned or not: publications begun under a lease
// may end after it, so the memory of them outlives it. All fields are guarded by the board's mutex.
type partition struct {
	Lease
	owned    bool
	draining bool      // owned, to be given back when nothing is pending
	until    time.Time // no publication starts later than this

	known    map[int64]struct{} // read and not yet certain to be gone from the table
	buried   []int64            // deleted since the last read began; still known, since that read may return them
	lanes    map[string]*lane
	parked   map[string]struct{} // keys held back by dead letters
	attempts map[int64]int       // as loaded with the lease
	gapped   map[*lane]struct{}  // healed lanes that wait for their dropped messages
	queued   int                 // records of healthy lanes, not being published
	failing  int                 // lanes that keep a failed head
	pending  int                 // being published, or finished and not yet deleted, or on the way to the dead letters

	pos     int64     // where the next read starts
	back    int64     // the lowest place that somebody asked to go back to since the last read began; −1: nobody
	settled int64     // a read was complete from here on: newer rows below it were late
	full    bool      // the last read reached its limit
	paging  bool      // the read under way goes on where the last one reached its limit
	runAt   time.Time // the database's time when the first page of this run was read
	safe    time.Time // as given to begin
	tailAt  time.Time
	sweepAt time.Time
	lookAt  time.Time // the read under way is one of these two, and began then; zero: it is not
}

func newPartition(id int) *partition {
	return &partition{
		Lease:  Lease{Part: id},
		known:  map[int64]struct{}{},
		lanes:  map[string]*lane{},
		gapped: map[*lane]struct{}{},
	}
}

// readable reports that the partition may be read at now, if there is room.
func (p *partition) readable(now time.Time) bool {
	return p.owned && !p.draining && p.failing < maxFailing && now.Before(p.until)
}

// forget drops a queued record from memory; it will be read again.
func (p *partition) forget(r *record) {
	delete(p.known, r.msg.Seq)
	p.uncount(r)
}

func (p *partition) uncount(r *record) {
	if r.counted {
		r.counted = false
		p.queued--
	}
}

// reset forgets whatever is not already with the publisher or finished, and reads from the beginning. Messages without
// key stay queued: nothing holds them back; a change of owner is noticed by their lane's epoch.
func (p *partition) reset() {
	for _, l := range p.lanes {
		keep := l.sending
		if l.parking {
			keep = 1 // the refusal, which the change of generation makes certain, finds it again
		}
		l.cut(keep)
		p.heal(l)
		l.gap = 0
		if l.sending == 0 && !l.parking {
			l.dead = true
			delete(p.lanes, l.key)
		}
	}
	for l := range p.gapped {
		delete(p.gapped, l)
	}
	p.pos, p.back, p.settled, p.full = 0, 0, 0, false
	p.sweepAt, p.tailAt, p.lookAt = time.Time{}, time.Time{}, time.Time{}
}

// heal ends a lane's failing.
func (p *partition) heal(l *lane) {
	if l.failures > 0 {
		l.failures = 0
		p.failing--
	}
}

// rewind makes the next read start at seq at the latest.
func (p *partition) rewind(seq int64) {
	p.pos = min(p.pos, seq)
	if p.back < 0 || seq < p.back {
		p.back = seq
	}
}

// begin prepares a read at now and returns where it starts. Most reads start below whatever an open transaction may hold; each lag one starts
// thirty lags back, and each sweep one starts at the beginning. safe is the instant below whose mark nothing can appear any more; clock is the
// database's time.
func (p *partition) begin(now, safe, clock time.Time, m *marks, sweep time.Duration) Span {
	p.unbury()
	again := p.full // the next page of a run
	p.lookAt = time.Time{}
	switch {
	case !now.Before(p.sweepAt):
		p.pos, again, p.lookAt = 0, false, now
		p.sweepAt, p.tailAt = now.Add(sweep), now.Add(m.lag)
	case !now.Before(p.tailAt):
		p.pos, again, p.lookAt = min(p.pos, m.far(now), m.stood(safe)), false, now
		p.tailAt = now.Add(m.lag)
	}
	if !again {
		p.runAt = clock
	}
	p.back, p.safe, p.paging = -1, safe, again
	return Span{Part: p.Part, From: p.pos}
}

// late reports that a message of the next page of a run may have come too late for the run: the pages before were read without what was committed since, and that
// may be of the same key. Whoever enqueued this one may have waited for it.
func (p *partition) late(m *Message) bool { return p.paging && !m.Created.Before(p.runAt) }

// end moves on after a read that returned by now rows up to last, of which it took those below left, if that is not 0. A look back goes through what was
// deleted lately, which on a server short of time may take longer than the next look is away: they get a quarter of the time, or the pages after the first would never be read.
func (p *partition) end(now time.Time, m *marks, last int64, short bool, left int64) {
	if !p.lookAt.IsZero() {
		next := now.Add(3 * now.Sub(p.lookAt))
		p.tailAt, p.sweepAt = later(p.tailAt, next), later(p.sweepAt, next)
	}
	p.full = !short && left == 0
	switch {
	case p.full:
		p.pos = last + 1
	case left > 0:
		p.pos = min(m.stood(p.safe), left)
	default:
		p.pos = m.stood(p.safe)
		p.settled = p.pos
	}
	if p.back >= 0 && p.back < p.pos {
		p.pos = p.back
	}
}

// unbury forgets what was deleted before a read that begins now: it cannot return it.
func (p *partition) unbury() {
	for _, seq := range p.buried {
		delete(p.known, seq)
	}
	p.buried = p.buried[:0]
}

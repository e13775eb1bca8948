package outbox

import (
	"context"
	"sync"
	"time"
)

// leaseState is what Health and Stats say of the leases.
type leaseState struct {
	mu      sync.Mutex // guards the rest
	began   time.Time  // of Run
	renewed time.Time  // the last success
	err     error      // of the last renewal
	relays  int
	share   int
	owned   int
	orphans int
	lost    int64 // partitions lost without having been given back
	kill    context.CancelFunc
}

func (s *leaseState) set(f func(*leaseState)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(s)
}

func (s *leaseState) get(f func(*leaseState)) { s.set(f) }

// hungry is how often a relay looks that has fewer partitions than its share. A dead relay's partitions are taken over within the lease and
// this.
const hungry = 250 * time.Millisecond

// leaseLoop keeps the leases, apart from all other work.
func (r *Relay) leaseLoop(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-r.renew:
		}
		timer.Reset(r.lease(ctx))
	}
}

// lease renews once and returns when to do so again.
func (r *Relay) lease(ctx context.Context) time.Duration {
	ttl := r.cfg.Lease
	req := LeaseRequest{Relay: r.id, TTL: ttl}
	b := r.board
	b.mu.Lock()
	for _, p := range b.parts {
		switch {
		case !p.owned:
		case p.draining && p.pending == 0:
			req.Release = append(req.Release, p.Lease)
		default:
			req.Held = append(req.Held, p.Lease)
		}
	}
	b.mu.Unlock()

	// The database counts the lease from when it got the request, so a lease counted from before that is never longer. A renewal that
	// hangs is given up in time for another try, which is given more time: giving up costs a new connection, and a database that is slow would never be
	// asked long enough.
	began := time.Now()
	call, cancel := context.WithTimeout(ctx, min(ttl/3<<r.unrenewed, max(ttl, time.Second)))
	got, err := r.src.Lease(call, req)
	cancel()
	ended := time.Now()
	if err != nil {
		if ctx.Err() == nil {
			r.log.WarnContext(ctx, "outbox: lease", "err", err)
		}
		r.state.set(func(s *leaseState) { s.err = err })
		pause := ttl / 10
		if len(req.Held) == 0 { // nothing is published meanwhile: at first this is but a hitch at the start
			pause = min(pause, hungry<<r.unrenewed)
		}
		r.unrenewed = min(r.unrenewed+1, 5)
		return pause
	}
	r.unrenewed = 0
	lost, owned := r.takeLeases(began, ended, req, got)
	r.state.set(func(s *leaseState) {
		s.err, s.renewed = nil, began
		s.relays, s.share, s.orphans, s.owned = got.Relays, got.Share, got.Orphans, owned
		s.lost += int64(lost)
	})
	if lost > 0 {
		r.log.WarnContext(ctx, "outbox: partitions lost", "count", lost)
	}
	r.look()
	r.kick.raise()
	// From its begin, as the lease counts: however long the call took, the next has two thirds of the lease.
	pause := ttl / 3
	if owned < got.Share {
		pause = min(pause, hungry)
	}
	return max(pause-ended.Sub(began), 0)
}

// takeLeases takes in what the store said. A renewal's answer and a loss may cross: only what the store says last counts, and
// calls are made one at a time.
func (r *Relay) takeLeases(began, ended time.Time, req LeaseRequest, got Leases) (lost, owned int) {
	b := r.board
	b.mu.Lock()
	defer b.mu.Unlock()
	b.clock.set(got.Now, ended)
	until := began.Add(r.cfg.Lease - r.cfg.Lease/20) // a twentieth for clocks that do not run alike
	held := make(map[int]bool, len(got.Held))
	for _, h := range got.Held {
		held[h.Part] = true
		p := b.part(h.Part)
		if !p.owned || p.Epoch != h.Epoch || p.Gen != h.Gen {
			if !p.owned || p.Epoch != h.Epoch {
				p.draining = false
			}
			p.owned, p.Lease, p.attempts = true, h.Lease, h.Attempts
			p.parked = make(map[string]struct{}, len(h.Parked))
			for _, key := range h.Parked {
				p.parked[key] = struct{}{}
			}
			p.reset()
		}
		p.until = until
	}
	for _, p := range b.parts {
		if p.owned && !held[p.Part] {
			if !p.draining || p.pending > 0 {
				lost++
			}
			p.owned, p.draining = false, false
			p.reset()
			p.unbury()
		}
	}
	return lost, r.share(got)
}

// share gives up partitions above the relay's share, or keeps some that it was giving up.
func (r *Relay) share(got Leases) (owned int) {
	keep := got.Share
	for part := range got.Parts {
		p := r.board.parts[part]
		if p == nil || !p.owned {
			continue
		}
		owned++
		switch {
		case keep > 0:
			keep--
			if p.draining {
				p.draining = false
				p.reset()
			}
		case !p.draining:
			p.draining = true
			p.reset()
			if p.pending == 0 {
				r.renew.raise()
			}
		}
	}
	return owned
}

// drained asks for a renewal when a partition that is being given up has nothing pending left. The board's mutex is held.
func (r *Relay) drained(p *partition) {
	if p.draining && p.pending == 0 {
		r.renew.raise()
	}
}

// leave gives everything back.
func (r *Relay) leave(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	_, err := r.src.Lease(ctx, LeaseRequest{Relay: r.id, TTL: r.cfg.Lease, Leave: true})
	return err
}

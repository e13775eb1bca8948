package outbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// Stats is what a relay has done since it was made, and how it stands now.
type Stats struct {
	Published  int64 `json:"published"`  // messages confirmed by the broker
	Failed     int64 `json:"failed"`     // publications of a message that were not confirmed
	Unknown    int64 `json:"unknown"`    // those of Failed whose outcome is unknown
	Parked     int64 `json:"parked"`     // messages moved to the dead letters
	Expired    int64 `json:"expired"`    // messages dropped because their time had passed
	Rescued    int64 `json:"rescued"`    // messages of late commits that only a sweep, or the look 30 s back, found
	Duplicates int64 `json:"duplicates"` // messages published whose row was gone when it was to be deleted: another relay had published them too
	Lost       int64 `json:"lost"`       // partitions lost without having been given back

	Relays     int           `json:"relays"`     // relays alive, as of the last renewal
	Share      int           `json:"share"`      // partitions that this relay should own
	Owned      int           `json:"owned"`      // partitions that it owns
	Queued     int           `json:"queued"`     // messages in memory that wait for the publisher
	Pending    int           `json:"pending"`    // messages with the publisher, or not yet deleted
	Failing    int           `json:"failing"`    // keys whose first message has failed and will be tried again
	ParkedKeys int           `json:"parkedKeys"` // keys held back by dead letters, in the partitions owned
	Oldest     time.Duration `json:"oldestNs"`   // age of the oldest message in memory, by the database's clock; 0: none

	Gauges Gauges `json:"gauges"` // the whole outbox, as the source last said; see [Gauger]
}

// Stats reports counts and state. It takes time in proportion to the messages in memory, some thousands.
func (r *Relay) Stats() Stats {
	b := r.board
	b.mu.Lock()
	c := b.counts
	s := Stats{
		Published: c.Published, Failed: c.Failed, Unknown: c.Unknown, Parked: c.Parked,
		Expired: c.Expired, Rescued: c.Rescued, Duplicates: c.Duplicates,
	}
	now := b.clock.time(time.Now())
	for _, p := range b.parts {
		s.Queued += p.queued
		s.Pending += p.pending
		s.Failing += p.failing
		if p.owned {
			s.Owned++
			s.ParkedKeys += len(p.parked)
		}
		for _, l := range p.lanes {
			if l.head != nil {
				s.Oldest = max(s.Oldest, now.Sub(l.head.msg.Created))
			}
		}
	}
	for _, l := range b.waiting {
		if l.head != nil && !l.dead {
			s.Oldest = max(s.Oldest, now.Sub(l.head.msg.Created))
		}
	}
	b.mu.Unlock()
	s.Gauges = r.gauges.get()
	r.state.get(func(l *leaseState) { s.Relays, s.Share, s.Lost = l.relays, l.share, l.lost })
	return s
}

// Health returns nil when the relay runs and keeps up, else all that is wrong, joined: it does not run, its leases have not
// been renewed for two terms, partitions have had no owner for as long, or the oldest message is older than
// MaxAge.
func (r *Relay) Health() error {
	select {
	case <-r.done:
		return errors.New("outbox: the relay has ended")
	default:
	}
	if !r.running.Load() {
		return errors.New("outbox: the relay does not run")
	}
	var faults []error
	r.state.get(func(s *leaseState) {
		last := s.renewed
		if last.IsZero() {
			last = s.began
		}
		if !last.IsZero() && time.Since(last) > 2*r.cfg.Lease {
			faults = append(faults, errors.Join(fmt.Errorf("outbox: leases not renewed for %v", time.Since(last).Round(time.Millisecond)), s.err))
		}
		if s.orphans > 0 {
			faults = append(faults, fmt.Errorf("outbox: %d partitions without owner", s.orphans))
		}
	})
	if age := r.Stats().Oldest; r.cfg.MaxAge > 0 && age > r.cfg.MaxAge {
		faults = append(faults, fmt.Errorf("outbox: the oldest message is %v old", age.Round(time.Second)))
	}
	return errors.Join(faults...)
}

// ServeHTTP answers with Stats and Health as JSON: 200 when healthy, else 503. It only reads; mount it where strangers do not reach.
func (r *Relay) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	page := struct {
		Stats
		Health string `json:"health"`
	}{Stats: r.Stats(), Health: "ok"}
	status := http.StatusOK
	if err := r.Health(); err != nil {
		page.Health, status = err.Error(), http.StatusServiceUnavailable
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(page) //nolint:errchkjson // the client has gone: nobody to tell
}

package outbox

import (
	"context"
	"slices"
	"time"
)

const (
	// settleAfter is how long confirmed messages may wait for company before they are deleted: what a crash makes a relay repeat.
	settleAfter = 5 * time.Millisecond
	// settleMost is the largest number of messages deleted, or parked, in one call of the store.
	settleMost = 5000
	// triesEvery is how often counted attempts are written down.
	triesEvery = time.Second
)

// settleLoop writes down what has become of messages. After stopping it goes on until there is nothing left.
func (r *Relay) settleLoop(stopping, work context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	pause := time.Duration(0) // after an error
	tried := time.Now()
	for {
		select {
		case <-stopping.Done():
		case <-r.flush:
			wait := settleAfter
			if r.full.Swap(false) {
				wait = 0
			}
			r.collect(stopping, timer, max(wait, pause))
		case <-time.After(triesEvery):
		}
		stopped := stopping.Err() != nil
		tries := stopped || time.Since(tried) >= triesEvery
		if tries {
			tried = time.Now()
		}
		err := r.settleOnce(work, tries)
		if err != nil {
			if work.Err() != nil {
				return
			}
			r.log.WarnContext(work, "outbox: settle", "err", err)
			pause = min(max(2*pause, 10*time.Millisecond), time.Second)
			r.flush.raise()
			if stopped {
				timer.Reset(pause)
				select {
				case <-timer.C:
				case <-work.Done():
				}
			}
			continue
		}
		pause = 0
		if stopped && r.settled() {
			return
		}
	}
}

// collect waits for more to settle: for d, or until there is a batch of it.
func (r *Relay) collect(stopping context.Context, timer *time.Timer, d time.Duration) {
	if d <= 0 {
		return
	}
	timer.Reset(d)
	for {
		select {
		case <-stopping.Done():
			return
		case <-timer.C:
			return
		case <-r.flush:
			if r.full.Swap(false) {
				return
			}
		}
	}
}

func (r *Relay) settled() bool {
	r.board.mu.Lock()
	defer r.board.mu.Unlock()
	return len(r.board.done) == 0 && len(r.board.parks) == 0
}

// settleOnce writes down one round. What could not be written is back on the board.
func (r *Relay) settleOnce(work context.Context, withTries bool) error {
	for {
		more, err := r.settleDone(work)
		if err != nil {
			return err
		}
		if !more {
			break
		}
	}
	if err := r.settleParks(work); err != nil {
		return err
	}
	if withTries {
		return r.settleTries(work)
	}
	return nil
}

// call bounds a call of the store.
func (r *Relay) storeCall(work context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(work, max(r.cfg.Lease, 5*time.Second))
}

func (r *Relay) settleDone(work context.Context) (more bool, err error) {
	b := r.board
	b.mu.Lock()
	done := b.done[:min(len(b.done), settleMost)]
	b.done = b.done[len(done):]
	if len(b.done) == 0 {
		b.done = nil
	}
	b.mu.Unlock()
	if len(done) == 0 {
		return false, nil
	}
	s := Settlement{Relay: r.id}
	at := map[int]int{}
	for _, rec := range done {
		part := rec.lane.part.Part
		i, ok := at[part]
		if !ok {
			i = len(s.Done)
			at[part] = i
			s.Done = append(s.Done, Done{Part: part})
		}
		s.Done[i].Seqs = append(s.Done[i].Seqs, rec.msg.Seq)
		if rec.attempts > 0 {
			s.Done[i].Tried = append(s.Done[i].Tried, rec.msg.Seq)
		}
	}
	ctx, cancel := r.storeCall(work)
	got, err := r.src.Settle(ctx, s)
	cancel()
	b.mu.Lock()
	defer b.mu.Unlock()
	if err != nil {
		b.done = append(slices.Clip(done), b.done...)
		return false, err
	}
	b.counts.Duplicates += int64(len(done) - got.Deleted)
	b.deleted(done)
	if b.crowded {
		b.crowded = false
		r.look()
	}
	for i := range s.Done {
		r.drained(b.part(s.Done[i].Part))
	}
	return len(b.done) >= r.cfg.Batch, nil
}

func (r *Relay) settleParks(work context.Context) error {
	b := r.board
	b.mu.Lock()
	parks := b.parks[:min(len(b.parks), settleMost)]
	b.parks = b.parks[len(parks):]
	b.mu.Unlock()
	for len(parks) > 0 {
		// One call for those of one lease and reason, in the order in which they came: a key's poison before what it holds back.
		n := 1
		first := parks[0]
		for n < len(parks) && first.holds && parks[n].lease == first.lease && parks[n].reason == first.reason {
			n++
		}
		own := parks[:n]
		p := Park{Lease: first.lease, Reason: first.reason, Attempts: first.rec.attempts, Holds: first.holds}
		for _, k := range own {
			p.Seqs = append(p.Seqs, k.rec.msg.Seq)
		}
		ctx, cancel := r.storeCall(work)
		got, err := r.src.Settle(ctx, Settlement{Relay: r.id, Parks: []Park{p}})
		cancel()
		b.mu.Lock()
		switch {
		case err != nil:
			b.parks = append(slices.Clip(parks), b.parks...)
			b.mu.Unlock()
			return err
		case len(got.Fenced) > 0:
			b.parkedRefused(own)
		default:
			b.parkedDone(own)
		}
		r.drained(b.part(first.lease.Part))
		b.mu.Unlock()
		if len(got.Fenced) > 0 {
			r.renew.raise()
		} else if r.cfg.OnParked != nil {
			for _, k := range own {
				r.cfg.OnParked(k.rec.msg, k.reason)
			}
		}
		r.wake.raise()
		r.kick.raise()
		parks = parks[n:]
	}
	return nil
}

func (r *Relay) settleTries(work context.Context) error {
	b := r.board
	b.mu.Lock()
	var tries []Try
	var recs []*record
	for rec, text := range b.tries {
		if len(tries) == settleMost {
			break
		}
		tries = append(tries, Try{Lease: rec.lane.part.Lease, Seq: rec.msg.Seq, Attempts: rec.attempts, Error: text})
		recs = append(recs, rec)
		delete(b.tries, rec)
	}
	b.mu.Unlock()
	if len(tries) == 0 {
		return nil
	}
	ctx, cancel := r.storeCall(work)
	defer cancel()
	_, err := r.src.Settle(ctx, Settlement{Relay: r.id, Tries: tries}) // fenced ones are another relay's to count
	if err != nil {
		b.mu.Lock()
		for i, rec := range recs {
			if _, newer := b.tries[rec]; !newer {
				b.tries[rec] = tries[i].Error
			}
		}
		b.mu.Unlock()
	}
	return err
}

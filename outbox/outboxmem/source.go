package outboxmem

import (
	"context"
	"slices"
	"time"

	"github.com/backstay-go/backstay/outbox"
)

// Source returns the box as its relays see it.
func (b *Box) Source() outbox.Source { return source{b} }

type source struct{ *Box }

func (b source) Lease(ctx context.Context, r outbox.LeaseRequest) (outbox.Leases, error) {
	if err := ctx.Err(); err != nil {
		return outbox.Leases{}, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	for i := range b.leases {
		l := &b.leases[i]
		if l.owner == r.Relay && (r.Leave || slices.ContainsFunc(r.Release, func(rel outbox.Lease) bool { return rel.Part == i && rel.Epoch == l.epoch })) {
			l.owner, l.until = "", now
		}
	}
	if r.Leave {
		delete(b.relays, r.Relay)
		return outbox.Leases{Now: now}, nil
	}
	b.relays[r.Relay] = now.Add(r.TTL)
	var alive []string
	for id, until := range b.relays {
		if until.Before(now) {
			delete(b.relays, id)
			continue
		}
		alive = append(alive, id)
	}
	got := outbox.Leases{Relays: len(alive), Parts: len(b.leases), Share: outbox.Share(len(b.leases), alive, r.Relay), Now: now}
	mine := 0
	for i := range b.leases {
		if b.leases[i].owner == r.Relay {
			b.leases[i].until = now.Add(r.TTL)
			mine++
		}
	}
	for i := range b.leases {
		l := &b.leases[i]
		if l.owner != r.Relay && l.until.Before(now.Add(1)) && mine < got.Share && !released(r, i) {
			l.owner, l.until = r.Relay, now.Add(r.TTL)
			l.epoch++
			mine++
		}
		if l.owner == r.Relay {
			got.Held = append(got.Held, b.held(i, r.Held))
		} else if l.until.Before(now.Add(-2 * r.TTL)) {
			got.Orphans++
		}
	}
	return got, nil
}

func released(r outbox.LeaseRequest, part int) bool {
	return slices.ContainsFunc(r.Release, func(l outbox.Lease) bool { return l.Part == part })
}

// held describes a lease, with what its new owner has to know.
func (b source) held(part int, had []outbox.Lease) outbox.Held {
	l := b.leases[part]
	h := outbox.Held{Lease: outbox.Lease{Part: part, Epoch: l.epoch, Gen: l.gen}}
	if slices.Contains(had, h.Lease) {
		return h
	}
	for _, d := range b.dead {
		if d.Part == part && d.Holds && !slices.Contains(h.Parked, d.Key) {
			h.Parked = append(h.Parked, d.Key)
		}
	}
	h.Attempts = map[int64]int{}
	for seq, n := range b.tries {
		if _, ok := b.rows[part][seq]; ok {
			h.Attempts[seq] = n
		}
	}
	return h
}

func (b source) Read(ctx context.Context, spans []outbox.Span, limit int, rows []outbox.Row) ([]outbox.Row, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range spans {
		at, _ := slices.BinarySearch(b.order[s.Part], s.From)
		n := 0
		for _, seq := range b.order[s.Part][at:] {
			r, ok := b.rows[s.Part][seq]
			if !ok {
				continue
			}
			if n++; n > limit {
				break
			}
			rows = append(rows, outbox.Row{Message: *r.Message.Clone(), Part: s.Part})
		}
	}
	return rows, nil
}

func (b source) Settle(ctx context.Context, s outbox.Settlement) (outbox.Settled, error) {
	var got outbox.Settled
	if err := ctx.Err(); err != nil {
		return got, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, d := range s.Done {
		for _, seq := range d.Seqs {
			if b.remove(d.Part, seq) != nil {
				got.Deleted++
			}
		}
		b.sweep(d.Part)
	}
	fenced := func(l outbox.Lease) bool {
		have := b.leases[l.Part]
		if have.owner == s.Relay && have.epoch == l.Epoch && have.gen == l.Gen && time.Now().Before(have.until) {
			return false
		}
		if !slices.Contains(got.Fenced, l.Part) {
			got.Fenced = append(got.Fenced, l.Part)
		}
		return true
	}
	for _, t := range s.Tries {
		if _, ok := b.rows[t.Lease.Part][t.Seq]; ok && !fenced(t.Lease) {
			b.tries[t.Seq] = t.Attempts
		}
	}
	for _, p := range s.Parks {
		if fenced(p.Lease) {
			continue
		}
		for _, seq := range p.Seqs {
			if r := b.remove(p.Lease.Part, seq); r != nil {
				b.dead[seq] = &outbox.DeadLetter{
					Message: r.Message, Part: r.Part, Reason: p.Reason, Attempts: p.Attempts, Holds: p.Holds, Parked: time.Now(),
				}
			}
		}
	}
	return got, nil
}

func (b *Box) remove(part int, seq int64) *row {
	r := b.rows[part][seq]
	delete(b.rows[part], seq)
	delete(b.tries, seq)
	return r
}

// sweep drops the numbers of deleted rows when they are the most.
func (b *Box) sweep(part int) {
	if len(b.order[part]) > 2*len(b.rows[part])+64 {
		b.order[part] = slices.DeleteFunc(b.order[part], func(seq int64) bool {
			_, ok := b.rows[part][seq]
			return !ok
		})
	}
}

func (b source) Tend(ctx context.Context, limit int, keep time.Duration) (outbox.Tended, error) {
	got := outbox.Tended{Next: -1}
	if err := ctx.Err(); err != nil {
		return got, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	slices.SortStableFunc(b.scheduled, func(x, y *row) int { return x.due.Compare(y.due) })
	for len(b.scheduled) > 0 && got.Due < limit && !b.scheduled[0].due.After(now) {
		r := b.scheduled[0]
		b.scheduled = b.scheduled[1:]
		b.seq++
		r.Seq = b.seq
		b.insert(r)
		got.Due++
	}
	if len(b.scheduled) > 0 {
		got.Next = max(b.scheduled[0].due.Sub(now), 0)
	}
	if keep > 0 {
		for seq, d := range b.dead {
			if d.Parked.Before(now.Add(-keep)) {
				delete(b.dead, seq)
				b.leases[d.Part].gen++
				got.Purged++
			}
		}
	}
	return got, nil
}

// OldestWriter implements [outbox.WriterWatcher].
func (b source) OldestWriter(ctx context.Context) (age time.Duration, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, since := range b.open {
		age = max(age, time.Since(since))
	}
	return age, ctx.Err()
}

// Gauges implements [outbox.Gauger].
func (b source) Gauges(ctx context.Context) (outbox.Gauges, error) {
	if err := ctx.Err(); err != nil {
		return outbox.Gauges{}, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	g := outbox.Gauges{Scheduled: int64(len(b.scheduled)), Dead: int64(len(b.dead)), DeadTuples: -1}
	now := time.Now()
	for part, rows := range b.rows {
		g.Waiting += int64(len(rows))
		for _, seq := range b.order[part] {
			if r, ok := rows[seq]; ok {
				g.Oldest = max(g.Oldest, now.Sub(r.Created))
				break
			}
		}
	}
	return g, nil
}

// Listen implements [outbox.Listener].
func (b source) Listen(ctx context.Context, ready func(), hint func(committed bool)) error {
	b.mu.Lock()
	b.hints[&hint] = struct{}{}
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		delete(b.hints, &hint)
		b.mu.Unlock()
	}()
	ready()
	<-ctx.Done()
	return ctx.Err()
}

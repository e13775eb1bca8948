package outboxsql

import (
	"context"
	"database/sql"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/backstay-go/backstay/internal/sqldialect"
	"github.com/backstay-go/backstay/outbox"
)

// Lease implements [outbox.Source].
func (s *Source) Lease(ctx context.Context, r outbox.LeaseRequest) (got outbox.Leases, err error) {
	err = sqldialect.InTx(ctx, s.db, s.box.d, func(tx *sql.Tx) error {
		l := leasing{Source: s, ctx: ctx, tx: tx, r: r, ttl: r.TTL.Microseconds()}
		got, err = l.run()
		return err
	})
	return got, err
}

// leasing is one call of Lease.
type leasing struct {
	*Source
	ctx context.Context // of the one call
	tx  *sql.Tx
	r   outbox.LeaseRequest
	ttl int64
}

func (l *leasing) exec(query string, args ...any) error {
	_, err := l.tx.ExecContext(l.ctx, l.box.d.Rebind(query), args...)
	return err
}

func (l *leasing) run() (outbox.Leases, error) {
	t := &l.box.t
	var got outbox.Leases
	if l.r.Leave {
		if err := l.exec("DELETE FROM "+t.relay+" WHERE id = ?", l.r.Relay); err != nil {
			return got, err
		}
		return got, l.exec("UPDATE "+t.lease+" SET owner = '', until_at = "+t.now+" WHERE owner = ?", l.r.Relay)
	}
	conflict := " ON CONFLICT (id) DO UPDATE SET until_at = excluded.until_at"
	if l.box.d == MySQL {
		conflict = " ON DUPLICATE KEY UPDATE until_at = VALUES(until_at)"
	}
	// The first statement writes, as SQLite needs it.
	if err := l.exec("INSERT INTO "+t.relay+" (id, until_at) VALUES (?, "+t.now+" + ?)"+conflict, l.r.Relay, l.ttl); err != nil {
		return got, err
	}
	if len(l.r.Release) > 0 {
		release := make([]int64, len(l.r.Release))
		for i, p := range l.r.Release {
			release[i] = int64(p)
		}
		if err := l.exec("UPDATE "+t.lease+" SET owner = '', until_at = "+t.now+" WHERE owner = ? AND part IN ("+ints(release)+")", l.r.Relay); err != nil {
			return got, err
		}
	}
	if err := l.exec("UPDATE "+t.lease+" SET until_at = "+t.now+" + ? WHERE owner = ?", l.ttl, l.r.Relay); err != nil {
		return got, err
	}
	now, err := l.members(&got)
	if err != nil {
		return got, err
	}
	free, err := l.table(&got, now)
	if err != nil {
		return got, err
	}
	if want := got.Share - len(got.Held); want > 0 && len(free) > 0 {
		// Two that look at the same time had better not take the same.
		rand.Shuffle(len(free), func(i, j int) { free[i], free[j] = free[j], free[i] })
		free = free[:min(want, len(free))]
		slices.Sort(free)
		if err := l.exec("UPDATE "+t.lease+" SET owner = ?, epoch = epoch + 1, until_at = "+t.now+" + ? WHERE until_at <= "+t.now+" AND part IN ("+ints(free)+")",
			l.r.Relay, l.ttl); err != nil {
			return got, err
		}
		if _, err := l.table(&got, now); err != nil {
			return got, err
		}
	}
	return got, l.load(got.Held)
}

// members fills in who is alive and returns the database's clock.
func (l *leasing) members(got *outbox.Leases) (now int64, err error) {
	rows, err := l.tx.QueryContext(l.ctx, "SELECT id, until_at, "+l.box.t.now+" FROM "+l.box.t.relay)
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	var alive, gone []string
	for rows.Next() {
		var id string
		var until int64
		if err := rows.Scan(&id, &until, &now); err != nil {
			return 0, err
		}
		switch {
		case until >= now:
			alive = append(alive, id)
		case until < now-10*l.ttl:
			gone = append(gone, id)
		}
	}
	if err := rows.Err(); err != nil {
		return 0, err
	}
	rows.Close()
	for _, id := range gone {
		if err := l.exec("DELETE FROM "+l.box.t.relay+" WHERE id = ? AND until_at < ?", id, now-10*l.ttl); err != nil {
			return 0, err
		}
	}
	n := int(l.box.parts.Load())
	if n == 0 {
		if n, err = l.box.stored(l.ctx, l.tx); err != nil {
			return 0, err
		}
	}
	got.Parts, got.Relays, got.Now = n, len(alive), time.UnixMicro(now)
	if !slices.Contains(alive, l.r.Relay) { // slower than its own term
		alive = append(alive, l.r.Relay)
	}
	got.Share = outbox.Share(n, alive, l.r.Relay)
	return now, nil
}

// table fills in what is held, and returns what is free.
func (l *leasing) table(got *outbox.Leases, now int64) (free []int64, err error) {
	rows, err := l.tx.QueryContext(l.ctx, "SELECT part, owner, epoch, gen, until_at FROM "+l.box.t.lease+" ORDER BY part")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	got.Held, got.Orphans = nil, 0
	for rows.Next() {
		var h outbox.Held
		var owner string
		var until int64
		if err := rows.Scan(&h.Part, &owner, &h.Epoch, &h.Gen, &until); err != nil {
			return nil, err
		}
		switch {
		case owner == l.r.Relay:
			got.Held = append(got.Held, h)
		case until <= now && !slices.Contains(l.r.Release, h.Part):
			free = append(free, int64(h.Part))
		}
		if owner != l.r.Relay && until > 0 && until < now-2*l.ttl {
			got.Orphans++
		}
	}
	return free, rows.Err()
}

// load fills in what a new owner, or one after a replay, has to know.
func (l *leasing) load(held []outbox.Held) error {
	at := map[int]*outbox.Held{}
	var parts []int64
	for i := range held {
		if h := &held[i]; !slices.Contains(l.r.Held, h.Lease) {
			h.Attempts = map[int64]int{}
			at[h.Part] = h
			parts = append(parts, int64(h.Part))
		}
	}
	if len(parts) == 0 {
		return nil
	}
	rows, err := l.tx.QueryContext(l.ctx, "SELECT DISTINCT part, msg_key FROM "+l.box.t.dead+" WHERE holds AND part IN ("+ints(parts)+")")
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var part int
		var key string
		if err := rows.Scan(&part, &key); err != nil {
			return err
		}
		at[part].Parked = append(at[part].Parked, key)
	}
	if err := rows.Err(); err != nil {
		return err
	}
	rows.Close()
	tries, err := l.tx.QueryContext(l.ctx, "SELECT part, id, attempts FROM "+l.box.t.retry+" WHERE part IN ("+ints(parts)+")")
	if err != nil {
		return err
	}
	defer tries.Close()
	for tries.Next() {
		var part, n int
		var id int64
		if err := tries.Scan(&part, &id, &n); err != nil {
			return err
		}
		at[part].Attempts[id] = n
	}
	return tries.Err()
}

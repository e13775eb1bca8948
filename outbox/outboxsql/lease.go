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

// Lease implements [outbox.Source]. On PostgreSQL and MySQL it is single statements, none of which waits for another's transaction and none of which is inside
// one: a client that dies or is cut off between two of them leaves no lock behind, which its server would keep for as long as it takes the connection
// for alive. Each of them may be the last; what it has done stands, and the next call finds it. SQLite's lock is of the whole file, so there it is one
// transaction.
func (s *Source) Lease(ctx context.Context, r outbox.LeaseRequest) (got outbox.Leases, err error) {
	l := leasing{Source: s, ctx: ctx, q: s.db, r: r, ttl: r.TTL.Microseconds()}
	if s.box.d == SQLite {
		err = sqldialect.InTx(ctx, s.db, s.box.d, func(tx *sql.Tx) error {
			l.q = tx
			got, err = l.run()
			return err
		})
		return got, err
	}
	err = s.retry(ctx, func() error {
		got, err = l.run()
		return err
	})
	return got, err
}

// leasing is one call of Lease.
type leasing struct {
	*Source
	ctx context.Context // of the one call
	q   Tx
	r   outbox.LeaseRequest
	ttl int64

	until int64 // of the relay itself: a term from this call's begin at the least
}

func (l *leasing) exec(query string, args ...any) error {
	_, err := l.q.ExecContext(l.ctx, l.box.d.Rebind(query), args...)
	return err
}

func (l *leasing) run() (outbox.Leases, error) {
	l.until = 0
	t := &l.box.t
	var got outbox.Leases
	if l.r.Leave {
		if err := l.exec("DELETE FROM "+t.relay+" WHERE id = ?", l.r.Relay); err != nil {
			return got, err
		}
		own, err := l.own()
		if err != nil {
			return got, err
		}
		if len(own) == 0 {
			return got, nil
		}
		return got, l.update(own, "owner = '', until_at = "+t.now, "owner = ?", l.r.Relay)
	}
	free, err := l.look(&got)
	if err != nil {
		return got, err
	}
	if want := got.Share - len(got.Held); want > 0 && len(free) > 0 {
		// Two that look at the same time had better not take the same.
		rand.Shuffle(len(free), func(i, j int) { free[i], free[j] = free[j], free[i] })
		if err := l.claim(&got, free, want); err != nil {
			return got, err
		}
	}
	return got, l.load(got.Held)
}

// look renews, and fills in what is held and who is alive. It returns what is free.
func (l *leasing) look(got *outbox.Leases) (free []int64, err error) {
	if l.box.d == Postgres {
		return l.lookPostgres(got)
	}
	if err := l.renew(); err != nil {
		return nil, err
	}
	now, err := l.members(got)
	if err != nil {
		return nil, err
	}
	return l.table(got, now)
}

// renew notes that the relay is alive, gives back what is to be given back, and renews the rest. A statement of an earlier call that is carried out only
// now must not undo it: times only grow, and what is given back is named with its epoch.
func (l *leasing) renew() error {
	t := &l.box.t
	largest, conflict := "max", " ON CONFLICT (id) DO UPDATE SET until_at = max(until_at, excluded.until_at)"
	if l.box.d == MySQL {
		largest, conflict = "greatest", " ON DUPLICATE KEY UPDATE until_at = greatest(until_at, VALUES(until_at))"
	}
	// The first statement writes, as SQLite needs it.
	if err := l.exec("INSERT INTO "+t.relay+" (id, until_at) VALUES (?, "+t.now+" + ?)"+conflict, l.r.Relay, l.ttl); err != nil {
		return err
	}
	for _, r := range l.r.Release {
		if err := l.exec("UPDATE "+t.lease+" SET owner = '', until_at = "+t.now+" WHERE owner = ? AND part = ? AND epoch = ?", l.r.Relay, r.Part, r.Epoch); err != nil {
			return err
		}
	}
	own, err := l.own()
	if err != nil || len(own) == 0 {
		return err
	}
	return l.update(own, "until_at = "+largest+"(until_at, "+t.now+" + ?)", "owner = ?", l.ttl, l.r.Relay)
}

// update changes rows of these partitions, and looks at no others, which may be locked.
func (l *leasing) update(parts []int64, set, where string, args ...any) error {
	if l.box.d == MySQL {
		return l.exec("UPDATE "+listed(parts)+l.box.t.lease+" l FORCE INDEX (PRIMARY) ON l.part = d.n SET "+set+" WHERE "+where, args...)
	}
	return l.exec("UPDATE "+l.box.t.lease+" SET "+set+" WHERE "+where+" AND part IN ("+ints(parts)+")", args...)
}

// own returns the partitions of the relay. What is done to them then names them, so that InnoDB locks their rows and no others.
func (l *leasing) own() ([]int64, error) {
	return numbers(l.ctx, l.q, l.box.d.Rebind("SELECT part FROM "+l.box.t.lease+" WHERE owner = ? ORDER BY part"), l.r.Relay)
}

// claim takes up to want of the partitions, in the order given, that are still free. One whose row is locked is passed over: somebody is taking it, or a
// transaction that writes dead letters under the old lease has not ended, whose relay may be dead.
func (l *leasing) claim(got *outbox.Leases, free []int64, want int) error {
	t := &l.box.t
	switch l.box.d {
	case Postgres:
		return l.claimPostgres(got, free, want)
	case MySQL:
		unlocked, err := numbers(l.ctx, l.q, "SELECT part FROM "+t.lease+" WHERE until_at <= "+t.now+" AND part IN ("+ints(free)+") FOR UPDATE SKIP LOCKED")
		if err != nil {
			return err
		}
		free = slices.DeleteFunc(free, func(part int64) bool { return !slices.Contains(unlocked, part) })
	}
	if free = free[:min(want, len(free))]; len(free) == 0 {
		return nil
	}
	slices.Sort(free)
	if err := l.update(free, "owner = ?, epoch = epoch + 1, until_at = "+t.now+" + ?", "until_at <= "+t.now, l.r.Relay, l.ttl); err != nil {
		return err
	}
	_, err := l.table(got, got.Now.UnixMicro())
	return err
}

// members fills in who is alive and returns the database's clock.
func (l *leasing) members(got *outbox.Leases) (now int64, err error) {
	rows, err := l.q.QueryContext(l.ctx, "SELECT id, until_at, "+l.box.t.now+" FROM "+l.box.t.relay)
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	all := map[string]int64{}
	for rows.Next() {
		var id string
		var until int64
		if err := rows.Scan(&id, &until, &now); err != nil {
			return 0, err
		}
		all[id] = until
	}
	if err := rows.Err(); err != nil {
		return 0, err
	}
	rows.Close()
	l.until = all[l.r.Relay]
	return now, l.count(got, all, now)
}

// count fills in what follows from the relays' terms, and forgets those that have long been gone.
func (l *leasing) count(got *outbox.Leases, all map[string]int64, now int64) (err error) {
	alive := []string{l.r.Relay} // even if slower than its own term
	for id, until := range all {
		switch {
		case id == l.r.Relay:
		case until >= now:
			alive = append(alive, id)
		case until < now-10*l.ttl:
			if err := l.exec("DELETE FROM "+l.box.t.relay+" WHERE id = ? AND until_at < ?", id, now-10*l.ttl); err != nil {
				return err
			}
		}
	}
	n := int(l.box.parts.Load())
	if n == 0 {
		if n, err = l.box.stored(l.ctx, l.q); err != nil {
			return err
		}
	}
	got.Parts, got.Relays, got.Now = n, len(alive), time.UnixMicro(now)
	got.Share = outbox.Share(n, alive, l.r.Relay)
	return nil
}

// table fills in what is held, and returns what is free.
func (l *leasing) table(got *outbox.Leases, now int64) (free []int64, err error) {
	rows, err := l.q.QueryContext(l.ctx, "SELECT part, owner, epoch, gen, until_at FROM "+l.box.t.lease+" ORDER BY part")
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
			// One that a call given up earlier has claimed just now may end before the others: it is held from the next renewal on.
			if until >= l.until {
				got.Held = append(got.Held, h)
			}
		default:
			free = l.other(got, free, h.Part, until, now)
		}
	}
	return free, rows.Err()
}

// other takes in a partition that is not this relay's.
func (l *leasing) other(got *outbox.Leases, free []int64, part int, until, now int64) []int64 {
	if until > 0 && until < now-2*l.ttl {
		got.Orphans++
	}
	if until <= now && !slices.ContainsFunc(l.r.Release, func(r outbox.Lease) bool { return r.Part == part }) {
		free = append(free, int64(part))
	}
	return free
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
	in, args := " IN ("+ints(parts)+")", []any(nil)
	if l.box.d == Postgres { // the same text each time, which drivers keep prepared
		in, args = " = ANY ($1::text::smallint[])", []any{intArray(parts)}
	}
	rows, err := l.q.QueryContext(l.ctx, "SELECT DISTINCT part, msg_key FROM "+l.box.t.dead+" WHERE holds AND part"+in, args...)
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
	tries, err := l.q.QueryContext(l.ctx, "SELECT part, id, attempts FROM "+l.box.t.retry+" WHERE part"+in, args...)
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

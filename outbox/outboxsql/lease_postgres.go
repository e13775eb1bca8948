package outboxsql

import (
	"github.com/backstay-go/backstay/outbox"
)

// lookPostgres is look in one statement: a renewal is one round trip, so that a slow database or network has little to delay. Its parts
// see the tables as they were before it, so what it renews and whom it notes come from what they return.
func (l *leasing) lookPostgres(got *outbox.Leases) (free []int64, err error) {
	t := &l.box.t
	parts, epochs := make([]int64, len(l.r.Release)), make([]int64, len(l.r.Release))
	for i, r := range l.r.Release {
		parts[i], epochs[i] = int64(r.Part), r.Epoch
	}
	const back = "unnest($3::text::smallint[], $4::text::bigint[]) AS b (part, epoch)"
	rows, err := l.q.QueryContext(l.ctx, "WITH me AS (INSERT INTO "+t.relay+" AS r (id, until_at) VALUES ($1, "+t.now+" + $2::bigint)"+
		" ON CONFLICT (id) DO UPDATE SET until_at = greatest(r.until_at, excluded.until_at)),"+
		" back AS (UPDATE "+t.lease+" l SET owner = '', until_at = "+t.now+" FROM "+back+" WHERE l.owner = $1 AND l.part = b.part AND l.epoch = b.epoch),"+
		" renewed AS (UPDATE "+t.lease+" l SET until_at = greatest(until_at, "+t.now+" + $2::bigint) WHERE owner = $1"+
		" AND NOT EXISTS (SELECT FROM "+back+" WHERE l.part = b.part AND l.epoch = b.epoch) RETURNING part, epoch, gen, until_at)"+
		" SELECT 'held' AS kind, '' AS id, part, epoch, gen, until_at, "+t.now+" FROM renewed"+
		" UNION ALL SELECT 'other', '', part, epoch, gen, until_at, "+t.now+" FROM "+t.lease+" WHERE owner <> $1"+
		" UNION ALL SELECT 'relay', id, 0, 0, 0, until_at, "+t.now+" FROM "+t.relay+
		" UNION ALL SELECT 'now', '', 0, 0, 0, 0, "+t.now+" ORDER BY kind, part", l.r.Relay, l.ttl, intArray(parts), intArray(epochs))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	all := map[string]int64{}
	var now int64
	for rows.Next() {
		var kind, id string
		var h outbox.Held
		var until int64
		if err := rows.Scan(&kind, &id, &h.Part, &h.Epoch, &h.Gen, &until, &now); err != nil {
			return nil, err
		}
		switch kind {
		case "held":
			got.Held = append(got.Held, h)
		case "other":
			free = l.other(got, free, h.Part, until, now)
		case "relay":
			all[id] = until
		}
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	rows.Close()
	return free, l.count(got, all, now)
}

// claimPostgres is claim in one statement: the lock that excludes the writers of dead letters, which hold theirs weakly so that renewals do not
// wait for it, must stand until the epoch is raised.
func (l *leasing) claimPostgres(got *outbox.Leases, free []int64, want int) error {
	t := &l.box.t
	rows, err := l.q.QueryContext(l.ctx, "UPDATE "+t.lease+" SET owner = $1, epoch = epoch + 1, until_at = "+t.now+" + $2::bigint WHERE until_at <= "+t.now+
		" AND part = ANY (ARRAY (SELECT part FROM "+t.lease+" WHERE until_at <= "+t.now+" AND part = ANY ($3::text::smallint[]) ORDER BY random() LIMIT $4 FOR UPDATE SKIP LOCKED))"+
		" RETURNING part, epoch, gen", l.r.Relay, l.ttl, intArray(free), want)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var h outbox.Held
		if err := rows.Scan(&h.Part, &h.Epoch, &h.Gen); err != nil {
			return err
		}
		got.Held = append(got.Held, h)
	}
	return rows.Err()
}

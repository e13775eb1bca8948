package outboxsql

import (
	"context"
	"database/sql"
	"strconv"
	"time"

	"github.com/backstay-go/backstay/internal/sqldialect"
	"github.com/backstay-go/backstay/outbox"
)

// gaugeExact is how far rows are counted: ten thousand entries of an index, some milliseconds. What is more than that is a backlog
// whatever its exact size.
const gaugeExact = 10_000

// planner holds PostgreSQL's planner to the indexes for the rest of the transaction. Without statistics of a table, which a young or an empty one has
// not, it prefers to fetch everything and sort it.
const planner = "SELECT set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true), set_config('enable_sort', 'off', true)"

// Gauges returns how full the outbox is: exact up to 10,000, above it the database's own estimate (on SQLite the span of the numbers).
// It reads at most that many rows of each table, by an index, and takes no locks.
func (b *Box) Gauges(ctx context.Context, db *sql.DB) (outbox.Gauges, error) {
	var g outbox.Gauges
	err := sqldialect.InTx(ctx, db, b.d, func(tx *sql.Tx) (err error) {
		g, err = b.gauges(ctx, tx)
		return err
	})
	return g, err
}

// Gauges implements [outbox.Gauger].
func (s *Source) Gauges(ctx context.Context) (outbox.Gauges, error) { return s.box.Gauges(ctx, s.db) }

func (b *Box) gauges(ctx context.Context, tx *sql.Tx) (outbox.Gauges, error) {
	t := &b.t
	if b.d == Postgres {
		// Through the index: the table itself may be mostly empty pages.
		if _, err := tx.ExecContext(ctx, planner); err != nil {
			return outbox.Gauges{}, err
		}
	}
	counted := func(table, order string) string {
		return "(SELECT count(*) FROM (SELECT 1 AS one FROM " + table + " ORDER BY " + order + " LIMIT " + strconv.Itoa(gaugeExact+1) + ") AS counted)"
	}
	g := outbox.Gauges{DeadTuples: -1}
	var oldest sql.NullInt64
	var now int64
	err := tx.QueryRowContext(ctx, "SELECT "+counted(t.outbox, "part, id")+", "+counted(t.scheduled, "due, id")+", "+counted(t.dead, "id")+
		", (SELECT min(first_of.created_at) FROM (SELECT (SELECT o.created_at FROM "+t.outbox+" o WHERE o.part = l.part ORDER BY o.id LIMIT 1) AS created_at"+
		" FROM "+t.lease+" l) AS first_of), "+t.now).Scan(&g.Waiting, &g.Scheduled, &g.Dead, &oldest, &now)
	if err != nil {
		return g, err
	}
	if oldest.Valid {
		g.Oldest = max(time.Duration(now-oldest.Int64)*time.Microsecond, 0)
	}
	if b.d == Postgres {
		if err := tx.QueryRowContext(ctx, "SELECT pg_stat_get_dead_tuples($1::text::regclass)", t.outbox).Scan(&g.DeadTuples); err != nil {
			return g, err
		}
	}
	for _, n := range [...]struct {
		count *int64
		name  string
		table string
	}{{&g.Waiting, b.cfg.Table, t.outbox}, {&g.Scheduled, b.cfg.Table + "_scheduled", t.scheduled}, {&g.Dead, b.cfg.Table + "_dead", t.dead}} {
		if *n.count <= gaugeExact {
			continue
		}
		estimate, err := b.estimate(ctx, tx, n.name, n.table)
		if err != nil {
			return g, err
		}
		*n.count = max(*n.count, estimate)
	}
	return g, nil
}

// estimate is the number of rows of a table as the database holds it, without looking at them.
func (b *Box) estimate(ctx context.Context, tx *sql.Tx, name, quoted string) (int64, error) {
	var n sql.NullInt64
	var err error
	switch b.d {
	case Postgres:
		err = tx.QueryRowContext(ctx, "SELECT pg_stat_get_live_tuples($1::text::regclass)", quoted).Scan(&n)
	case MySQL:
		schema, table := split(name)
		err = tx.QueryRowContext(ctx, "SELECT max(table_rows) FROM information_schema.tables WHERE table_schema = coalesce(nullif(?, ''), database()) AND table_name = ?",
			schema, table).Scan(&n)
	default:
		err = tx.QueryRowContext(ctx, "SELECT (SELECT max(id) FROM "+quoted+") - (SELECT min(id) FROM "+quoted+") + 1").Scan(&n)
	}
	return n.Int64, err
}

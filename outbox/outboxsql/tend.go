package outboxsql

import (
	"context"
	"database/sql"
	"strconv"
	"time"

	"github.com/backstay-go/backstay/internal/sqldialect"
	"github.com/backstay-go/backstay/outbox"
)

// Tend implements [outbox.Source]. A scheduled message is moved by whoever locks it first, and in the order of due times: others wait,
// so that a key's order is that of its times.
func (s *Source) Tend(ctx context.Context, limit int, keep time.Duration) (outbox.Tended, error) {
	got := outbox.Tended{Next: -1}
	if keep > 0 {
		if err := s.purge(ctx, keep, &got); err != nil {
			return got, err
		}
	}
	t := &s.box.t
	var next, now sql.NullInt64
	if err := s.db.QueryRowContext(ctx, "SELECT min(due), "+t.now+" FROM "+t.scheduled).Scan(&next, &now); err != nil || !next.Valid {
		return got, err
	}
	if next.Int64 > now.Int64 {
		got.Next = time.Duration(next.Int64-now.Int64) * time.Microsecond
		return got, nil
	}
	err := sqldialect.InTx(ctx, s.db, s.box.d, func(tx *sql.Tx) error {
		got.Due = 0
		if err := s.box.mortal(ctx, tx); err != nil {
			return err
		}
		ids, err := s.due(ctx, tx, now.Int64, limit)
		if err != nil || len(ids) == 0 {
			return err
		}
		// The condition on due lets the primary key be used.
		and := " AND due <= " + strconv.FormatInt(now.Int64, 10)
		if _, err := tx.ExecContext(ctx, t.into()+" SELECT part, msg_id, topic, msg_key, content_type, headers, payload, "+t.now+", expires_at FROM "+t.scheduled+
			" WHERE id IN ("+ints(ids)+")"+and+" ORDER BY due, id"); err != nil {
			return err
		}
		got.Due = len(ids)
		_, err = tx.ExecContext(ctx, s.box.deletion(t.scheduled, "id", ids, and))
		return err
	})
	return got, err
}

// due locks messages that have come due and returns their numbers.
func (s *Source) due(ctx context.Context, tx *sql.Tx, now int64, limit int) ([]int64, error) {
	t := &s.box.t
	lock := ""
	switch s.box.d {
	case Postgres:
		lock = " FOR UPDATE"
	case SQLite:
		if _, err := tx.ExecContext(ctx, "DELETE FROM "+t.meta+" WHERE name = ''"); err != nil { // the lock to write, first
			return nil, err
		}
	}
	ids, err := numbers(ctx, tx, s.box.d.Rebind("SELECT id FROM "+t.scheduled+" WHERE due <= ? ORDER BY due, id LIMIT ?"+lock), now, limit)
	if err != nil || len(ids) == 0 || s.box.d != MySQL {
		return ids, err
	}
	// Found first and then locked one by one: a range that locks waits for what open transactions have put into it.
	return numbers(ctx, tx, "SELECT o.id FROM "+listed(ids)+t.scheduled+" o FORCE INDEX (id) ON o.id = d.n FOR UPDATE")
}

// purge deletes old dead letters, in chunks, and attempts of messages that are gone.
func (s *Source) purge(ctx context.Context, keep time.Duration, got *outbox.Tended) error {
	t := &s.box.t
	var now int64
	if err := s.db.QueryRowContext(ctx, "SELECT "+t.now).Scan(&now); err != nil {
		return err
	}
	n, err := s.box.takeDead(ctx, s.db, "parked_at < ?", []any{now - keep.Microseconds()}, false)
	got.Purged = n
	if err != nil {
		return err
	}
	_, err = s.db.ExecContext(ctx, "DELETE FROM "+t.retry+" WHERE NOT EXISTS (SELECT 1 FROM "+t.outbox+" o WHERE o.part = "+t.retry+".part AND o.id = "+t.retry+".id)")
	return err
}

package outboxsql

import (
	"context"
	"database/sql"
	"slices"
	"strconv"
	"strings"

	"github.com/backstay-go/backstay/internal/sqldialect"
	"github.com/backstay-go/backstay/outbox"
)

// DeadLetters lists the dead letters that f selects, the oldest first. Payloads are as they were stored, sealed if they were.
func (b *Box) DeadLetters(ctx context.Context, db *sql.DB, f outbox.DeadFilter) ([]outbox.DeadLetter, error) {
	where, args := condition(f)
	query := "SELECT part, " + columns + ", reason, attempts, holds, parked_at FROM " + b.t.dead + " WHERE " + where + " ORDER BY id"
	if f.Limit > 0 {
		query += " LIMIT " + strconv.Itoa(f.Limit)
	}
	rows, err := db.QueryContext(ctx, b.d.Rebind(query), args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []outbox.DeadLetter
	for rows.Next() {
		var d outbox.DeadLetter
		var headers string
		var created, expires, parked int64
		if err := rows.Scan(&d.Part, &d.Seq, &d.ID, &d.Topic, &d.Key, &d.ContentType, &headers, &d.Payload, &created, &expires,
			&d.Reason, &d.Attempts, &d.Holds, &parked); err != nil {
			return nil, err
		}
		d.Headers = outbox.DecodeHeaders(headers)
		d.Created, d.ExpiresAt, d.Parked = instant(created), instant(expires), instant(parked)
		out = append(out, d)
	}
	return out, rows.Err()
}

// Replay puts the dead letters that f selects back into the flow and returns how many. One that holds its key back takes all of its key with it, so that the
// key's order is kept. They are published when their relay next renews its leases, within a third of a lease.
func (b *Box) Replay(ctx context.Context, db *sql.DB, f outbox.DeadFilter) (int, error) {
	where, args := condition(f)
	return b.takeDead(ctx, db, where, args, true)
}

// Discard deletes the dead letters that f selects, and returns how many. A key flows again when none that holds it is left.
func (b *Box) Discard(ctx context.Context, db *sql.DB, f outbox.DeadFilter) (int, error) {
	where, args := condition(f)
	return b.takeDead(ctx, db, where, args, false)
}

func condition(f outbox.DeadFilter) (where string, args []any) {
	terms := []string{"id >= ?"}
	args = []any{f.From}
	term := func(column string, value any, set bool) {
		if set {
			terms, args = append(terms, column+" ?"), append(args, value)
		}
	}
	term("id <=", f.To, f.To != 0)
	term("msg_id =", f.ID, f.ID != "")
	term("topic =", f.Topic, f.Topic != "")
	term("msg_key =", f.Key, f.Key != "")
	return strings.Join(terms, " AND "), args
}

// takeDead moves dead letters back or deletes them, a transaction for each partition and chunk. It locks the partition's lease and raises its
// generation, so that a relay that still holds the key back is refused, looks again, and reads the partition from the beginning before it publishes
// anything of it: messages that come back have their old numbers.
func (b *Box) takeDead(ctx context.Context, db *sql.DB, where string, args []any, back bool) (int, error) {
	parts, err := numbers(ctx, db, b.d.Rebind("SELECT DISTINCT part FROM "+b.t.dead+" WHERE "+where+" ORDER BY part"), args...)
	if err != nil {
		return 0, err
	}
	total := 0
	for _, part := range parts {
		n := 0
		err := sqldialect.InTx(ctx, db, b.d, func(tx *sql.Tx) error {
			n = 0
			if err := b.mortal(ctx, tx); err != nil {
				return err
			}
			if b.d == Postgres { // against stands, whose lock an update alone does not wait for
				if _, err := tx.ExecContext(ctx, "SELECT part FROM "+b.t.lease+" WHERE part = "+strconv.FormatInt(part, 10)+" FOR UPDATE"); err != nil {
					return err
				}
			}
			if _, err := tx.ExecContext(ctx, b.d.Rebind("UPDATE "+b.t.lease+" SET gen = gen + 1 WHERE part = ?"), part); err != nil {
				return err
			}
			ids, err := b.select1(ctx, tx, part, where, args, back)
			if err != nil {
				return err
			}
			for some := range slices.Chunk(ids, chunk) {
				if err := b.move(ctx, tx, some, back); err != nil {
					return err
				}
			}
			n = len(ids)
			return nil
		})
		if err != nil {
			return total, err
		}
		total += n
	}
	if back && total > 0 {
		b.Wake()
	}
	return total, nil
}

// select1 returns the numbers selected in one partition, whole keys where they hold.
func (b *Box) select1(ctx context.Context, tx *sql.Tx, part int64, where string, args []any, back bool) ([]int64, error) {
	in := " FROM " + b.t.dead + " WHERE part = " + strconv.FormatInt(part, 10)
	query := "SELECT id" + in + " AND " + where
	if back {
		query = "SELECT id" + in + " AND (" + where + " OR holds AND msg_key IN (SELECT msg_key" + in + " AND holds AND " + where + "))"
		args = append(slices.Clone(args), args...)
	}
	return numbers(ctx, tx, b.d.Rebind(query+" ORDER BY id"), args...)
}

func (b *Box) move(ctx context.Context, tx *sql.Tx, ids []int64, back bool) error {
	if back {
		override := ""
		if b.d == Postgres {
			override = " OVERRIDING SYSTEM VALUE"
		}
		if _, err := tx.ExecContext(ctx, "INSERT INTO "+b.t.outbox+" (part, "+columns+")"+override+" SELECT part, "+columns+" FROM "+b.t.dead+" WHERE id IN ("+ints(ids)+") ORDER BY id"); err != nil {
			return err
		}
	}
	_, err := tx.ExecContext(ctx, b.deletion(b.t.dead, "PRIMARY", ids, ""))
	return err
}

func numbers(ctx context.Context, q queryer, query string, args ...any) (ns []int64, err error) {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var n int64
		if err := rows.Scan(&n); err != nil {
			return nil, err
		}
		ns = append(ns, n)
	}
	return ns, rows.Err()
}

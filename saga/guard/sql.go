package guard

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/backstay-go/backstay/internal/sqldialect"
)

// A Dialect names the database behind a *sql.DB.
type Dialect = sqldialect.Dialect

const (
	Postgres = sqldialect.Postgres // PostgreSQL 13 and newer
	MySQL    = sqldialect.MySQL    // MySQL 8.0, MariaDB 10.6, and newer
	SQLite   = sqldialect.SQLite   // SQLite 3.42 and newer
)

// SQL returns the Log of a transaction that the caller has open and ends.
//
// The second of two transactions with the same key waits in its first
// statement until the first is over. In PostgreSQL the transaction should be
// READ COMMITTED, which is the default: in REPEATABLE READ the second fails
// with SQLSTATE 40001 and must be begun again. In SQLite the guarded call
// should be the first thing the transaction does, because a transaction that
// has only read cannot wait for the right to write.
func SQL(tx *sql.Tx, d Dialect) Log { return sqlLog{tx, d} }

type sqlLog struct {
	tx *sql.Tx
	d  Dialect
}

func (l sqlLog) Claim(ctx context.Context, r Row) (Row, bool, error) {
	insert := "INSERT INTO saga_guard (guard_key, op, by_op, epoch, done, at) VALUES (?, ?, ?, ?, 0, " + l.d.NowMicros() + ")"
	// Not INSERT IGNORE in MySQL: it turns other errors into warnings too.
	// There a duplicate leaves the transaction usable, in PostgreSQL it
	// would not.
	if l.d != MySQL {
		insert += " ON CONFLICT DO NOTHING"
	}
	res, err := l.tx.ExecContext(ctx, l.d.Rebind(insert), r.Key, string(r.Op), string(r.By), r.Epoch)
	switch {
	case err != nil && l.d == MySQL && sqldialect.Classify(err) == sqldialect.Duplicate:
	case err != nil:
		return Row{}, false, fmt.Errorf("guard: claim: %w", err)
	default:
		n, err := res.RowsAffected()
		if err != nil {
			return Row{}, false, fmt.Errorf("guard: claim: %w", err)
		}
		if n == 1 {
			return r, true, nil
		}
	}
	query := "SELECT by_op, epoch, done, result FROM saga_guard WHERE guard_key = ? AND op = ?"
	if l.d == MySQL {
		// A plain read could look at a snapshot from before the other's
		// commit; a locking one reads the newest row.
		query += " LOCK IN SHARE MODE"
	}
	var done int
	err = l.tx.QueryRowContext(ctx, l.d.Rebind(query), r.Key, string(r.Op)).Scan(&r.By, &r.Epoch, &done, &r.Result)
	if errors.Is(err, sql.ErrNoRows) {
		// Purged between the two statements, or invisible to a snapshot.
		return Row{}, false, fmt.Errorf("guard: claim of %q: the row is there and cannot be read: %w", r.Key, ErrRunning)
	}
	if err != nil {
		return Row{}, false, fmt.Errorf("guard: claim: %w", err)
	}
	r.Done = done != 0
	return r, false, nil
}

func (l sqlLog) Finish(ctx context.Context, key string, op Op, result []byte) error {
	_, err := l.tx.ExecContext(ctx, l.d.Rebind("UPDATE saga_guard SET done = 1, result = ? WHERE guard_key = ? AND op = ?"),
		result, key, string(op))
	if err != nil {
		return fmt.Errorf("guard: result: %w", err)
	}
	return nil
}

func (l sqlLog) Forget(ctx context.Context, key string, op Op) error {
	_, err := l.tx.ExecContext(ctx, l.d.Rebind("DELETE FROM saga_guard WHERE guard_key = ? AND op = ?"), key, string(op))
	return err
}

package guard

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"io/fs"
	"time"

	"github.com/backstay-go/backstay/internal/migrate"
	"github.com/backstay-go/backstay/internal/sqldialect"
)

//go:embed migrations
var files embed.FS

// Migrations returns the numbered SQL files of a dialect, for a migration tool
// of your own.
func Migrations(d Dialect) fs.FS {
	sub, err := fs.Sub(files, "migrations/"+d.String())
	if err != nil {
		panic(err) // the name is not a valid path, which no dialect's is
	}
	return sub
}

// Migrate creates or updates the table. It needs the right to do so; any
// number of processes may call it at once. It refuses a schema that is newer
// than this code and unfit for it.
func Migrate(ctx context.Context, db *sql.DB, d Dialect) error {
	_, err := set(d).Up(ctx, db)
	return err
}

// Check returns nil if the table is there in a version that this code can use.
func Check(ctx context.Context, db *sql.DB, d Dialect) error { return set(d).Check(ctx, db) }

func set(d Dialect) migrate.Set {
	return migrate.Set{Name: "saga_guard", Dialect: d, FS: Migrations(d)}
}

// Purge deletes rows that are older than age, at most limit of them, and
// returns how many. Call it until it returns less than limit.
//
// A row protects for as long as it exists: age must be longer than a late call
// can be under way, so longer than the longest saga may live, parked ones
// included. 30 days are a modest choice.
func Purge(ctx context.Context, db *sql.DB, d Dialect, age time.Duration, limit int) (int, error) {
	if age <= 0 || limit <= 0 {
		return 0, fmt.Errorf("guard: Purge: age %v, limit %d: want both above 0", age, limit)
	}
	stmt := "DELETE FROM saga_guard WHERE at < " + d.NowMicros() + " - ? ORDER BY at LIMIT ?"
	if d != MySQL {
		stmt = "DELETE FROM saga_guard WHERE (guard_key, op) IN (SELECT guard_key, op FROM saga_guard WHERE at < " +
			d.NowMicros() + " - ? ORDER BY at LIMIT ?)"
	}
	var n int64
	err := sqldialect.InTx(ctx, db, d, func(tx *sql.Tx) error {
		res, err := tx.ExecContext(ctx, d.Rebind(stmt), age.Microseconds(), limit)
		if err != nil {
			return err
		}
		n, err = res.RowsAffected()
		return err
	})
	return int(n), err
}

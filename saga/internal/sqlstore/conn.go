// Package sqlstore keeps sagas in tables. It holds what the stores over
// database/sql and over pgx have in common, which is everything but the type
// of a transaction.
//
// On PostgreSQL a batch is one statement over arrays (pg.go), because its round
// trips and commits are what a saga costs. On MySQL and SQLite a batch is one
// transaction with a few statements for each record (record.go). Both write the
// same rows by the same rules; what is written in the caller's transaction goes
// record by record everywhere.
package sqlstore

import (
	"context"

	"github.com/backstay-go/backstay/internal/sqldialect"
)

// Conn runs statements, in a transaction or each by itself.
type Conn interface {
	// Exec returns the number of rows changed.
	Exec(ctx context.Context, query string, args ...any) (int64, error)
	Query(ctx context.Context, query string, args ...any) (Rows, error)
}

// Rows are *sql.Rows or pgx.Rows with one way of closing.
type Rows interface {
	Next() bool
	Scan(dest ...any) error
	Err() error
	Close() error
}

// Tx is a transaction of the store's own, READ COMMITTED where there is a
// choice.
type Tx interface {
	Conn
	Commit(ctx context.Context) error
	Rollback(ctx context.Context) error
}

// Pool is where connections come from.
type Pool interface {
	Conn
	Begin(ctx context.Context) (Tx, error)
	// Engine lends a connection whose session is set up by the statements of
	// [Setup], if the pool can spare one, and a plain one if not. release
	// takes the error of the last use, to tell whether the connection lives.
	Engine(ctx context.Context) (conn EngineConn, release func(error), err error)
}

// EngineConn is a connection for the engine's own statements.
type EngineConn interface {
	Conn
	Begin(ctx context.Context) (Tx, error)
}

// Setup returns what a session of the engine's own needs to be told. On
// PostgreSQL: never scan, hash or merge. The engine's statements touch few
// rows by key, and the planner thinks otherwise as long as a table is empty
// or was never analysed; such a plan, once cached, stays while the table
// grows. [Teardown] takes it back.
func Setup(d sqldialect.Dialect) []string {
	if d != sqldialect.Postgres {
		return nil
	}
	return []string{"SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off; SET enable_bitmapscan = off; SET jit = off; SET plan_cache_mode = force_generic_plan"}
}

// Teardown undoes Setup, before a connection goes back to its pool.
func Teardown(d sqldialect.Dialect) []string {
	if d != sqldialect.Postgres {
		return nil
	}
	return []string{"RESET enable_seqscan; RESET enable_hashjoin; RESET enable_mergejoin; RESET enable_bitmapscan; RESET jit; RESET plan_cache_mode"}
}

// each calls scan for every row of a query.
func each(ctx context.Context, c Conn, query string, args []any, scan func(Rows) error) error {
	rows, err := c.Query(ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := scan(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// one scans the only row of a query and reports whether there was one.
func one(ctx context.Context, c Conn, query string, args []any, dest ...any) (bool, error) {
	found := false
	err := each(ctx, c, query, args, func(r Rows) error {
		if found {
			return nil
		}
		found = true
		return r.Scan(dest...)
	})
	return found && err == nil, err
}

// Package sagasql keeps sagas in a database of your own, through database/sql:
// PostgreSQL 13 and newer, MySQL 8.0 and MariaDB 10.6 and newer, SQLite 3.42
// and newer.
//
//	err := sagasql.Migrate(ctx, db, sagasql.Postgres)   // once, or with a tool of your own
//	store := sagasql.New(db, sagasql.Postgres)
//	engine := saga.New(store, saga.Register(PlaceOrder))
//	err = engine.Run(ctx)
//
// It imports no driver. Tested with pgx/v5/stdlib, go-sql-driver/mysql and
// modernc.org/sqlite.
//
// # Connections
//
// On PostgreSQL the store keeps up to four connections of the pool for itself,
// with a planner setting that forbids sequential scans, once it is used, until
// [Store.Close]. If the pool is limited to fewer than eight connections
// (SetMaxOpenConns) it keeps none and does without the setting, which is slower
// while tables are new. Each TxStep that runs holds one more connection.
//
// On SQLite, open the file with a write-ahead log and a busy timeout, for
// example with modernc's DSN
// "file:app.db?_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)".
// Commits survive a power failure only with synchronous(FULL), which is
// SQLite's own default.
//
// MySQL needs no parseTime: times are kept as integers.
//
// # Tables
//
// saga_instance, saga_run, saga_node, saga_log, saga_mail, saga_lock,
// saga_def, and the guard's saga_guard. The engine needs SELECT, INSERT, UPDATE
// and DELETE on them and no right to change them.
package sagasql

import (
	"context"
	"database/sql"
	"fmt"
	"io/fs"

	"github.com/backstay-go/backstay/internal/sqldialect"
	"github.com/backstay-go/backstay/saga"
	"github.com/backstay-go/backstay/saga/internal/sqlstore"
)

// A Dialect names the database behind a *sql.DB.
type Dialect = sqldialect.Dialect

const (
	Postgres = sqldialect.Postgres // PostgreSQL 13 and newer
	MySQL    = sqldialect.MySQL    // MySQL 8.0, MariaDB 10.6, and newer
	SQLite   = sqldialect.SQLite   // SQLite 3.42 and newer
)

// TxKind is the kind of transaction that TxSteps of this package get; a
// definition with such steps runs on this package's stores only.
const TxKind = "database/sql"

// Store is a [saga.Store] with all further abilities: Reader, Mailbox, Keeper,
// Transactor, Locker and Hinter. Hints reach the engines on this Store; those
// of other processes poll (package sagapgx tells them by NOTIFY). It may be
// used by many goroutines and by several engines.
type Store struct {
	*sqlstore.Store
	pool *pool
}

// New returns a store on db. It panics if d is not one of the constants of
// this package. It does not touch the database: see [Check].
func New(db *sql.DB, d Dialect) *Store {
	if !d.Valid() {
		panic(fmt.Sprintf("sagasql.New: %v", d))
	}
	p := &pool{db: db, d: d}
	return &Store{Store: sqlstore.New(p, d, false), pool: p}
}

// Close gives the connections back that the store keeps for itself. Call it
// after the engines have stopped; it does not close the *sql.DB. The store can
// be used again afterwards.
func (s *Store) Close() error { return s.pool.close() }

// Tx returns a way to start sagas in the caller's transaction: the instance
// exists exactly when the caller commits. An engine on this Store looks for it
// within a few milliseconds of a commit that comes soon after Start; any other
// finds it at its next poll, or at once after [saga.Engine.Wake].
//
// In PostgreSQL the transaction should be READ COMMITTED, which is the
// default: in REPEATABLE READ a start with a key that somebody else has just
// used fails with SQLSTATE 40001.
func (s *Store) Tx(tx *sql.Tx) saga.Starter {
	return starter{s.Store, conn{tx}}
}

type starter struct {
	s *sqlstore.Store
	c conn
}

func (t starter) Start(ctx context.Context, batch []saga.NewInstance) ([]saga.Started, error) {
	return t.s.StartIn(ctx, t.c, batch)
}

// TxKind returns [TxKind].
func (s *Store) TxKind() string { return TxKind }

// InTx runs a step's body and its checkpoint in one transaction: see
// [saga.Transactor].
func (s *Store) InTx(ctx context.Context, at saga.Fence, body func(saga.Tx) (saga.Checkpoint, error)) (saga.Committed, error) {
	return s.Store.InTx(ctx, at, func(tx sqlstore.Tx) any { return tx.(*transaction).tx }, body)
}

// Migrations returns the numbered SQL files of a dialect, for a migration tool
// of your own. Those of the guard's table are guard.Migrations.
func Migrations(d Dialect) fs.FS { return sqlstore.Migrations(d) }

// Migrate creates or updates the tables, those of the guard included. It needs
// the right to do so; any number of processes may call it at once. It refuses a
// schema that is newer than this code and unfit for it.
func Migrate(ctx context.Context, db *sql.DB, d Dialect) error { return sqlstore.Migrate(ctx, db, d) }

// Check returns nil if the tables are there in a version that this code can
// use.
func Check(ctx context.Context, db *sql.DB, d Dialect) error { return sqlstore.Check(ctx, db, d) }

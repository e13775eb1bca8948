// Package sagapgx keeps sagas in PostgreSQL through pgx: the same tables and
// the same promises as package sagasql, with steps and starts in a pgx.Tx.
//
//	err := sagapgx.Migrate(ctx, pool)   // once, or with a tool of your own
//	store := sagapgx.New(pool)
//	engine := saga.New(store, saga.Register(PlaceOrder))
//	err = engine.Run(ctx)
//
// One database may be used through both packages at once, by engines whose
// definitions have no TxStep of the other's kind.
//
// # Connections
//
// Once it is used the store opens up to five connections of its own, beside
// the pool's, with the pool's connection settings and a planner setting that
// forbids sequential scans, and one more for each engine, which listens;
// [Store.Close] closes them. Each TxStep that runs holds a connection of the
// pool.
//
// # Wake-ups
//
// Starts, signals, requests and an engine's end are told to the engines of
// other processes by NOTIFY on the channel backstay_saga, at most once in a
// millisecond and never within a caller's transaction. A hint that is lost costs
// time only: engines poll as well (saga.Config.Poll) and find the mail of
// running instances when they renew their lease. Behind a pooler that shares
// connections out by transaction hints do not arrive, and polling does it all.
package sagapgx

import (
	"context"
	"io/fs"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/backstay-go/backstay/internal/sqldialect"
	"github.com/backstay-go/backstay/saga"
	"github.com/backstay-go/backstay/saga/internal/sqlstore"
)

// TxKind is the kind of transaction that TxSteps of this package get; a
// definition with such steps runs on this package's stores only.
const TxKind = "pgx"

// Store is a [saga.Store] with all further abilities: Reader, Mailbox, Keeper,
// Transactor, Locker and Hinter. It may be used by many goroutines and by
// several engines.
type Store struct {
	*sqlstore.Store
	own   *own
	voice *voice
}

// New returns a store on pool. It does not touch the database: see [Check].
func New(pool *pgxpool.Pool) *Store {
	o := &own{pool: pool}
	s := &Store{Store: sqlstore.New(o, sqldialect.Postgres, true), own: o, voice: newVoice(o)}
	s.SendHints(s.voice.hint)
	return s
}

// Close closes the connections that the store opened. Call it after the
// engines have stopped; it does not close the pool. The store can be used again
// afterwards.
func (s *Store) Close() error {
	s.voice.talk.Wait()
	return s.own.close()
}

// Tx returns a way to start sagas in the caller's transaction: the instance
// exists exactly when the caller commits. Start has the engines of all
// processes look for it at once and a few times within 127 ms; after a commit
// that comes later they find it at their next poll, or at once after
// [saga.Engine.Wake].
//
// The transaction should be READ COMMITTED, which is the default: in
// REPEATABLE READ a start with a key that somebody else has just used fails
// with SQLSTATE 40001.
func (s *Store) Tx(tx pgx.Tx) saga.Starter { return starter{s.Store, conn{tx}} }

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

// TxStep adds a step whose body works in a pgx transaction of the store's
// pool: its effect and the record that it is done are one commit, so it takes
// effect exactly once and needs no guard. A failed attempt leaves nothing
// behind.
//
// fn must do its work through tx and must not end it. The transaction is READ
// COMMITTED and holds the instance's row for as long as fn runs; it is begun
// anew after a deadlock or a serialization failure, which does not count as an
// attempt. A failed statement fails the transaction: return its error, do not
// go on.
//
// Make the step complete, as any other, with one of the methods of [Draft].
func TxStep[I, O any](b *saga.Builder[I], name string, fn func(c *saga.Ctx, tx pgx.Tx, in I) (O, error), opts ...saga.StepOption) *Draft[I, O] {
	return &Draft[I, O]{saga.BindTx(b, TxKind, name, func(c *saga.Ctx, tx any, in I) (O, error) {
		return fn(c, tx.(pgx.Tx), in)
	}, opts...)}
}

// Draft is a TxStep whose kind has not been said: exactly one of Compensate,
// CompensateTx, NothingToUndo, Pivot and Retriable completes it.
type Draft[I, O any] struct{ *saga.Draft[I, O] }

// CompensateTx gives the step an undo that works in a transaction of the
// store too: undo and record are one commit.
func (d *Draft[I, O]) CompensateTx(fn func(c *saga.Ctx, tx pgx.Tx, in I, res saga.Result[O]) error, opts ...saga.StepOption) *saga.StepRef[O] {
	return d.Draft.CompensateTx(func(c *saga.Ctx, tx any, in I, res saga.Result[O]) error {
		return fn(c, tx.(pgx.Tx), in, res)
	}, opts...)
}

// Migrations returns the numbered SQL files, for a migration tool of your own.
// Those of the guard's table are guard.Migrations(guard.Postgres).
func Migrations() fs.FS { return sqlstore.Migrations(sqldialect.Postgres) }

// Migrate creates or updates the tables, those of the guard included. It needs
// the right to do so; any number of processes may call it at once. It refuses a
// schema that is newer than this code and unfit for it.
func Migrate(ctx context.Context, pool *pgxpool.Pool) error {
	db := stdlib.OpenDBFromPool(pool)
	defer db.Close()
	return sqlstore.Migrate(ctx, db, sqldialect.Postgres)
}

// Check returns nil if the tables are there in a version that this code can
// use.
func Check(ctx context.Context, pool *pgxpool.Pool) error {
	db := stdlib.OpenDBFromPool(pool)
	defer db.Close()
	return sqlstore.Check(ctx, db, sqldialect.Postgres)
}

package sagasql

import (
	"database/sql"

	"github.com/backstay-go/backstay/saga"
)

// TxStep adds a step whose body works in a transaction of the store's
// database: its effect and the record that it is done are one commit, so it
// takes effect exactly once and needs no guard. A failed attempt leaves
// nothing behind.
//
// fn must do its work through tx and must not end it. The transaction is READ
// COMMITTED (in SQLite it is the one writer) and holds the instance's row for
// as long as fn runs; it is begun anew after a deadlock or a serialization
// failure, which does not count as an attempt, unless it happens eleven times
// in a row. In PostgreSQL a failed statement fails the transaction: return its
// error, do not go on.
//
// Make the step complete, as any other, with one of the methods of [Draft].
func TxStep[I, O any](b *saga.Builder[I], name string, fn func(c *saga.Ctx, tx *sql.Tx, in I) (O, error), opts ...saga.StepOption) *Draft[I, O] {
	return &Draft[I, O]{saga.BindTx(b, TxKind, name, func(c *saga.Ctx, tx any, in I) (O, error) {
		return fn(c, tx.(*sql.Tx), in)
	}, opts...)}
}

// Draft is a TxStep whose kind has not been said: exactly one of Compensate,
// CompensateTx, NothingToUndo, Pivot and Retriable completes it.
type Draft[I, O any] struct{ *saga.Draft[I, O] }

// CompensateTx gives the step an undo that works in a transaction of the
// store too: undo and record are one commit.
func (d *Draft[I, O]) CompensateTx(fn func(c *saga.Ctx, tx *sql.Tx, in I, res saga.Result[O]) error, opts ...saga.StepOption) *saga.StepRef[O] {
	return d.Draft.CompensateTx(func(c *saga.Ctx, tx any, in I, res saga.Result[O]) error {
		return fn(c, tx.(*sql.Tx), in, res)
	}, opts...)
}

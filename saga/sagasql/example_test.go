package sagasql_test

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/backstay-go/backstay/saga"
	"github.com/backstay-go/backstay/saga/sagasql"
)

type order struct{ ID string }

// A step in the store's own transaction: the order is confirmed exactly when
// the log says so.
func ExampleTxStep() {
	confirm := saga.Must(saga.Define("confirm-order", 1, func(b *saga.Builder[order]) {
		sagasql.TxStep(b, "confirm", func(c *saga.Ctx, tx *sql.Tx, o order) (string, error) {
			_, err := tx.ExecContext(c, "UPDATE orders SET state = 'confirmed' WHERE id = $1", o.ID)
			return "confirmed", err
		}).CompensateTx(func(c *saga.Ctx, tx *sql.Tx, o order, _ saga.Result[string]) error {
			_, err := tx.ExecContext(c, "UPDATE orders SET state = 'new' WHERE id = $1", o.ID)
			return err
		})
	}))
	fmt.Println(confirm.Shape().Def)
	// Output: confirm-order
}

// The saga starts in the transaction that inserts the order: both exist, or
// neither.
func ExampleStore_Tx() {
	place := func(ctx context.Context, db *sql.DB, store *sagasql.Store, def *saga.Definition[order], o order) error {
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		defer tx.Rollback()
		if _, err := tx.ExecContext(ctx, "INSERT INTO orders (id) VALUES ($1)", o.ID); err != nil {
			return err
		}
		if _, err := def.Start(ctx, store.Tx(tx), "order-"+o.ID, o); err != nil {
			return err
		}
		return tx.Commit()
	}
	_ = place
}

package saga_test

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/backstay-go/backstay/saga/guard/guardtest"
	"github.com/backstay-go/backstay/saga/sagapgx"
)

// pgxWorld is a guard on a pgx pool with a ledger beside it.
func pgxWorld(pool *pgxpool.Pool) guardtest.World {
	return guardtest.World{
		Runner: sagapgx.NewGuard(pool),
		Effect: func(ctx context.Context, line string) error {
			_, err := sagapgx.TxFrom(ctx).Exec(ctx, "INSERT INTO ledger (line) VALUES ($1)", line)
			return err
		},
		Effects: func(ctx context.Context) ([]string, error) {
			rows, err := pool.Query(ctx, "SELECT line FROM ledger")
			if err != nil {
				return nil, err
			}
			return pgx.CollectRows(rows, pgx.RowTo[string])
		},
	}
}

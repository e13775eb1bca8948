package books

import (
	"context"
	"database/sql"
	"net/http"

	"github.com/backstay-go/backstay/examples/shop/internal/service"
	"github.com/backstay-go/backstay/examples/shop/internal/store"
)

// Serve lets a checker see the movements of a service: a table with the columns order_id, kind and the one that is summed.
func Serve(h *service.Host, db *store.DB, table, summed string) {
	query := "SELECT order_id, kind, COUNT(*), COALESCE(SUM(" + summed + "), 0) FROM " + table
	h.Control.HandleFunc("GET /sums", func(w http.ResponseWriter, r *http.Request) {
		sums := Sums{}
		err := scan(r.Context(), db, "SELECT '', kind, COUNT(*), COALESCE(SUM("+summed+"), 0) FROM "+table+" GROUP BY kind", nil, func(_, kind string, s Sum) { sums[kind] = s })
		service.Answer(w, sums, err)
	})
	service.Question(h.Control, "POST /movements", func(ctx context.Context, orders []string) (Movements, error) {
		all := Movements{}
		if len(orders) == 0 {
			return all, nil
		}
		args := make([]any, len(orders))
		for i, o := range orders {
			args[i] = o
		}
		err := scan(ctx, db, query+" WHERE order_id IN "+store.List(len(orders))+" GROUP BY order_id, kind", args, func(order, kind string, s Sum) {
			if all[order] == nil {
				all[order] = Sums{}
			}
			all[order][kind] = s
		})
		return all, err
	})
}

func scan(ctx context.Context, db *store.DB, query string, args []any, each func(order, kind string, s Sum)) error {
	rows, err := db.QueryContext(ctx, db.Q(query), args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var order, kind string
		var s Sum
		if err := rows.Scan(&order, &kind, &s.N, &s.Sum); err != nil {
			return err
		}
		each(order, kind, s)
	}
	return rows.Err()
}

// InTx runs fn in a transaction that sees one moment.
func InTx(ctx context.Context, db *store.DB, fn func(tx *sql.Tx) error) error {
	tx, err := db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true})
	if err != nil {
		return err
	}
	defer tx.Rollback()
	return fn(tx)
}

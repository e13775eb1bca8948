package outbox

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// BenchmarkOutboxEnqueue is one message in a transaction with its commit, beside a bare insert of the same row.
func BenchmarkOutboxEnqueue(b *testing.B) {
	ctx := context.Background()
	run := func(b *testing.B, setup func(pool *pgxpool.Pool) func(tx pgx.Tx) error) {
		pool := connect(b, newDatabase(b))
		defer pool.Close()
		f := setup(pool)
		b.ReportAllocs()
		for b.Loop() {
			if err := pgx.BeginFunc(ctx, pool, f); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.Run("backstay", func(b *testing.B) {
		run(b, func(pool *pgxpool.Pool) func(pgx.Tx) error {
			box := openBox(b, pool)
			box.HintThrough(pool)
			b.Cleanup(box.Close)
			m := newMessage(0)
			return func(tx pgx.Tx) error { return box.Enqueue(ctx, tx, m) }
		})
	})
	b.Run("bare", func(b *testing.B) {
		run(b, func(pool *pgxpool.Pool) func(pgx.Tx) error {
			openBox(b, pool)
			body := payload()
			return func(tx pgx.Tx) error {
				_, err := tx.Exec(ctx, "INSERT INTO outbox (part, msg_id, topic, msg_key, content_type, headers, payload, created_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7, 1, 0)",
					1, "0af7651916cd43dd8448eb211c80319c-xxxx", "orders", "order-0", "", "event: order-placed\ntraceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\n", body)
				return err
			}
		})
	})
}

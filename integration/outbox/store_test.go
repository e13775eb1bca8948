package outbox_test

import (
	"context"
	"database/sql"
	"testing"

	"github.com/backstay-go/backstay/integration/saga/sagadb"
	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/outboxsql"
	"github.com/backstay-go/backstay/outbox/outboxtest"
)

// open makes an outbox in a new database.
func open(t *testing.T, d outboxsql.Dialect, cfg ...outboxsql.Config) (*outboxsql.Box, *sql.DB) {
	t.Helper()
	db := sagadb.Open(t, d)
	box := outboxsql.New(d, cfg...)
	if err := box.Migrate(t.Context(), db); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(box.Close)
	return box, db
}

type storeTx struct {
	*sql.Tx
	box *outboxsql.Box
}

func (t storeTx) Enqueue(ctx context.Context, messages ...outbox.Message) error {
	return t.box.Enqueue(ctx, t.Tx, messages...)
}

func store(box *outboxsql.Box, db *sql.DB, d outboxsql.Dialect) outboxtest.Store {
	return outboxtest.Store{
		Source: box.Source(db), Parts: 16, OneWriter: d == outboxsql.SQLite,
		Begin: func(ctx context.Context) (outboxtest.StoreTx, error) {
			tx, err := db.BeginTx(ctx, nil)
			return storeTx{tx, box}, err
		},
		DeadLetters: func(ctx context.Context, f outbox.DeadFilter) ([]outbox.DeadLetter, error) {
			return box.DeadLetters(ctx, db, f)
		},
		Replay:  func(ctx context.Context, f outbox.DeadFilter) (int, error) { return box.Replay(ctx, db, f) },
		Discard: func(ctx context.Context, f outbox.DeadFilter) (int, error) { return box.Discard(ctx, db, f) },
	}
}

func TestStore(t *testing.T) {
	sagadb.Each(t, func(t *testing.T, d outboxsql.Dialect) {
		outboxtest.TestStore(t, func(t *testing.T) outboxtest.Store {
			box, db := open(t, d)
			return store(box, db, d)
		})
	})
}

// Other names, and a schema where there is one, are quoted and used everywhere.
func TestStoreNames(t *testing.T) {
	sagadb.Each(t, func(t *testing.T, d outboxsql.Dialect) {
		outboxtest.TestStore(t, func(t *testing.T) outboxtest.Store {
			db := sagadb.Open(t, d)
			cfg := outboxsql.Config{Table: "order", InboxTable: "group", Partitions: 16, StrictKeys: true}
			if d == outboxsql.Postgres {
				cfg.Table, cfg.InboxTable = "select.order", "select.group"
				if _, err := db.Exec(`CREATE SCHEMA "select"`); err != nil {
					t.Fatal(err)
				}
			}
			box := outboxsql.New(d, cfg)
			for range 2 {
				if err := box.Migrate(t.Context(), db); err != nil {
					t.Fatal(err)
				}
			}
			t.Cleanup(box.Close)
			return store(box, db, d)
		})
	})
}

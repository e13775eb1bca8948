package outbox_test

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/backstay-go/backstay/integration/saga/sagadb"
	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/outboxsql"
	"github.com/backstay-go/backstay/outbox/outboxtest"
	"github.com/jackc/pgx/v5"
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

// counted is a transaction that counts its statements.
type counted struct {
	*sql.Tx
	n int
}

func (c *counted) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	c.n++
	return c.Tx.ExecContext(ctx, query, args...)
}

// Scheduled messages are written by a statement for each thousand, and come due in the order of the call.
func TestManyScheduled(t *testing.T) {
	const count = 2500
	batch := make([]outbox.Message, count)
	for i := range batch {
		batch[i] = outbox.Message{ID: fmt.Sprint(i), Topic: "t", Key: "k", Delay: time.Microsecond}
		if i%2 == 1 {
			batch[i].Key = "l"
		}
	}
	order := func(t *testing.T, source outbox.Source) {
		t.Helper()
		rec := &outboxtest.Recorder{}
		run(t, source, rec, outbox.RelayConfig{})
		wait(t, rec, count)
		got := map[string][]int{}
		for _, m := range rec.Messages() {
			n, err := strconv.Atoi(m.ID)
			if err != nil {
				t.Fatal(err)
			}
			got[m.Key] = append(got[m.Key], n)
		}
		if len(got["k"]) != count/2 || len(got["l"]) != count/2 || !slices.IsSorted(got["k"]) || !slices.IsSorted(got["l"]) {
			t.Errorf("got %d and %d messages of two keys, want %d each, in the order of the call", len(got["k"]), len(got["l"]), count/2)
		}
	}
	sagadb.Each(t, func(t *testing.T, d outboxsql.Dialect) {
		box, db := open(t, d)
		if err := box.InTx(t.Context(), db, func(tx *sql.Tx) error {
			c := &counted{Tx: tx}
			err := box.Enqueue(t.Context(), c, batch...)
			if c.n > 4 { // SQLite takes its lock first
				t.Errorf("%d statements, want one for each thousand", c.n)
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
		order(t, box.Source(db))
	})
	t.Run("pgx", func(t *testing.T) {
		box, pool := openPgx(t, "")
		if err := box.InTx(t.Context(), pool, func(tx pgx.Tx) error { return box.Enqueue(t.Context(), tx, batch...) }); err != nil {
			t.Fatal(err)
		}
		order(t, box.Source(pool))
	})
}

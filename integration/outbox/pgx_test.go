package outbox_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/backstay-go/backstay/integration/saga/sagadb"
	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/outboxpgx"
	"github.com/backstay-go/backstay/outbox/outboxsql"
	"github.com/backstay-go/backstay/outbox/outboxtest"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// openPgx makes an outbox in a new database. params are added to the pool's connection string.
func openPgx(t *testing.T, params string, cfg ...outboxsql.Config) (*outboxpgx.Box, *pgxpool.Pool) {
	t.Helper()
	return openPgxAt(t, sagadb.DSN(t, outboxsql.Postgres)+params, cfg...)
}

// openPgxAt makes an outbox in the database that dsn names.
func openPgxAt(t *testing.T, dsn string, cfg ...outboxsql.Config) (*outboxpgx.Box, *pgxpool.Pool) {
	t.Helper()
	pool, err := pgxpool.New(t.Context(), dsn+"&pool_max_conns=10")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	box := outboxpgx.New(cfg...)
	db := outboxpgx.DB(pool)
	defer db.Close()
	if err := box.SQL.Migrate(t.Context(), db); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(box.Close)
	return box, pool
}

type pgxTx struct {
	pgx.Tx
	box *outboxpgx.Box
}

func (t pgxTx) Enqueue(ctx context.Context, messages ...outbox.Message) error {
	return t.box.Enqueue(ctx, t.Tx, messages...)
}
func (t pgxTx) Commit() error   { return t.Tx.Commit(context.Background()) }
func (t pgxTx) Rollback() error { return t.Tx.Rollback(context.Background()) }

// The suite in pgx's two protocols; the second is what a pooler by transaction needs.
func TestStorePgx(t *testing.T) {
	for name, params := range map[string]string{"binary": "", "simple": "&default_query_exec_mode=simple_protocol"} {
		t.Run(name, func(t *testing.T) {
			outboxtest.TestStore(t, func(t *testing.T) outboxtest.Store {
				box, pool := openPgx(t, params)
				db := outboxpgx.DB(pool)
				t.Cleanup(func() { db.Close() })
				return outboxtest.Store{
					Source: box.Source(pool), Parts: 16,
					Begin: func(ctx context.Context) (outboxtest.StoreTx, error) {
						tx, err := pool.Begin(ctx)
						return pgxTx{tx, box}, err
					},
					DeadLetters: func(ctx context.Context, f outbox.DeadFilter) ([]outbox.DeadLetter, error) {
						return box.SQL.DeadLetters(ctx, db, f)
					},
					Replay:  func(ctx context.Context, f outbox.DeadFilter) (int, error) { return box.SQL.Replay(ctx, db, f) },
					Discard: func(ctx context.Context, f outbox.DeadFilter) (int, error) { return box.SQL.Discard(ctx, db, f) },
				}
			})
		})
	}
}

// An enqueue folded into a batch is one round trip with the business rows, and shares their fate.
func TestQueueInBatch(t *testing.T) {
	box, pool := openPgx(t, "")
	var batch pgx.Batch
	if err := box.Queue(t.Context(), &batch, outbox.Message{Topic: "t"}); !errors.Is(err, outbox.ErrPartitions) {
		t.Errorf("before Load: got %v, want ErrPartitions", err)
	}
	if err := box.Load(t.Context(), pool); err != nil {
		t.Fatal(err)
	}
	if _, err := pool.Exec(t.Context(), "CREATE TABLE orders (id int PRIMARY KEY)"); err != nil {
		t.Fatal(err)
	}
	for i, want := range []int{1, 1} { // the second order is there already: nothing of its batch stays
		var batch pgx.Batch
		batch.Queue("INSERT INTO orders VALUES (1)")
		if err := box.Queue(t.Context(), &batch, outbox.Message{Topic: "t", Key: fmt.Sprint(i)}); err != nil {
			t.Fatal(err)
		}
		if err := pool.SendBatch(t.Context(), &batch).Close(); (err == nil) != (i == 0) {
			t.Errorf("batch %d: got error %v", i, err)
		}
		var n int
		if err := pool.QueryRow(t.Context(), "SELECT count(*) FROM outbox").Scan(&n); err != nil || n != want {
			t.Errorf("batch %d: got %d messages, %v, want %d", i, n, err, want)
		}
	}
}

// A read decodes a row in few allocations: its text, its payload, its headers (a map and its memory) and what pgx makes of a row.
func TestReadAllocates(t *testing.T) {
	box, pool := openPgx(t, "")
	const messages = 400
	all := make([]outbox.Message, messages)
	for i := range all {
		all[i] = outbox.Message{Topic: "t", Key: "k", ContentType: "text/plain", Payload: []byte("payload"), Headers: map[string]string{"a": "1", "b": "2"}}
	}
	if err := box.InTx(t.Context(), pool, func(tx pgx.Tx) error { return box.Enqueue(t.Context(), tx, all...) }); err != nil {
		t.Fatal(err)
	}
	source := box.Source(pool)
	rows := make([]outbox.Row, 0, messages)
	spans := []outbox.Span{{Part: outbox.PartitionOf("k", 16)}}
	allocs := testing.AllocsPerRun(20, func() {
		got, err := source.Read(t.Context(), spans, messages, rows)
		if err != nil || len(got) != messages {
			t.Fatalf("%d rows, %v, want %d", len(got), err, messages)
		}
	})
	if each := allocs / messages; each > 6 {
		t.Errorf("%.1f allocations a row, want at most 6", each)
	} else {
		t.Logf("%.2f allocations a row", each)
	}
}

// Reads are not planned anew each time, however few partitions they are of.
func TestReadIsPlannedOnce(t *testing.T) {
	box, pool := openPgx(t, "")
	source := box.Source(pool)
	conns := pool.AcquireAllIdle(t.Context())
	for _, c := range conns[1:] {
		c.Conn().Close(t.Context()) // one is left, so that all reads go by it
	}
	for _, c := range conns {
		c.Release()
	}
	for range 20 {
		if _, err := source.Read(t.Context(), []outbox.Span{{Part: 1}, {Part: 2}}, 100, nil); err != nil {
			t.Fatal(err)
		}
	}
	var reads, planned int
	if err := pool.QueryRow(t.Context(), "SELECT sum(generic_plans + custom_plans), sum(custom_plans) FROM pg_prepared_statements WHERE statement LIKE 'SELECT o.*%'").Scan(&reads, &planned); err != nil {
		t.Fatal(err)
	}
	if reads != 20 || planned != 0 {
		t.Errorf("%d reads, %d planned for themselves; want 20 and 0", reads, planned)
	}
}

// 70,000 messages go in one call, where parameters would end at 65,535.
func TestEnqueueMany(t *testing.T) {
	box, pool := openPgx(t, "")
	messages := make([]outbox.Message, 70_000)
	for i := range messages {
		messages[i] = outbox.Message{ID: fmt.Sprint(i), Topic: "t", Key: "k"}
	}
	if err := box.InTx(t.Context(), pool, func(tx pgx.Tx) error { return box.Enqueue(t.Context(), tx, messages...) }); err != nil {
		t.Fatal(err)
	}
	var wrong int
	if err := pool.QueryRow(t.Context(), "SELECT count(*) FROM (SELECT msg_id::int - row_number() OVER (ORDER BY id) AS d FROM outbox) s WHERE d <> -1").Scan(&wrong); err != nil || wrong != 0 {
		t.Errorf("%d of 70,000 are out of order, %v, want none", wrong, err)
	}
}

// A relay in another process hears of a message: here another box, which shares nothing but the database.
func TestListen(t *testing.T) {
	box, pool := openPgx(t, "")
	other := outboxpgx.New()
	t.Cleanup(other.Close)
	rec := &outboxtest.Recorder{}
	relay := outbox.NewRelay(other.Source(pool), rec, outbox.RelayConfig{MinPoll: time.Minute, MaxPoll: time.Minute})
	ended := make(chan error, 1)
	go func() { ended <- relay.Run(context.Background()) }()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for i := range 20 {
		if err := box.InTx(ctx, pool, func(tx pgx.Tx) error { return box.Enqueue(ctx, tx, outbox.Message{Topic: "t", Key: fmt.Sprint(i)}) }); err != nil {
			t.Fatal(err)
		}
		if _, err := rec.Wait(ctx, i+1); err != nil {
			t.Fatalf("message %d: %v (polls come once a minute)", i, err)
		}
	}
	if err := relay.Shutdown(ctx); err != nil {
		t.Errorf("Shutdown: %v", err)
	}
	if err := <-ended; err != nil {
		t.Errorf("Run: %v", err)
	}
}

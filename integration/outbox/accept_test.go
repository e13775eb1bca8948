package outbox_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/backstay-go/backstay/integration/saga/sagadb"
	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/outboxsql"
	"github.com/backstay-go/backstay/outbox/outboxtest"
	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5"
)

// run runs a relay until the test ends, which must be in order.
func run(t *testing.T, source outbox.Source, pub outbox.Publisher, cfg outbox.RelayConfig) *outbox.Relay {
	t.Helper()
	relay := outbox.NewRelay(source, pub, cfg)
	ended := make(chan error, 1)
	go func() { ended <- relay.Run(context.Background()) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := relay.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return relay
}

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// wait returns the payloads of the first n messages of a key.
func wait(t *testing.T, rec *outboxtest.Recorder, n int) []*outbox.Message {
	t.Helper()
	got, err := rec.Wait(within(t, 20*time.Second), n)
	if err != nil {
		t.Fatalf("waiting for %d messages: %v", n, err)
	}
	return got
}

// A message lives and dies with its transaction, and with its savepoint.
func TestAtomic(t *testing.T) {
	sagadb.Each(t, func(t *testing.T, d outboxsql.Dialect) {
		box, db := open(t, d)
		rec := &outboxtest.Recorder{}
		run(t, box.Source(db), rec, outbox.RelayConfig{})
		message := func(id string) outbox.Message { return outbox.Message{ID: id, Topic: "t", Key: "k"} }
		tx, err := db.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, step := range []func() error{
			func() error { return box.Enqueue(t.Context(), tx, message("kept-1")) },
			func() error { _, err := tx.Exec("SAVEPOINT s"); return err },
			func() error { return box.Enqueue(t.Context(), tx, message("undone")) },
			func() error { _, err := tx.Exec("ROLLBACK TO SAVEPOINT s"); return err },
			func() error { return box.Enqueue(t.Context(), tx, message("kept-2"), message("kept-3")) },
			tx.Commit,
		} {
			if err := step(); err != nil {
				t.Fatal(err)
			}
		}
		failed := errors.New("no")
		if err := box.InTx(t.Context(), db, func(tx *sql.Tx) error {
			return errors.Join(box.Enqueue(t.Context(), tx, message("rolled back")), failed)
		}); !errors.Is(err, failed) {
			t.Errorf("InTx: got %v, want the function's error", err)
		}
		if err := box.InTx(t.Context(), db, func(tx *sql.Tx) error { return box.Enqueue(t.Context(), tx, message("last")) }); err != nil {
			t.Fatal(err)
		}
		var ids []string
		for _, m := range wait(t, rec, 4) {
			ids = append(ids, m.ID)
		}
		if want := []string{"kept-1", "kept-2", "kept-3", "last"}; !slices.Equal(ids, want) {
			t.Errorf("published: got %v, want %v", ids, want)
		}
	})
}

// What can begin a transaction is none.
func TestEnqueueNeedsTx(t *testing.T) {
	box, db := open(t, outboxsql.SQLite)
	conn, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	type wrapped struct{ *sql.DB } // as sqlx.DB
	for name, tx := range map[string]outboxsql.Tx{"nil": nil, "*sql.DB": db, "*sql.Conn": conn, "a struct around a *sql.DB": wrapped{db}, "a nil *sql.Tx": (*sql.Tx)(nil)} {
		if err := box.Enqueue(t.Context(), tx, outbox.Message{Topic: "t"}); !errors.Is(err, outbox.ErrNotTx) {
			t.Errorf("%s: got %v, want ErrNotTx", name, err)
		}
		if _, err := box.Inbox("c").Once(t.Context(), tx, "m"); !errors.Is(err, outbox.ErrNotTx) {
			t.Errorf("Once on %s: got %v, want ErrNotTx", name, err)
		}
	}
}

// Another number of partitions is refused wherever it would be used.
func TestPartitionsMismatch(t *testing.T) {
	sagadb.Each(t, func(t *testing.T, d outboxsql.Dialect) {
		_, db := open(t, d)
		other := outboxsql.New(d, outboxsql.Config{Partitions: 8})
		err := other.InTx(t.Context(), db, func(tx *sql.Tx) error { return other.Enqueue(t.Context(), tx, outbox.Message{Topic: "t"}) })
		if !errors.Is(err, outbox.ErrPartitions) {
			t.Errorf("Enqueue: got %v, want ErrPartitions", err)
		}
		if err := outbox.NewRelay(other.Source(db), &outboxtest.Recorder{}, outbox.RelayConfig{}).Run(t.Context()); !errors.Is(err, outbox.ErrPartitions) {
			t.Errorf("Run: got %v, want ErrPartitions", err)
		}
		if err := other.Migrate(t.Context(), db); !errors.Is(err, outbox.ErrPartitions) {
			t.Errorf("Migrate: got %v, want ErrPartitions", err)
		}
	})
}

// A relay says at its start what it lacks.
func TestRelayStart(t *testing.T) {
	sagadb.Each(t, func(t *testing.T, d outboxsql.Dialect) {
		db := sagadb.Open(t, d)
		box := outboxsql.New(d)
		if err := outbox.NewRelay(box.Source(db), &outboxtest.Recorder{}, outbox.RelayConfig{}).Run(t.Context()); err == nil {
			t.Error("without tables: got nil, want an error")
		}
		if d == outboxsql.SQLite {
			return
		}
		for n := 1; n <= 3; n++ {
			db.SetMaxOpenConns(n)
			if err := outbox.NewRelay(box.Source(db), &outboxtest.Recorder{}, outbox.RelayConfig{}).Run(t.Context()); !errors.Is(err, outbox.ErrConnections) {
				t.Errorf("a pool of %d: got %v, want ErrConnections", n, err)
			}
		}
	})
}

// With strict keys two overlapping transactions of a key are published in the order of their commits; keys locked in opposite
// order by two calls do not deadlock.
func TestStrictKeys(t *testing.T) {
	for _, d := range []outboxsql.Dialect{outboxsql.Postgres, outboxsql.MySQL} {
		t.Run(d.String(), func(t *testing.T) {
			box, db := open(t, d, outboxsql.Config{StrictKeys: true})
			rec := &outboxtest.Recorder{}
			run(t, box.Source(db), rec, outbox.RelayConfig{})
			var mu sync.Mutex
			var order []string // of the commits of key a
			var all sync.WaitGroup
			for w := range 4 {
				all.Go(func() {
					for i := 0; i < 10; i++ {
						id := fmt.Sprintf("%d-%d", w, i)
						keys := []string{"a", "b", "c"}
						if w%2 == 1 {
							slices.Reverse(keys)
						}
						tx, err := db.BeginTx(t.Context(), nil)
						if err != nil {
							t.Error(err)
							return
						}
						var batch []outbox.Message
						for _, k := range keys {
							batch = append(batch, outbox.Message{ID: id + k, Topic: "t", Key: k})
						}
						if err := box.Enqueue(t.Context(), tx, batch...); err != nil {
							tx.Rollback()
							// InnoDB may find a deadlock in the gaps that first inserts lock, whatever their order: the
							// transaction is the caller's to repeat, as the contract says.
							var deadlock *mysql.MySQLError
							if errors.As(err, &deadlock) && deadlock.Number == 1213 {
								i--
								continue
							}
							t.Errorf("Enqueue: %v", err)
							return
						}
						mu.Lock() // nobody else can be here with the keys' locks
						order = append(order, id+"a")
						mu.Unlock()
						if err := tx.Commit(); err != nil {
							t.Error(err)
						}
					}
				})
			}
			all.Wait()
			var got []string
			for _, m := range wait(t, rec, 120) {
				if m.Key == "a" {
					got = append(got, m.ID)
				}
			}
			if !slices.Equal(got, order) {
				t.Errorf("published: got %v, want the order of the commits %v", got, order)
			}
		})
	}
}

// A write transaction that stays open elsewhere in the cluster, and one here that has taken an older number, hold nothing back.
func TestOpenTransactionsElsewhere(t *testing.T) {
	box, pool := openPgx(t, "")
	other := sagadb.Open(t, outboxsql.Postgres)
	if _, err := other.Exec("CREATE TABLE t (i int)"); err != nil {
		t.Fatal(err)
	}
	old, err := other.Begin()
	if err != nil {
		t.Fatal(err)
	}
	defer old.Rollback()
	if _, err := old.Exec("INSERT INTO t VALUES (1)"); err != nil {
		t.Fatal(err)
	}
	late, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer late.Rollback(context.Background())
	if err := box.Enqueue(t.Context(), late, outbox.Message{ID: "late", Topic: "t", Key: "late"}); err != nil {
		t.Fatal(err)
	}
	rec := &outboxtest.Recorder{}
	const lag = time.Second // for which a message would be held back
	run(t, box.Source(pool), rec, outbox.RelayConfig{Lag: lag, Sweep: 5 * lag})
	var took []time.Duration
	for i := range 50 {
		if err := box.InTx(t.Context(), pool, func(tx pgx.Tx) error {
			return box.Enqueue(t.Context(), tx, outbox.Message{Topic: "t", Key: fmt.Sprint("k", i)})
		}); err != nil {
			t.Fatal(err)
		}
		committed := time.Now()
		wait(t, rec, i+1)
		took = append(took, time.Since(committed))
	}
	slices.Sort(took)
	t.Logf("commit to publisher: half within %v, all within %v", took[25], took[49])
	if took[25] > lag/2 { // 2 ms on most machines
		t.Errorf("commit to publisher: got half within %v, want far less than a lag of %v", took[25], lag)
	}
	wait(t, rec, 50)
	if err := late.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := wait(t, rec, 51)[50]; got.ID != "late" {
		t.Errorf("after the late commit: got %s, want late", got.ID)
	}
}

// 50,000 dead rows that an old snapshot pins cost a reading nothing: it starts behind them.
func TestReadBehindDeadRows(t *testing.T) {
	box, pool := openPgx(t, "", outboxsql.Config{Partitions: 1})
	ctx := t.Context()
	fill := func(n int) {
		t.Helper()
		batch := make([]outbox.Message, n)
		for i := range batch {
			batch[i] = outbox.Message{Topic: "t", Key: fmt.Sprint(i), Payload: make([]byte, 200)}
		}
		if err := box.InTx(ctx, pool, func(tx pgx.Tx) error { return box.Enqueue(ctx, tx, batch...) }); err != nil {
			t.Fatal(err)
		}
	}
	fill(50_000)
	old, err := pool.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead})
	if err != nil {
		t.Fatal(err)
	}
	defer old.Rollback(context.Background())
	var last int64
	if err := old.QueryRow(ctx, "SELECT max(id) FROM outbox").Scan(&last); err != nil {
		t.Fatal(err)
	}
	if _, err := pool.Exec(ctx, "DELETE FROM outbox"); err != nil {
		t.Fatal(err)
	}
	fill(500)
	buffers := func(from int64) (n int) {
		t.Helper()
		tx, err := pool.Begin(ctx)
		if err != nil {
			t.Fatal(err)
		}
		defer tx.Rollback(ctx)
		// As Source.Read of outboxpgx does it.
		if _, err := tx.Exec(ctx, "SELECT set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true), set_config('enable_sort', 'off', true)"); err != nil {
			t.Fatal(err)
		}
		rows, err := tx.Query(ctx, fmt.Sprintf("EXPLAIN (ANALYZE, BUFFERS, TIMING off) SELECT o.* FROM unnest('{0}'::smallint[], '{%d}'::bigint[]) AS s (p, lo)"+
			" CROSS JOIN LATERAL (SELECT * FROM outbox WHERE part = s.p AND id >= s.lo ORDER BY id LIMIT 500) o", from))
		if err != nil {
			t.Fatal(err)
		}
		lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range lines {
			if strings.Contains(line, "Seq Scan") || strings.Contains(line, "Sort") {
				t.Errorf("the plan has a scan or a sort: %s", line)
			}
			if i := strings.Index(line, "Buffers: shared"); i >= 0 && n == 0 {
				for f := range strings.FieldsSeq(line[i:]) {
					for _, kind := range []string{"hit=", "read="} {
						if v, ok := strings.CutPrefix(f, kind); ok {
							var k int
							fmt.Sscan(v, &k)
							n += k
						}
					}
				}
			}
		}
		return n
	}
	behind, before := buffers(last+1), buffers(0)
	t.Logf("500 rows from behind 50,000 dead ones: %d buffers; through them: %d", behind, before)
	if behind == 0 || behind >= 100 {
		t.Errorf("from behind the dead rows: got %d buffers, want 1 to 99", behind)
	}
}

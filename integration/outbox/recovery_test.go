package outbox_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/backstay-go/backstay/integration/saga/sagadb"
	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/outboxsql"
	"github.com/backstay-go/backstay/outbox/outboxtest"
)

// fillForRestore leaves pending messages of some keys, a scheduled one and a dead letter, as a relay that has died does. It returns what is to come.
func fillForRestore(t *testing.T, box *outboxsql.Box, db *sql.DB) (want map[string][]string) {
	t.Helper()
	enqueue := func(messages ...outbox.Message) {
		t.Helper()
		if err := box.InTx(t.Context(), db, func(tx *sql.Tx) error { return box.Enqueue(t.Context(), tx, messages...) }); err != nil {
			t.Fatal(err)
		}
	}
	source := box.Source(db)
	enqueue(outbox.Message{ID: "dead", Topic: "t", Key: "dead"})
	held, err := source.Lease(t.Context(), outbox.LeaseRequest{Relay: "gone", TTL: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	rows, err := source.Read(t.Context(), []outbox.Span{{Part: outbox.PartitionOf("dead", 16)}}, 10, nil)
	if err != nil || len(rows) != 1 {
		t.Fatalf("Read: got %d rows, %v", len(rows), err)
	}
	for _, h := range held.Held {
		if h.Part == rows[0].Part {
			if _, err := source.Settle(t.Context(), outbox.Settlement{Relay: "gone", Parks: []outbox.Park{{Lease: h.Lease, Seqs: []int64{rows[0].Message.Seq}, Reason: "no", Holds: true}}}); err != nil {
				t.Fatal(err)
			}
		}
	}
	want = map[string][]string{"dead": {"dead"}, "later": {"later"}}
	for i := range 40 {
		key, id := fmt.Sprint("k", i%5), fmt.Sprint("m", i)
		enqueue(outbox.Message{ID: id, Topic: "t", Key: key, Payload: []byte{0, 255, byte(i)}})
		want[key] = append(want[key], id)
	}
	enqueue(outbox.Message{ID: "later", Topic: "t", Key: "later", Delay: time.Second})
	return want
}

// checkRestored lets a relay deliver what the copy holds, the dead letter after a replay, and new messages after the old ones of their keys.
func checkRestored(t *testing.T, box *outboxsql.Box, db *sql.DB, want map[string][]string) {
	t.Helper()
	rec := &outboxtest.Recorder{}
	run(t, box.Source(db), rec, outbox.RelayConfig{Lease: time.Second})
	if n, err := box.Replay(t.Context(), db, outbox.DeadFilter{}); err != nil || n != 1 {
		t.Errorf("Replay: got %d, %v, want 1", n, err)
	}
	if err := box.InTx(t.Context(), db, func(tx *sql.Tx) error {
		return box.Enqueue(t.Context(), tx, outbox.Message{ID: "new", Topic: "t", Key: "k0"})
	}); err != nil {
		t.Fatal(err)
	}
	want["k0"] = append(want["k0"], "new")
	n := 0
	for _, ids := range want {
		n += len(ids)
	}
	got := map[string][]string{}
	for _, m := range wait(t, rec, n) {
		got[m.Key] = append(got[m.Key], m.ID)
	}
	for key, ids := range want {
		if !slices.Equal(got[key], ids) {
			t.Errorf("key %s: got %v, want %v", key, got[key], ids)
		}
	}
}

// What was pending when a database was dumped is delivered from where it is restored: a new cluster, whose transactions are counted from the beginning.
func TestDumpAndRestore(t *testing.T) {
	t.Run("postgres", func(t *testing.T) {
		box, db := open(t, outboxsql.Postgres)
		want := fillForRestore(t, box, db)
		var name string
		if err := db.QueryRow("SELECT current_database()").Scan(&name); err != nil {
			t.Fatal(err)
		}
		c := startCluster(t)
		dump := c.run(t, nil, "pg_dump", "-h", "127.0.0.1", "-p", "5432", "-U", "postgres", name)
		c.run(t, dump, "psql", "-q", "-v", "ON_ERROR_STOP=1", "-d", c.dsn())
		restored := outboxsql.New(outboxsql.Postgres)
		t.Cleanup(restored.Close)
		checkRestored(t, restored, sagadb.Pool(t, outboxsql.Postgres, c.dsn()), want)
	})
	t.Run("sqlite", func(t *testing.T) {
		box, db := open(t, outboxsql.SQLite)
		want := fillForRestore(t, box, db)
		copied := filepath.Join(t.TempDir(), "copy.db")
		if _, err := db.Exec("VACUUM INTO ?", copied); err != nil {
			t.Fatal(err)
		}
		restored := outboxsql.New(outboxsql.SQLite)
		t.Cleanup(restored.Close)
		checkRestored(t, restored, sagadb.Pool(t, outboxsql.SQLite, sagadb.SQLiteDSN(copied)), want)
	})
}

// A database that crashes and comes back loses nothing committed, and the relay goes on by itself.
func TestDatabaseCrash(t *testing.T) {
	c := startCluster(t)
	db := sagadb.Pool(t, outboxsql.Postgres, c.dsn())
	box := outboxsql.New(outboxsql.Postgres)
	if err := box.Migrate(t.Context(), db); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(box.Close)
	rec := &outboxtest.Recorder{}
	run(t, box.Source(db), rec, outbox.RelayConfig{Lease: time.Second})
	want := map[string][]string{}
	n := 0
	send := func(count int) {
		t.Helper()
		for i := range count {
			id, key := fmt.Sprint(n), fmt.Sprint("k", i%4)
			if err := box.InTx(t.Context(), db, func(tx *sql.Tx) error {
				return box.Enqueue(t.Context(), tx, outbox.Message{ID: id, Topic: "t", Key: key})
			}); err != nil {
				t.Fatal(err)
			}
			want[key] = append(want[key], id)
			n++
		}
	}
	for range 2 {
		send(100)
		c.stop(syscall.SIGQUIT)
		c.start(t)
		eventually(t, "the pool has a connection that works", func() bool { return db.PingContext(t.Context()) == nil })
		send(100)
	}
	firsts := func() map[string][]string {
		got, seen := map[string][]string{}, map[string]bool{}
		for _, m := range rec.Messages() {
			if !seen[m.ID] {
				seen[m.ID] = true
				got[m.Key] = append(got[m.Key], m.ID)
			}
		}
		return got
	}
	eventually(t, "all is delivered", func() bool {
		got := 0
		for _, ids := range firsts() {
			got += len(ids)
		}
		return got == n
	})
	for key, ids := range want {
		if got := firsts()[key]; !slices.Equal(got, ids) {
			t.Errorf("key %s: first deliveries: got %v, want %v", key, got, ids)
		}
	}
}

// Nothing in an enqueue forbids two-phase commit: NOTIFY in the transaction would. A prepared transaction is open, so the next message of its key does
// not overtake it, however long it takes to be committed.
func TestPrepareTransaction(t *testing.T) {
	c := startCluster(t, "max_prepared_transactions=5")
	db := sagadb.Pool(t, outboxsql.Postgres, c.dsn())
	box := outboxsql.New(outboxsql.Postgres)
	if err := box.Migrate(t.Context(), db); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(box.Close)
	rec := &outboxtest.Recorder{}
	const lag = 200 * time.Millisecond
	run(t, box.Source(db), rec, outbox.RelayConfig{Lag: lag, Sweep: time.Minute})
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	if err := box.Enqueue(t.Context(), tx, outbox.Message{ID: "prepared", Topic: "t", Key: "k"}); err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec("PREPARE TRANSACTION 'outbox-test'"); err != nil {
		t.Fatalf("PREPARE TRANSACTION: %v", err)
	}
	send := func(id, key string) {
		t.Helper()
		if err := box.InTx(t.Context(), db, func(tx *sql.Tx) error {
			return box.Enqueue(t.Context(), tx, outbox.Message{ID: id, Topic: "t", Key: key})
		}); err != nil {
			t.Fatal(err)
		}
	}
	n := 0
	for began := time.Now(); time.Since(began) < 4*lag; n++ {
		send(fmt.Sprint("other", n), "other")
		wait(t, rec, n+1)
	}
	if _, err := db.Exec("COMMIT PREPARED 'outbox-test'"); err != nil {
		t.Fatal(err)
	}
	send("next", "k")
	var got []string
	for _, m := range wait(t, rec, n+2) {
		if m.Key == "k" {
			got = append(got, m.ID)
		}
	}
	if want := []string{"prepared", "next"}; !slices.Equal(got, want) {
		t.Errorf("published: got %v, want %v", got, want)
	}
}

// A role that may not see InnoDB's transactions is told so once, and messages flow.
func TestWritersUnseen(t *testing.T) {
	dsn := sagadb.DSN(t, outboxsql.MySQL)
	db := sagadb.Pool(t, outboxsql.MySQL, dsn)
	box := outboxsql.New(outboxsql.MySQL)
	if err := box.Migrate(t.Context(), db); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(box.Close)
	var name string
	if err := db.QueryRow("SELECT database()").Scan(&name); err != nil {
		t.Fatal(err)
	}
	user := "plain_" + name[len(name)-12:] // of this test alone
	for _, host := range []string{"127.0.0.1", "localhost"} {
		account := "'" + user + "'@'" + host + "'"
		for _, q := range []string{"CREATE USER " + account + " IDENTIFIED BY 'plain'", "GRANT ALL ON `" + name + "`.* TO " + account} {
			if _, err := db.Exec(q); err != nil {
				t.Fatal(err)
			}
		}
		t.Cleanup(func() { db.Exec("DROP USER " + account) })
	}
	plain := sagadb.Pool(t, outboxsql.MySQL, user+":plain@tcp(127.0.0.1:3306)/"+url.PathEscape(name))
	source := box.Source(plain)
	if _, err := source.OldestWriter(t.Context()); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("OldestWriter without PROCESS: got %v, want ErrUnsupported", err)
	}
	rec := &outboxtest.Recorder{}
	run(t, source, rec, outbox.RelayConfig{})
	if err := box.InTx(context.Background(), plain, func(tx *sql.Tx) error { return box.Enqueue(t.Context(), tx, outbox.Message{Topic: "t"}) }); err != nil {
		t.Fatal(err)
	}
	wait(t, rec, 1)
}

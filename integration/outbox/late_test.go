package outbox_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/backstay-go/backstay/integration/saga/sagadb"
	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/outboxsql"
	"github.com/backstay-go/backstay/outbox/outboxtest"
)

// A transaction that stays open for many lags after its enqueue is not overtaken by the next message of its key, whose writer waited for its commit. Other
// keys flow meanwhile and move the relay's marks on.
func TestLateCommitKeepsOrder(t *testing.T) {
	sagadb.Each(t, func(t *testing.T, d outboxsql.Dialect) {
		if d == outboxsql.SQLite {
			t.Skip("skipped: SQLite has one writer at a time, so none commits late")
		}
		box, db := open(t, d)
		keepsOrder(t, box, db, func() func() { return func() {} })
	})
}

// Whoever watches a MySQL server asks for its transactions often, and with that keeps InnoDB from looking: the relay must not take what was for what is.
// Here each late transaction begins when the last thing that InnoDB tells is that nobody has written.
func TestLateCommitBesideMonitor(t *testing.T) {
	box, db := open(t, outboxsql.MySQL)
	writers := func() (n int) {
		if err := db.QueryRow("SELECT count(*) FROM information_schema.innodb_trx WHERE trx_rows_modified > 0").Scan(&n); err != nil {
			t.Error(err)
		}
		return n
	}
	keepsOrder(t, box, db, func() (end func()) {
		look := time.NewTicker(150 * time.Millisecond) // InnoDB looks when nobody has asked for 100 ms
		defer look.Stop()
		for writers() > 0 {
			<-look.C
		}
		stop, ended := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(ended)
			tick := time.NewTicker(10 * time.Millisecond)
			defer tick.Stop()
			for {
				writers()
				select {
				case <-stop:
					return
				case <-tick.C:
				}
			}
		}()
		return sync.OnceFunc(func() {
			close(stop)
			<-ended
		})
	})
}

// A source that only ever got old answers would keep the order too, and read everything each time.
func TestWritersSeen(t *testing.T) {
	box, db := open(t, outboxsql.MySQL)
	source := box.Source(db)
	eventually(t, "a new source knows that nobody has been open for an hour", func() bool {
		age, err := source.OldestWriter(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return age < time.Hour
	})
}

// Whoever asks InnoDB often sees what was, and so does a source that asks meanwhile: it must know that its answer is an old one, and not tell that the writer who
// is missing in it has gone.
func TestWritersNotFromCache(t *testing.T) {
	box, db := open(t, outboxsql.MySQL)
	source := box.Source(db)
	held, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	var thread int64
	if err := held.QueryRowContext(t.Context(), "SELECT CONNECTION_ID()").Scan(&thread); err != nil {
		t.Fatal(err)
	}
	cached := func() bool { // an answer from before the writer began
		var n int
		if err := db.QueryRowContext(t.Context(), "SELECT count(*) FROM information_schema.innodb_trx WHERE trx_mysql_thread_id = ?", thread).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n == 0
	}
	oldest := func() time.Duration {
		age, err := source.OldestWriter(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return age
	}
	meets := func() bool {
		eventually(t, "the source gets a new answer", func() bool { return oldest() < time.Second })
		defer keepAsking(t, db)()
		cached() // InnoDB has just looked, and looks again when nobody has asked for 100 ms
		tx, err := held.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer tx.Rollback()
		if err := box.Enqueue(t.Context(), tx, outbox.Message{Topic: "t", Key: "k"}); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		for time.Since(began) < 700*time.Millisecond { // longer than the source's pause and margin
			if !cached() {
				return false
			}
		}
		open := time.Since(began)
		age := oldest()
		if !cached() {
			return false
		}
		if age < open {
			t.Errorf("a writer has been open for %v: got %v", open, age)
		}
		return true
	}
	if _, err := db.Exec("CREATE PROCEDURE keep_asking(asking VARCHAR(64)) BEGIN DECLARE n INT;" +
		" WHILE IS_USED_LOCK(asking) IS NOT NULL DO SELECT count(*) INTO n FROM information_schema.innodb_trx; END WHILE; END"); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		if meets() {
			return
		}
	}
	t.Skip("skipped: this machine is too busy to ask InnoDB so often that it keeps an old answer")
}

// keepAsking has two sessions ask InnoDB for its transactions, within the server, where no way to it and back makes for a pause of 100 ms. They end with the returned
// function, or with the session that holds the lock they look at.
func keepAsking(t *testing.T, db *sql.DB) (end func()) {
	t.Helper()
	holder, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	lock := "asking_" + outbox.NewID()
	if _, err := holder.ExecContext(t.Context(), "DO GET_LOCK(?, 0)", lock); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 2 {
		all.Go(func() {
			if _, err := db.ExecContext(context.WithoutCancel(t.Context()), "CALL keep_asking(?)", lock); err != nil {
				t.Error(err)
			}
		})
	}
	return func() {
		if _, err := holder.ExecContext(context.WithoutCancel(t.Context()), "DO RELEASE_LOCK(?)", lock); err != nil {
			t.Error(err)
		}
		holder.Close()
		all.Wait()
	}
}

// keepsOrder has transactions commit late, one after the other. begin is called before each, and what it returns when the next message is published, perhaps twice.
func keepsOrder(t *testing.T, box *outboxsql.Box, db *sql.DB, begin func() (end func())) {
	t.Helper()
	rec := &outboxtest.Recorder{}
	const lag = 200 * time.Millisecond
	relay := run(t, box.Source(db), rec, outbox.RelayConfig{Lag: lag, Sweep: time.Minute, MaxPoll: 20 * time.Millisecond})
	n := 0
	send := func(m outbox.Message) {
		t.Helper()
		if err := box.InTx(t.Context(), db, func(tx *sql.Tx) error { return box.Enqueue(t.Context(), tx, m) }); err != nil {
			t.Fatal(err)
		}
		n++
	}
	for round := range 3 {
		key := fmt.Sprint("late", round)
		end := begin()
		defer end()
		late, err := db.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer late.Rollback()
		if err := box.Enqueue(t.Context(), late, outbox.Message{ID: key + "-1", Topic: "t", Key: key}); err != nil {
			t.Fatal(err)
		}
		for began := time.Now(); time.Since(began) < 5*lag; {
			send(outbox.Message{Topic: "t", Key: "other"})
			wait(t, rec, n)
		}
		if err := late.Commit(); err != nil {
			t.Fatal(err)
		}
		n++
		send(outbox.Message{ID: key + "-2", Topic: "t", Key: key})
		published := wait(t, rec, n)
		end()
		var got []string
		for _, m := range published {
			if m.Key == key {
				got = append(got, m.ID)
			}
		}
		if len(got) != 2 || got[0] != key+"-1" {
			t.Errorf("published: got %v, want the late one first", got)
		}
	}
	if s := relay.Stats(); s.Rescued != 0 {
		t.Logf("rescued: %d", s.Rescued)
	}
}

// besideWriter makes an outbox with a transaction in which m is enqueued, and which is open until the test ends.
func besideWriter(t *testing.T, d outboxsql.Dialect, m outbox.Message) (*outboxsql.Box, *sql.DB, *sql.Tx) {
	t.Helper()
	if d == outboxsql.SQLite {
		t.Skip("skipped: SQLite has one writer at a time")
	}
	box, db := open(t, d)
	held, err := db.BeginTx(context.WithoutCancel(t.Context()), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { held.Rollback() })
	if err := box.Enqueue(t.Context(), held, m); err != nil {
		t.Fatal(err)
	}
	return box, db, held
}

// What is published is deleted while a transaction with a message of its own is open: the delete must not look at its row, and wait.
func TestDeleteBesideOpenWriter(t *testing.T) {
	sagadb.Each(t, func(t *testing.T, d outboxsql.Dialect) {
		box, db, _ := besideWriter(t, d, outbox.Message{Topic: "t", Key: "open"})
		batch := make([]outbox.Message, 100) // for a few rows MariaDB would use the index by itself
		for i := range batch {
			batch[i] = outbox.Message{Topic: "t", Key: fmt.Sprint("k", i)}
		}
		if err := box.InTx(t.Context(), db, func(tx *sql.Tx) error { return box.Enqueue(t.Context(), tx, batch...) }); err != nil {
			t.Fatal(err)
		}
		run(t, box.Source(db), &outboxtest.Recorder{}, outbox.RelayConfig{})
		eventually(t, "all are deleted", func() bool {
			var n int
			if err := db.QueryRow("SELECT count(*) FROM outbox").Scan(&n); err != nil {
				t.Fatal(err)
			}
			return n == 0
		})
	})
}

// A key of many messages is parked, listed as dead, and let go of again while a transaction with messages of its own is open. Each of these deletes by a list
// of numbers, and must not look at the open rows, and wait.
func TestParkBesideOpenWriter(t *testing.T) {
	sagadb.Each(t, func(t *testing.T, d outboxsql.Dialect) {
		box, db, held := besideWriter(t, d, outbox.Message{Topic: "t", Key: "open"})
		batch := make([]outbox.Message, 100)
		for i := range batch {
			batch[i] = outbox.Message{Topic: "t", Key: "k"}
		}
		if err := box.InTx(t.Context(), db, func(tx *sql.Tx) error { return box.Enqueue(t.Context(), tx, batch...) }); err != nil {
			t.Fatal(err)
		}
		run(t, box.Source(db), outbox.PublisherFunc(func(_ context.Context, batch []*outbox.Message, result []error) {
			for i := range batch {
				result[i] = outbox.Permanent(errors.New("poison"))
			}
		}), outbox.RelayConfig{Poison: outbox.ParkKey})
		var dead []outbox.DeadLetter
		eventually(t, "the key is parked", func() bool {
			var err error
			if dead, err = box.DeadLetters(t.Context(), db, outbox.DeadFilter{}); err != nil {
				t.Fatal(err)
			}
			return len(dead) == len(batch)
		})
		// A dead letter of another transaction: a park or a replay under way.
		if _, err := held.Exec("INSERT INTO outbox_dead (id, part, msg_id, topic, msg_key, content_type, headers, payload, created_at, expires_at, reason, attempts, holds, parked_at)" +
			" VALUES (1000000, 1, 'x', 't', 'open', '', '', '', 0, 0, '', 0, true, 0)"); err != nil {
			t.Fatal(err)
		}
		if n, err := box.Discard(within(t, 5*time.Second), db, outbox.DeadFilter{Key: "k"}); err != nil || n != len(batch) {
			t.Errorf("Discard: got %d, %v, want %d", n, err, len(batch))
		}
	})
}

// A message that has come due is moved while a transaction with one that is due as well is open.
func TestDueBesideOpenWriter(t *testing.T) {
	sagadb.Each(t, func(t *testing.T, d outboxsql.Dialect) {
		box, db, _ := besideWriter(t, d, outbox.Message{Topic: "t", Key: "open", Delay: time.Microsecond})
		batch := make([]outbox.Message, 100)
		for i := range batch {
			batch[i] = outbox.Message{Topic: "t", Key: "k", Delay: time.Duration(i+1) * time.Microsecond}
		}
		if err := box.InTx(t.Context(), db, func(tx *sql.Tx) error { return box.Enqueue(t.Context(), tx, batch...) }); err != nil {
			t.Fatal(err)
		}
		ctx := within(t, 5*time.Second)
		for moved := 0; moved < len(batch); {
			got, err := box.Source(db).Tend(ctx, 1000, 0)
			if err != nil {
				t.Fatalf("moved %d of %d: %v", moved, len(batch), err)
			}
			moved += got.Due
		}
	})
}

// Leases are renewed, taken and given back while a transaction under another relay's lease is open, as one is whose relay is frozen while it writes
// dead letters.
func TestLeaseBesideOpenSettlement(t *testing.T) {
	sagadb.Each(t, func(t *testing.T, d outboxsql.Dialect) {
		if d == outboxsql.SQLite {
			t.Skip("skipped: SQLite has one writer at a time")
		}
		box, db := open(t, d)
		source := box.Source(db)
		ctx := within(t, 20*time.Second) // less than innodb_lock_wait_timeout
		request := outbox.LeaseRequest{Relay: "a", TTL: time.Minute}
		got, err := source.Lease(ctx, request)
		if err != nil || len(got.Held) != 16 {
			t.Fatalf("got %d leases, %v, want 16", len(got.Held), err)
		}
		if _, err := db.Exec("UPDATE outbox_lease SET owner = 'frozen' WHERE part = 15"); err != nil {
			t.Fatal(err)
		}
		held, err := db.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer held.Rollback()
		if _, err := held.Exec("SELECT part FROM outbox_lease WHERE part = 15 FOR UPDATE"); err != nil {
			t.Fatal(err)
		}
		request.Held = nil
		for _, h := range got.Held[:15] {
			request.Held = append(request.Held, h.Lease)
		}
		if got, err = source.Lease(ctx, request); err != nil || len(got.Held) != 15 {
			t.Fatalf("renewed %d leases, %v, want 15", len(got.Held), err)
		}
		request.Leave = true
		if _, err := source.Lease(ctx, request); err != nil {
			t.Fatalf("leave: %v", err)
		}
		if got, err = source.Lease(ctx, outbox.LeaseRequest{Relay: "b", TTL: time.Minute}); err != nil || len(got.Held) != 15 {
			t.Fatalf("took %d leases, %v, want 15", len(got.Held), err)
		}
	})
}

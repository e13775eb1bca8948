package outbox_test

import (
	"database/sql"
	"fmt"
	"testing"
	"time"

	"github.com/backstay-go/backstay/integration/saga/sagadb"
	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/outboxsql"
	"github.com/backstay-go/backstay/outbox/outboxtest"
)

// Above 10,000 the gauges are an estimate, and asking costs no more than at 10,000.
func TestGaugesOfManyRows(t *testing.T) {
	sagadb.Each(t, func(t *testing.T, d outboxsql.Dialect) {
		box, db := open(t, d)
		batch := make([]outbox.Message, 30_000)
		for i := range batch {
			batch[i] = outbox.Message{Topic: "t", Key: fmt.Sprint(i)}
		}
		if err := box.InTx(t.Context(), db, func(tx *sql.Tx) error { return box.Enqueue(t.Context(), tx, batch...) }); err != nil {
			t.Fatal(err)
		}
		var g outbox.Gauges
		eventually(t, "the database knows of most of 30,000 rows", func() bool { // its statistics lag behind
			var err error
			if g, err = box.Gauges(t.Context(), db); err != nil {
				t.Fatal(err)
			}
			if g.Waiting <= 10_000 {
				t.Fatalf("waiting: got %d, want more than 10,000", g.Waiting)
			}
			return d == outboxsql.MySQL || g.Waiting >= 20_000 // MySQL may keep its statistics for a day
		})
		if g.Waiting > 60_000 || g.Oldest <= 0 {
			t.Errorf("got %+v, want some 30,000 waiting and an age", g)
		}
		if _, err := db.Exec("DELETE FROM outbox"); err != nil {
			t.Fatal(err)
		}
		eventually(t, "nothing waits, and PostgreSQL knows of dead rows", func() bool {
			var err error
			if g, err = box.Gauges(t.Context(), db); err != nil {
				t.Fatal(err)
			}
			if g.Waiting != 0 || g.Oldest != 0 {
				t.Fatalf("after the delete: got %+v, want nothing waiting", g)
			}
			return d != outboxsql.Postgres || g.DeadTuples >= 30_000
		})
		if d != outboxsql.Postgres && g.DeadTuples != -1 {
			t.Errorf("dead tuples: got %d, want -1, unknown", g.DeadTuples)
		}
	})
}

// eventually asks cond until it is true, for 20 s at the most.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(20 * time.Second)
	for !cond() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

// A consumer's counts are those of all its inboxes of one box.
func TestInboxStats(t *testing.T) {
	sagadb.Each(t, func(t *testing.T, d outboxsql.Dialect) {
		box, db := open(t, d)
		nothing := func(*sql.Tx) error { return nil }
		for range 3 {
			if err := box.Inbox("c").Handle(t.Context(), db, "m", nothing); err != nil {
				t.Fatal(err)
			}
		}
		if err := box.InTx(t.Context(), db, func(tx *sql.Tx) error {
			_, err := box.Inbox("c").Once(t.Context(), tx, "m")
			return err
		}); err != nil {
			t.Fatal(err)
		}
		if got, want := box.Inbox("c").Stats(), (outbox.InboxStats{Handled: 1, Duplicates: 3}); got != want {
			t.Errorf("c: got %+v, want %+v", got, want)
		}
		if got := box.Inbox("d").Stats(); got != (outbox.InboxStats{}) {
			t.Errorf("d: got %+v, want nothing", got)
		}
	})
}

// A relay's Stats show what the source says, asked anew each RelayConfig.Gauge.
func TestStatsShowGauges(t *testing.T) {
	box, db := open(t, outboxsql.Postgres)
	relay := run(t, box.Source(db), &outboxtest.Recorder{}, outbox.RelayConfig{Gauge: 10 * time.Millisecond})
	if err := box.InTx(t.Context(), db, func(tx *sql.Tx) error {
		return box.Enqueue(t.Context(), tx, outbox.Message{Topic: "t", Delay: time.Hour})
	}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "one message is scheduled", func() bool {
		g := relay.Stats().Gauges
		return g.Scheduled == 1 && !g.At.IsZero()
	})
}

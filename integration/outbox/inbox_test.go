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
)

func count(t *testing.T, db *sql.DB, query string) (n int) {
	t.Helper()
	if err := db.QueryRow(query).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func withEffects(t *testing.T, d outboxsql.Dialect) (*outboxsql.Box, *sql.DB) {
	t.Helper()
	box, db := open(t, d)
	if _, err := db.Exec("CREATE TABLE effects (i int)"); err != nil {
		t.Fatal(err)
	}
	return box, db
}

// A message delivered to eight handlers at once has one effect and sends one message on; nobody gets an error.
func TestInboxOnce(t *testing.T) {
	sagadb.Each(t, func(t *testing.T, d outboxsql.Dialect) {
		box, db := withEffects(t, d)
		var all sync.WaitGroup
		for _, consumer := range []string{"billing", "shipping"} {
			for range 8 {
				all.Go(func() {
					for i := range 10 {
						err := box.Inbox(consumer).Handle(t.Context(), db, fmt.Sprint("m", i), func(tx *sql.Tx) error {
							if _, err := tx.Exec("INSERT INTO effects VALUES (1)"); err != nil {
								return err
							}
							return box.Enqueue(t.Context(), tx, outbox.Message{Topic: "done"})
						})
						if err != nil {
							t.Errorf("Handle: got %v, want nil", err)
						}
					}
				})
			}
		}
		all.Wait()
		if got := count(t, db, "SELECT count(*) FROM effects"); got != 20 {
			t.Errorf("effects: got %d, want 10 for each of two consumers", got)
		}
		if got := count(t, db, "SELECT count(*) FROM outbox"); got != 20 {
			t.Errorf("messages sent on: got %d, want 20", got)
		}
	})
}

// A handler that fails leaves no note: the message is handled when it comes again.
func TestInboxFailure(t *testing.T) {
	sagadb.Each(t, func(t *testing.T, d outboxsql.Dialect) {
		box, db := withEffects(t, d)
		in := box.Inbox("billing")
		failed := errors.New("no")
		for _, want := range []error{failed, nil, nil} {
			err := in.Handle(t.Context(), db, "m", func(tx *sql.Tx) error {
				if _, err := tx.Exec("INSERT INTO effects VALUES (1)"); err != nil {
					return err
				}
				return want
			})
			if !errors.Is(err, want) {
				t.Errorf("Handle: got %v, want %v", err, want)
			}
		}
		if got := count(t, db, "SELECT count(*) FROM effects"); got != 1 {
			t.Errorf("effects: got %d, want 1", got)
		}
		if err := in.Handle(t.Context(), db, "bad\x00id", func(*sql.Tx) error { return nil }); !errors.Is(err, outboxsql.ErrInboxID) {
			t.Errorf("a bad id: got %v, want ErrInboxID", err)
		}
		tx, err := db.Begin()
		if err != nil {
			t.Fatal(err)
		}
		defer tx.Rollback()
		for id, want := range map[string]bool{"m": true, "n": false} {
			if got, err := in.Once(t.Context(), tx, id); err != nil || got != want {
				t.Errorf("Once(%s): got %v, %v, want %v", id, got, err, want)
			}
		}
	})
}

// Old notes are forgotten in chunks while handling goes on, and a message that comes after its note is gone is handled again.
func TestInboxPurge(t *testing.T) {
	sagadb.Each(t, func(t *testing.T, d outboxsql.Dialect) {
		box, db := withEffects(t, d)
		in := box.Inbox("billing")
		handle := func(id string) {
			t.Helper()
			if err := in.Handle(t.Context(), db, id, func(tx *sql.Tx) error { _, err := tx.Exec("INSERT INTO effects VALUES (1)"); return err }); err != nil {
				t.Fatal(err)
			}
		}
		tx, err := db.Begin()
		if err != nil {
			t.Fatal(err)
		}
		for i := range 2500 {
			if _, err := in.Once(t.Context(), tx, fmt.Sprintf("old-%04d", i)); err != nil {
				t.Fatal(err)
			}
		}
		if err := tx.Commit(); err != nil {
			t.Fatal(err)
		}
		if _, err := db.Exec("UPDATE inbox SET seen_at = seen_at - 3600000000"); err != nil {
			t.Fatal(err)
		}
		handle("new")
		if d != outboxsql.SQLite { // which has one writer at a time
			open, err := db.Begin()
			if err != nil {
				t.Fatal(err)
			}
			defer open.Rollback()
			if _, err := in.Once(t.Context(), open, "open"); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second) // not until the open transaction has ended
		defer cancel()
		if n, err := in.Purge(ctx, db, 30*time.Minute); err != nil || n != 2500 {
			t.Errorf("Purge: got %d, %v, want 2500", n, err)
		}
		handle("new")
		handle("old-0001")
		if got := count(t, db, "SELECT count(*) FROM effects"); got != 2 {
			t.Errorf("effects: got %d, want one of the new and one of the forgotten", got)
		}
	})
}

package orders

import (
	"errors"
	"sync"
	"testing"

	"github.com/backstay-go/backstay/examples/shop/internal/store"
	"github.com/backstay-go/backstay/outbox/outboxsql"
	"github.com/backstay-go/backstay/saga"
	"github.com/backstay-go/backstay/saga/sagasql"
)

// However a poison event comes, is parked and is discarded while the books are read, none is parked that was not stored.
func TestParkedWasStored(t *testing.T) {
	db, err := store.Open(t.Context(), "orders", t.TempDir(), "", schema)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	s := &shop{db: db, store: sagasql.New(db.DB, db.Dialect), box: outboxsql.New(db.Dialect, outboxsql.Config{})}
	defer s.store.Close()
	defer s.box.Close()
	if err := errors.Join(sagasql.Migrate(t.Context(), db.DB, db.Dialect), s.box.Migrate(t.Context(), db.DB)); err != nil {
		t.Fatal(err)
	}
	s.engine = saga.New(s.store)
	park := func() error { // as the relay does, in one transaction
		tx, err := db.BeginTx(t.Context(), nil)
		if err != nil {
			return err
		}
		defer tx.Rollback()
		if _, err := tx.ExecContext(t.Context(), parkAll); err != nil {
			return err
		}
		if _, err := tx.ExecContext(t.Context(), "DELETE FROM outbox"); err != nil {
			return err
		}
		return tx.Commit()
	}
	const rounds = 150
	var work sync.WaitGroup
	stop := make(chan struct{})
	work.Go(func() {
		defer close(stop)
		for range rounds {
			if err := errors.Join(s.poison(t.Context(), true), park(), s.poison(t.Context(), false)); err != nil {
				t.Error(err)
				return
			}
		}
	})
	parked := 0
	for over := false; !over; {
		select {
		case <-stop:
			over = true
		default:
		}
		got, err := s.totals(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if got.Parked > got.Stored {
			t.Fatalf("got %d parked of %d stored", got.Parked, got.Stored)
		}
		parked += int(got.Parked)
	}
	work.Wait()
	if parked == 0 {
		t.Error("no reading fell between the parking and the discarding: nothing was tested")
	}
}

// parkAll moves all messages to the dead letters.
const parkAll = `INSERT INTO outbox_dead (part, id, msg_id, topic, msg_key, content_type, headers, payload, created_at, expires_at, reason, attempts, holds, parked_at)
	SELECT part, id, msg_id, topic, msg_key, content_type, headers, payload, created_at, expires_at, 'a test', 1, 0, created_at FROM outbox`

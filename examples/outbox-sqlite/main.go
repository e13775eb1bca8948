// Outbox-sqlite places ten orders, two of which fail, and publishes an event for each that was committed: the message is a row of the same
// transaction. Everything is in one file, in a temporary directory.
package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"time"

	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/outboxsql"
	_ "modernc.org/sqlite"
)

func main() {
	if err := run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "outbox")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, "shop.db")+"?_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_txlock=immediate")
	if err != nil {
		return err
	}
	defer db.Close()
	if _, err := db.ExecContext(ctx, "CREATE TABLE orders (id TEXT PRIMARY KEY, cents INTEGER CHECK (cents > 0))"); err != nil {
		return err
	}
	box := outboxsql.New(outboxsql.SQLite)
	if err := box.Migrate(ctx, db); err != nil {
		return err
	}

	// The relay. A broker's publisher goes here: natspub, kafkapub, amqppub, redispub, webhookpub.
	published := make(chan string, 10)
	relay := outbox.NewRelay(box.Source(db), outbox.PublisherFunc(func(_ context.Context, batch []*outbox.Message, result []error) {
		for i, m := range batch {
			published <- m.Topic + ": " + string(m.Payload)
			result[i] = nil // confirmed: its row is deleted
		}
	}), outbox.RelayConfig{})
	ended := make(chan error, 1)
	go func() { ended <- relay.Run(ctx) }()

	placed := 0
	for i := range 10 {
		id, cents := fmt.Sprint("order-", i), 100*i
		if i == 7 {
			cents = 0 // as order 0: the database refuses it
		}
		err := box.InTx(ctx, db, func(tx *sql.Tx) error {
			// The event first, to show that it goes with the transaction.
			event := outbox.Message{Topic: "order-placed", Key: "customer-1", Payload: fmt.Appendf(nil, "%s for %d cents", id, cents)}
			if err := box.Enqueue(ctx, tx, event); err != nil {
				return err
			}
			_, err := tx.ExecContext(ctx, "INSERT INTO orders VALUES (?, ?)", id, cents)
			return err
		})
		if err == nil {
			placed++
		}
	}
	for range placed {
		select {
		case event := <-published:
			fmt.Println(event)
		case <-time.After(10 * time.Second):
			return errors.New("an event is missing")
		}
	}
	fmt.Println(placed, "orders placed, as many events")

	stop, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return errors.Join(relay.Shutdown(stop), <-ended)
}

// Inbox-nats sends 50 orders from a shop's database through NATS JetStream to a billing service with a database of its own. Each message is delivered
// more than once, because a third of the acknowledgements is thrown away, and billing fails now and then; every order is charged once.
//
// Both databases are SQLite files in a temporary directory, and the NATS server runs inside the program.
package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/consumer"
	"github.com/backstay-go/backstay/outbox/natspub"
	"github.com/backstay-go/backstay/outbox/outboxsql"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	_ "modernc.org/sqlite"
)

const orders = 50

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	dir, err := os.MkdirTemp("", "inbox-nats")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()

	js, stop, err := startNATS(ctx, dir)
	if err != nil {
		return err
	}
	defer stop()
	shop, err := open(ctx, filepath.Join(dir, "shop.db"), `CREATE TABLE orders (id INTEGER PRIMARY KEY, customer TEXT, cents INTEGER)`)
	if err != nil {
		return err
	}
	defer shop.Close()
	billing, err := open(ctx, filepath.Join(dir, "billing.db"), `CREATE TABLE charges (order_id INTEGER, cents INTEGER)`)
	if err != nil {
		return err
	}
	defer billing.Close()

	// The shop's relay: from its outbox to the stream.
	box := outboxsql.New(outboxsql.SQLite)
	publisher := natspub.New(js, natspub.Config{Topics: []string{"orders"}})
	defer publisher.Close()
	var background sync.WaitGroup
	serving, end := context.WithCancel(ctx)
	defer background.Wait()
	defer end()
	relay := outbox.NewRelay(box.Source(shop), publisher, outbox.RelayConfig{})
	background.Go(func() {
		if err := relay.Run(serving); err != nil {
			log.Print("relay: ", err)
		}
	})

	// Billing's consumer: from the stream to its database.
	var deliveries, failures atomic.Int64
	inbox := outboxsql.New(outboxsql.SQLite).Inbox("billing")
	from, err := js.CreateConsumer(ctx, "orders", jetstream.ConsumerConfig{Durable: "billing", AckPolicy: jetstream.AckExplicitPolicy, AckWait: time.Second})
	if err != nil {
		return err
	}
	charge := func(ctx context.Context, m *outbox.Message) error {
		n := deliveries.Add(1)
		err := inbox.Handle(ctx, billing, m.ID, func(tx *sql.Tx) error {
			if _, err := tx.ExecContext(ctx, `INSERT INTO charges VALUES (?, ?)`, m.Headers["order"], string(m.Payload)); err != nil {
				return err
			}
			if n%7 == 0 {
				return errors.New("the card's bank does not answer") // the charge and the inbox's note roll back together
			}
			return nil
		})
		if err != nil {
			failures.Add(1)
		}
		return err
	}
	background.Go(func() {
		if err := natspub.Consume(serving, lossy{from}, consumer.Config{Wait: 5 * time.Millisecond}, charge); err != nil {
			log.Print("consumer: ", err)
		}
	})

	// The shop's business: an order and its message in one transaction.
	for i := range orders {
		err := box.InTx(ctx, shop, func(tx *sql.Tx) error {
			customer, cents := fmt.Sprintf("customer-%d", i%5), 100*(i+1)
			if _, err := tx.ExecContext(ctx, `INSERT INTO orders VALUES (?, ?, ?)`, i+1, customer, cents); err != nil {
				return err
			}
			return box.Enqueue(ctx, tx, outbox.Message{
				Topic: "orders", Key: customer, Payload: []byte(strconv.Itoa(cents)), Headers: map[string]string{"order": strconv.Itoa(i + 1)},
			})
		})
		if err != nil {
			return err
		}
	}

	if err := settled(ctx, js); err != nil {
		return err
	}
	var charged, distinct, cents int
	if err := billing.QueryRowContext(ctx, `SELECT count(*), count(DISTINCT order_id), sum(cents) FROM charges`).Scan(&charged, &distinct, &cents); err != nil {
		return err
	}
	fmt.Printf("orders placed        %d\n", orders)
	fmt.Printf("deliveries           %d, %d of them failed\n", deliveries.Load(), failures.Load())
	fmt.Printf("orders charged       %d, %d of them different, %d cents in all\n", charged, distinct, cents)
	if want := 100 * orders * (orders + 1) / 2; charged != orders || distinct != orders || cents != want {
		return fmt.Errorf("want %d charges, all different, and %d cents", orders, want)
	}
	return nil
}

func open(ctx context.Context, file, schema string) (*sql.DB, error) {
	db, err := sql.Open("sqlite", "file:"+file+"?_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_txlock=immediate")
	if err != nil {
		return nil, err
	}
	if _, err := db.ExecContext(ctx, schema); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	if err := outboxsql.New(outboxsql.SQLite).Migrate(ctx, db); err != nil { // the tables of outbox and inbox
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

// startNATS runs a server with JetStream inside the program, with one stream.
func startNATS(ctx context.Context, dir string) (jetstream.JetStream, func(), error) {
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: -1, JetStream: true, StoreDir: filepath.Join(dir, "nats"), NoLog: true, NoSigs: true})
	if err != nil {
		return nil, nil, err
	}
	s.Start()
	stop := func() {
		s.Shutdown()
		s.WaitForShutdown()
	}
	if !s.ReadyForConnections(10 * time.Second) {
		stop()
		return nil, nil, errors.New("the NATS server does not come up")
	}
	nc, err := nats.Connect(s.ClientURL(), nats.MaxReconnects(-1))
	if err != nil {
		stop()
		return nil, nil, err
	}
	js, err := jetstream.New(nc)
	if err == nil {
		_, err = js.CreateStream(ctx, jetstream.StreamConfig{Name: "orders", Subjects: []string{"orders"}})
	}
	if err != nil {
		nc.Close()
		stop()
		return nil, nil, err
	}
	return js, func() { nc.Close(); stop() }, nil
}

// settled waits until the stream holds every order and every message of it is acknowledged.
func settled(ctx context.Context, js jetstream.JetStream) error {
	for {
		c, err := js.Consumer(ctx, "orders", "billing")
		if err != nil {
			return err
		}
		info := c.CachedInfo()
		if info.AckFloor.Stream == orders && info.NumPending == 0 && info.NumAckPending == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

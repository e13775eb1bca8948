// Outbox-postgres runs three relays against one PostgreSQL while orders of eight customers come in, stops one in the middle, and shows that
// every customer's events arrive in order, with how long they took from the commit.
//
//	go run ./outbox-postgres -dsn postgres://postgres@127.0.0.1:5432/postgres
//
// It makes a schema of its own and drops it at the end.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"slices"
	"sync"
	"time"

	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/outboxpgx"
	"github.com/backstay-go/backstay/outbox/outboxsql"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

func main() {
	dsn := flag.String("dsn", "postgres://postgres@127.0.0.1:5432/postgres", "the database")
	flag.Parse()
	if err := run(context.Background(), *dsn); err != nil {
		log.Fatal(err)
	}
}

// broker stands for a real one: it notes what came, when.
type broker struct {
	mu   sync.Mutex
	seen map[string][]int // by customer
	at   map[string]time.Time
}

func (b *broker) Publish(_ context.Context, batch []*outbox.Message, result []error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, m := range batch {
		if _, again := b.at[m.ID]; !again { // as an inbox would recognise it
			var n int
			_, _ = fmt.Sscan(string(m.Payload), &n)
			b.at[m.ID] = time.Now()
			b.seen[m.Key] = append(b.seen[m.Key], n)
		}
		result[i] = nil
	}
}

func run(ctx context.Context, dsn string) error {
	pool, err := pgxpool.New(ctx, dsn)
	if err != nil {
		return err
	}
	defer pool.Close()
	const schema = "backstay_outbox_example"
	if _, err := pool.Exec(ctx, "DROP SCHEMA IF EXISTS "+schema+" CASCADE; CREATE SCHEMA "+schema); err != nil {
		return err
	}
	defer func() {
		_, _ = pool.Exec(ctx, "DROP SCHEMA "+schema+" CASCADE; DELETE FROM backstay_schema WHERE component = 'outbox/"+schema+".outbox'")
	}()

	box := outboxpgx.New(outboxsql.Config{Table: schema + ".outbox", InboxTable: schema + ".inbox"})
	db := outboxpgx.DB(pool)
	defer db.Close()
	if err := box.SQL.Migrate(ctx, db); err != nil {
		return err
	}
	b := &broker{seen: map[string][]int{}, at: map[string]time.Time{}}
	var relays []*outbox.Relay
	ended := make(chan error, 3)
	for range 3 {
		r := outbox.NewRelay(box.Source(pool), b, outbox.RelayConfig{Lease: 2 * time.Second})
		relays = append(relays, r)
		go func() { ended <- r.Run(ctx) }()
	}

	const customers, orders = 8, 100
	committed := map[string]time.Time{}
	for n := range orders {
		for c := range customers {
			m := outbox.Message{ID: outbox.NewID(), Topic: "orders", Key: fmt.Sprint("customer-", c), Payload: fmt.Append(nil, n)}
			if err := box.InTx(ctx, pool, func(tx pgx.Tx) error { return box.Enqueue(ctx, tx, m) }); err != nil {
				return err
			}
			committed[m.ID] = time.Now()
		}
		if n == orders/2 {
			if err := relays[0].Shutdown(ctx); err != nil { // its partitions go to the others
				return err
			}
		}
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		b.mu.Lock()
		n := len(b.at)
		b.mu.Unlock()
		if n == customers*orders {
			break
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d of %d events arrived", n, customers*orders)
		}
	}
	for _, r := range relays[1:] {
		err = errors.Join(err, r.Shutdown(ctx))
	}
	for range relays {
		err = errors.Join(err, <-ended)
	}
	var took []time.Duration
	for id, at := range committed {
		took = append(took, b.at[id].Sub(at))
	}
	slices.Sort(took)
	for key, ns := range b.seen {
		if !slices.IsSorted(ns) {
			return fmt.Errorf("%s: out of order: %v", key, ns)
		}
	}
	fmt.Printf("%d events of %d customers, each customer's in order; from commit to broker: median %v, slowest %v\n",
		len(took), customers, took[len(took)/2].Round(10*time.Microsecond), took[len(took)-1].Round(10*time.Microsecond))
	return err
}

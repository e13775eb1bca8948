// Saga-postgres places orders with a saga in PostgreSQL: the saga starts in the
// transaction that inserts the order, one step works in the business database
// together with its record, and a refused card brings everything back.
//
//	go run ./examples/saga-postgres
//	go run ./examples/saga-postgres -dsn postgres://user@host/db
//
// It works in a schema of its own, which it drops at the end.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/backstay-go/backstay/saga"
	"github.com/backstay-go/backstay/saga/sagapgx"
)

type order struct {
	ID    string
	Item  string
	Cents int
}

type (
	hold   struct{ ID string }
	charge struct{ ID string }
)

var errDeclined = errors.New("card declined")

// placeOrder reserves, charges and confirms. The charge is the pivot: once the
// money has moved the order goes through.
var placeOrder = saga.Must(saga.Define("place-order", 1, func(b *saga.Builder[order]) {
	// The shelf is in the same database: effect and record are one commit.
	held := sagapgx.TxStep(b, "reserve", func(c *saga.Ctx, tx pgx.Tx, o order) (hold, error) {
		tag, err := tx.Exec(c, "UPDATE shelf SET free = free - 1 WHERE item = $1 AND free > 0", o.Item)
		if err == nil && tag.RowsAffected() == 0 {
			err = saga.Fail(errors.New("sold out"))
		}
		return hold{"hold-" + o.ID}, err
	}).CompensateTx(func(c *saga.Ctx, tx pgx.Tx, o order, _ saga.Result[hold]) error {
		_, err := tx.Exec(c, "UPDATE shelf SET free = free + 1 WHERE item = $1", o.Item)
		return err
	})
	// The card is somebody else's: the key makes a repeated request harmless.
	paid := saga.Step(b, "charge", func(c *saga.Ctx, o order) (charge, error) {
		return chargeCard(c, c.Key(), held.Get(c).ID, o.Cents)
	}, saga.Needs(held), saga.Timeout(5*time.Second), saga.Attempts(4)).Pivot()
	sagapgx.TxStep(b, "confirm", func(c *saga.Ctx, tx pgx.Tx, o order) (struct{}, error) {
		_, err := tx.Exec(c, "UPDATE orders SET state = 'confirmed', charge = $1 WHERE id = $2", paid.Get(c).ID, o.ID)
		return struct{}{}, err
	}, saga.Needs(paid)).Retriable()
}))

// chargeCard stands for a call over the network.
func chargeCard(_ context.Context, key, _ string, cents int) (charge, error) {
	if cents > 10_000 {
		return charge{}, saga.Fail(errDeclined)
	}
	return charge{"charge-" + key[len(key)-6:]}, nil
}

func main() {
	dsn := flag.String("dsn", "postgres://postgres@127.0.0.1:5432/postgres?sslmode=disable", "where PostgreSQL is")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, *dsn)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "saga-postgres:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, dsn string) (err error) {
	pool, drop, err := open(ctx, dsn)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, drop()) }()

	store := sagapgx.New(pool)
	defer store.Close()
	engine := saga.New(store, saga.Register(placeOrder), saga.Config{Poll: 50 * time.Millisecond})
	running, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- engine.Run(running) }()
	defer func() { stop(); err = errors.Join(err, <-ended) }()

	for _, o := range []order{{"1", "lamp", 4_500}, {"2", "lamp", 25_000}, {"3", "lamp", 3_000}} {
		h, err := place(ctx, pool, store, o)
		if err != nil {
			return err
		}
		err = engine.Wait(ctx, h.ID)
		switch {
		case errors.Is(err, errDeclined):
			fmt.Printf("order %s: undone: %v\n", o.ID, errDeclined)
		case err != nil:
			return err
		default:
			fmt.Printf("order %s: confirmed\n", o.ID)
		}
	}
	var free, confirmed int
	if err := pool.QueryRow(ctx, "SELECT (SELECT free FROM shelf), (SELECT COUNT(*) FROM orders WHERE state = 'confirmed')").Scan(&free, &confirmed); err != nil {
		return err
	}
	fmt.Printf("shown: %d of 3 orders confirmed, %d of 10 lamps left: the declined order gave its lamp back\n", confirmed, free)
	return nil
}

// place inserts the order and starts its saga in one transaction: there is
// never an order without a saga, nor a saga without an order.
func place(ctx context.Context, pool *pgxpool.Pool, store *sagapgx.Store, o order) (h saga.Handle, err error) {
	err = pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "INSERT INTO orders (id, state) VALUES ($1, 'new')", o.ID); err != nil {
			return err
		}
		h, err = placeOrder.Start(ctx, store.Tx(tx), "order-"+o.ID, o)
		return err
	})
	return h, err
}

// open connects, with a new schema for the tables of this run.
func open(ctx context.Context, dsn string) (*pgxpool.Pool, func() error, error) {
	cfg, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return nil, nil, err
	}
	schema := fmt.Sprintf("saga_example_%d", time.Now().UnixNano())
	cfg.ConnConfig.RuntimeParams["search_path"] = schema
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, nil, err
	}
	drop := func() error {
		_, err := pool.Exec(context.WithoutCancel(ctx), "DROP SCHEMA IF EXISTS "+schema+" CASCADE")
		pool.Close()
		return err
	}
	for _, stmt := range []string{
		"CREATE SCHEMA " + schema,
		"CREATE TABLE orders (id text PRIMARY KEY, state text NOT NULL, charge text)",
		"CREATE TABLE shelf (item text PRIMARY KEY, free int NOT NULL)",
		"INSERT INTO shelf VALUES ('lamp', 10)",
	} {
		if _, err := pool.Exec(ctx, stmt); err != nil {
			return nil, nil, errors.Join(err, drop())
		}
	}
	if err := sagapgx.Migrate(ctx, pool); err != nil { // in a service: with your migrations
		return nil, nil, errors.Join(err, drop())
	}
	return pool, drop, nil
}

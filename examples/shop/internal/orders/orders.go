// Package orders is the heart of the shop: it takes orders, carries each out as a saga over the other services, and publishes what became of it through its
// outbox.
package orders

import (
	"context"
	"database/sql"
	"encoding/json"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/backstay-go/backstay/examples/shop/internal/broker"
	"github.com/backstay-go/backstay/examples/shop/internal/link"
	"github.com/backstay-go/backstay/examples/shop/internal/notifications"
	"github.com/backstay-go/backstay/examples/shop/internal/service"
	pb "github.com/backstay-go/backstay/examples/shop/internal/shoppb"
	"github.com/backstay-go/backstay/examples/shop/internal/store"
	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/natspub"
	"github.com/backstay-go/backstay/outbox/outboxsql"
	"github.com/backstay-go/backstay/saga"
	"github.com/backstay-go/backstay/saga/guard"
	"github.com/backstay-go/backstay/saga/sagasql"
)

const schema = `
CREATE TABLE IF NOT EXISTS orders (id TEXT PRIMARY KEY, sku TEXT NOT NULL, quantity BIGINT NOT NULL, cents BIGINT NOT NULL, card TEXT NOT NULL, state TEXT NOT NULL, saga TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS orders_state ON orders (state, saga);
CREATE INDEX IF NOT EXISTS orders_saga ON orders (saga);
CREATE TABLE IF NOT EXISTS closing (no BIGINT PRIMARY KEY, order_id TEXT NOT NULL, state TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS tally (id BIGINT PRIMARY KEY, closings BIGINT NOT NULL, poison BIGINT NOT NULL);
INSERT INTO tally (id, closings, poison) VALUES (1, 0, 0) ON CONFLICT DO NOTHING`

// shop is the service.
type shop struct {
	host      *service.Host
	db        *store.DB
	store     *sagasql.Store
	engine    *saga.Engine
	place     *saga.Definition[Order]
	bring     *saga.Definition[Order]
	box       *outboxsql.Box
	relay     *outbox.Relay
	gate      *gate
	payments  pb.PaymentsClient
	inventory pb.InventoryClient
	carrier   *http.Client
	timelines timelines
}

// limits are those of the links. The saga repeats what fails here, so there is no point in trying for long.
var limits = link.Limits{Total: 2 * time.Second, Attempt: 600 * time.Millisecond}

// partitions is how many relays could share the outbox's work: there is one, and each look at the outbox costs less the fewer there are.
const partitions = 2

// Main runs the service.
func Main(ctx context.Context, h *service.Host) error {
	db, err := store.Open(ctx, h.Name, h.Data, h.Postgres, schema)
	if err != nil {
		return err
	}
	defer db.Close()
	s := &shop{host: h, db: db, store: sagasql.New(db.DB, db.Dialect), box: outboxsql.New(db.Dialect, outboxsql.Config{Partitions: partitions}), gate: &gate{}}
	defer s.store.Close()
	defer s.box.Close()
	if err := sagasql.Migrate(ctx, db.DB, db.Dialect); err != nil {
		return err
	}
	if err := s.box.Migrate(ctx, db.DB); err != nil {
		return err
	}

	pay, closePay, err := h.Link("payments", limits).Dial(h.Peers["payments"])
	if err != nil {
		return err
	}
	defer closePay()
	inv, closeInv, err := h.Link("inventory", limits).Dial(h.Peers["inventory"])
	if err != nil {
		return err
	}
	defer closeInv()
	s.payments, s.inventory = pb.NewPaymentsClient(pay), pb.NewInventoryClient(inv)
	s.carrier = h.Link("shipping", limits).HTTP()
	defer s.carrier.CloseIdleConnections()

	nc, js, err := broker.Connect(h.NATS, h.Name)
	if err != nil {
		return err
	}
	defer nc.Close()
	publisher := natspub.New(js, natspub.Config{AckWait: 2 * time.Second})
	defer publisher.Close()
	s.relay = outbox.NewRelay(s.box.Source(db.DB), publisher, outbox.RelayConfig{
		Name: h.Name, Lease: 2 * time.Second, PublishTimeout: 2 * time.Second, MaxBackoff: time.Second, DrainTimeout: 5 * time.Second, Policy: s.gate,
		OnParked: func(m *outbox.Message, reason string) {
			h.Feed.Bad("event %s went to the dead letters: %s", m.ID, reason)
		},
	})

	s.place, s.bring = s.placeOrder(), s.returnOrder()
	cfg := saga.Config{Lease: 2 * time.Second, Poll: 200 * time.Millisecond, InFlight: 5000, Grace: 2 * time.Second, Observer: watch(h.Feed)}
	if db.Dialect == guard.SQLite {
		cfg.Writers = 1
	}
	s.engine = saga.New(s.store, saga.Register(s.place, s.bring), cfg)

	s.control()
	h.Ready()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.engine.Run(ctx) })
	group.Go(func() error { return s.relay.Run(ctx) })
	group.Go(func() error { s.operate(ctx); return nil })
	group.Go(func() error { return h.ServeHTTP(ctx, s.routes()) })
	return group.Wait()
}

// publish writes an event about an order, in the transaction of what it tells.
func (s *shop) publish(ctx context.Context, tx *sql.Tx, id, kind string) error {
	payload, err := json.Marshal(notifications.Event{Order: id, Kind: kind})
	if err != nil {
		return err
	}
	return s.box.Enqueue(ctx, tx, outbox.Message{Topic: broker.Topic, Key: id, ContentType: "application/json", Payload: payload})
}

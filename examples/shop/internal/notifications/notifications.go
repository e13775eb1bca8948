// Package notifications is the service that tells customers what became of their orders: it handles each event once, by an inbox, however often the broker
// delivers it.
package notifications

import (
	"context"
	"database/sql"
	"encoding/json"
	"net/http"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/backstay-go/backstay/examples/shop/internal/books"
	"github.com/backstay-go/backstay/examples/shop/internal/broker"
	"github.com/backstay-go/backstay/examples/shop/internal/service"
	"github.com/backstay-go/backstay/examples/shop/internal/store"
	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/consumer"
	"github.com/backstay-go/backstay/outbox/natspub"
	"github.com/backstay-go/backstay/outbox/outboxsql"
)

// Event is what the orders service publishes.
type Event struct {
	Order string `json:"order"`
	Kind  string `json:"kind"` // "placed", or the state in which the order closed
}

const schema = `
CREATE TABLE IF NOT EXISTS mail (order_id TEXT NOT NULL, kind TEXT NOT NULL, n BIGINT NOT NULL);
CREATE INDEX IF NOT EXISTS mail_order ON mail (order_id)`

// Stats is what the service has done since it started.
type Stats struct {
	Duplicates int64 `json:"duplicates"` // deliveries of what had been handled
	Failures   int64 `json:"failures"`   // tries that failed
}

// Main runs the service.
func Main(ctx context.Context, h *service.Host) error {
	db, err := store.Open(ctx, h.Name, h.Data, h.Postgres, schema)
	if err != nil {
		return err
	}
	defer db.Close()
	box := outboxsql.New(db.Dialect)
	defer box.Close()
	if err := box.Migrate(ctx, db.DB); err != nil {
		return err
	}
	nc, js, err := broker.Connect(h.NATS, h.Name)
	if err != nil {
		return err
	}
	defer nc.Close()
	from, err := js.Consumer(ctx, broker.Stream, broker.Consumer)
	if err != nil {
		return err
	}
	m := &mailer{h: h, db: db, inbox: box.Inbox(h.Name)}
	books.Serve(h, db, "mail", "n")
	h.Control.HandleFunc("GET /stats", func(w http.ResponseWriter, _ *http.Request) {
		service.Answer(w, Stats{m.inbox.Stats().Duplicates, m.failures.Load()}, nil)
	})
	h.Ready()

	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return h.ServeHTTP(ctx, http.NotFoundHandler()) }) // it has an address, but nothing to ask for
	group.Go(func() error {
		for ctx.Err() == nil { // Consume ends when the broker has been away for long
			if err := h.Faults.Up(ctx); err != nil {
				break
			}
			err := natspub.Consume(ctx, leaky{from, h.Faults}, consumer.Config{Lanes: 8, MaxWait: time.Second, Grace: time.Second}, m.handle)
			if err != nil && ctx.Err() == nil {
				h.Feed.Warn("reading events anew: %v", err)
				wait(ctx, 500*time.Millisecond)
			}
		}
		return nil
	})
	return group.Wait()
}

type mailer struct {
	h        *service.Host
	db       *store.DB
	inbox    *outboxsql.Inbox
	failures atomic.Int64
}

// handle writes the mail and the inbox's note in one transaction.
func (m *mailer) handle(ctx context.Context, msg *outbox.Message) error {
	if err := m.h.Faults.Up(ctx); err != nil {
		return err
	}
	if err := m.h.Faults.Before(ctx); err != nil {
		m.failures.Add(1)
		return err
	}
	var e Event
	if err := json.Unmarshal(msg.Payload, &e); err != nil {
		return err
	}
	err := m.inbox.Handle(ctx, m.db.DB, msg.ID, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, m.db.Q("INSERT INTO mail (order_id, kind, n) VALUES (?, ?, 1)"), e.Order, e.Kind)
		return err
	})
	if err != nil {
		m.failures.Add(1)
	}
	return err
}

func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// leaky is a consumer whose acknowledgements get lost as the faults say, as when a connection breaks in that moment.
type leaky struct {
	jetstream.Consumer
	faults interface{ Lost() bool }
}

// Messages implements jetstream.Consumer.
func (l leaky) Messages(opts ...jetstream.PullMessagesOpt) (jetstream.MessagesContext, error) {
	messages, err := l.Consumer.Messages(opts...)
	return &leakyMessages{messages, l.faults}, err
}

type leakyMessages struct {
	jetstream.MessagesContext
	faults interface{ Lost() bool }
}

// Next implements jetstream.MessagesContext.
func (l *leakyMessages) Next(opts ...jetstream.NextOpt) (jetstream.Msg, error) {
	msg, err := l.MessagesContext.Next(opts...)
	if err == nil && l.faults.Lost() {
		return deaf{msg}, nil
	}
	return msg, err
}

type deaf struct{ jetstream.Msg }

// Ack implements jetstream.Msg, badly.
func (deaf) Ack() error { return nil }

package orders

import (
	"context"
	"database/sql"
	"errors"
	"net/http"
	"time"

	"github.com/backstay-go/backstay/examples/shop/internal/books"
	"github.com/backstay-go/backstay/examples/shop/internal/service"
	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/saga"
)

// Page asks for the closings after a number.
type Page struct {
	After int64 `json:"after"`
	Limit int   `json:"limit"`
}

// Outbox is how the outbox and its relay stand.
type Outbox struct {
	Oldest time.Duration `json:"oldest"` // age of the oldest message that is not published
	Depth  int           `json:"depth"`  // messages that are not published
	Paused bool          `json:"paused"` // by hand
}

// control is what the shop may ask and tell this service, beside what it may ask all.
func (s *shop) control() {
	s.host.Control.HandleFunc("GET /totals", func(w http.ResponseWriter, r *http.Request) {
		t, err := s.totals(r.Context())
		service.Answer(w, t, err)
	})
	service.Question(s.host.Control, "POST /closings", s.closings)
	s.host.Control.HandleFunc("GET /outbox", func(w http.ResponseWriter, r *http.Request) {
		g, err := s.box.Gauges(r.Context(), s.db.DB)
		service.Answer(w, Outbox{Oldest: g.Oldest, Depth: int(g.Waiting), Paused: s.gate.shut.Load()}, err)
	})
	s.host.Control.HandleFunc("GET /timelines", func(w http.ResponseWriter, r *http.Request) {
		t, err := s.shown(r.Context())
		service.Answer(w, t, err)
	})
	service.Question(s.host.Control, "POST /timeline", s.timeline)
	service.Question(s.host.Control, "POST /history", s.history)
	service.Take(s.host.Control, "PUT /paused", func(_ context.Context, on bool) error {
		s.gate.shut.Store(on)
		return nil
	})
	service.Take(s.host.Control, "PUT /poison", s.poison)
}

// totals reads how the orders stand, at one moment, and then looks for orders whose saga has gone.
func (s *shop) totals(ctx context.Context) (books.Totals, error) {
	t := books.Totals{ByState: map[string]int64{}}
	err := books.InTx(ctx, s.db, func(tx *sql.Tx) error {
		rows, err := tx.QueryContext(ctx, "SELECT state, COUNT(*), COALESCE(SUM(cents), 0) FROM orders GROUP BY state")
		if err != nil {
			return err
		}
		defer rows.Close()
		var orders int64
		for rows.Next() {
			var state string
			var n, cents int64
			if err := rows.Scan(&state, &n, &cents); err != nil {
				return err
			}
			t.ByState[state] = n
			orders += n
			switch state {
			case books.Open, books.Returning:
				t.Open += n
			case books.Confirmed:
				t.Kept = cents
			}
		}
		if err := rows.Err(); err != nil {
			return err
		}
		// The dead letters in the statement that reads what was stored: an event that is put in and parked between two readings would be parked and never stored.
		var poison int64
		if err := tx.QueryRowContext(ctx, "SELECT closings, poison, (SELECT COUNT(*) FROM outbox_dead) FROM tally WHERE id = 1").Scan(&t.Closings, &poison, &t.Parked); err != nil {
			return err
		}
		t.Stored = orders + t.Closings + poison // each comes with one event, in its transaction
		return nil
	})
	if err != nil {
		return t, err
	}
	t.Orphans, err = s.orphans(ctx)
	return t, err
}

// orphansOf is how many open orders are looked at: those with the oldest sagas, as an order whose saga has gone stays open for ever.
const orphansOf = 20

// orphans returns orders that are open though their saga has ended or is not there.
func (s *shop) orphans(ctx context.Context) (found []string, err error) {
	rows, err := s.db.QueryContext(ctx, s.db.Q("SELECT id, saga FROM orders WHERE state IN (?, ?) ORDER BY saga LIMIT ?"), books.Open, books.Returning, orphansOf)
	if err != nil {
		return nil, err
	}
	var open [][2]string
	for rows.Next() {
		var o [2]string
		if err := rows.Scan(&o[0], &o[1]); err != nil {
			rows.Close()
			return nil, err
		}
		open = append(open, o)
	}
	if err := rows.Close(); err != nil {
		return nil, err
	}
	for _, o := range open {
		inst, err := s.engine.Get(ctx, o[1])
		if err == nil && !inst.State.Terminal() {
			continue
		}
		if err != nil && !errors.Is(err, saga.ErrNotFound) {
			return nil, err
		}
		// It may have closed since: order and saga end in one commit.
		var state, now string
		if err := s.db.QueryRowContext(ctx, s.db.Q("SELECT state, saga FROM orders WHERE id = ?"), o[0]).Scan(&state, &now); err != nil {
			return nil, err
		}
		if now == o[1] && (state == books.Open || state == books.Returning) {
			found = append(found, o[0])
		}
	}
	return found, nil
}

func (s *shop) closings(ctx context.Context, p Page) ([]books.Closing, error) {
	rows, err := s.db.QueryContext(ctx, s.db.Q(`SELECT c.no, c.order_id, c.state, o.sku, o.quantity, o.cents FROM closing c JOIN orders o ON o.id = c.order_id
		WHERE c.no > ? ORDER BY c.no LIMIT ?`), p.After, p.Limit)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	all := []books.Closing{}
	for rows.Next() {
		var c books.Closing
		if err := rows.Scan(&c.No, &c.Order, &c.State, &c.SKU, &c.Quantity, &c.Cents); err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	return all, rows.Err()
}

// poison puts an event into the outbox that no broker takes: its subject has a space. The relay moves it to the dead letters and goes on with the others.
// Switched off, the dead letters are discarded.
func (s *shop) poison(ctx context.Context, on bool) error {
	if !on {
		n, err := s.box.Discard(ctx, s.db.DB, outbox.DeadFilter{})
		if err != nil {
			return err
		}
		_, err = s.db.ExecContext(ctx, s.db.Q("UPDATE tally SET poison = poison - ? WHERE id = 1"), n)
		return err
	}
	return s.box.InTx(ctx, s.db.DB, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, "UPDATE tally SET poison = poison + 1 WHERE id = 1"); err != nil {
			return err
		}
		return s.box.Enqueue(ctx, tx, outbox.Message{Topic: "shop. poison", Key: outbox.NewID(), Payload: []byte("{}")})
	})
}

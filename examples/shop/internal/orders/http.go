package orders

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/backstay-go/backstay/examples/shop/internal/books"
	"github.com/backstay-go/backstay/examples/shop/internal/link"
	"github.com/backstay-go/backstay/examples/shop/internal/service"
	"github.com/backstay-go/backstay/saga"
)

// Answer is what a customer is told.
type Answer struct {
	Order string `json:"order"`
	State string `json:"state"` // as in package books
	Text  string `json:"text"`
}

// workers is how many requests the service handles at once. Each may wait for its saga, so a caller that does not say for how long keeps one.
const workers = 128

func (s *shop) routes() http.Handler {
	api := http.NewServeMux()
	api.HandleFunc("POST /orders", s.postOrder)
	api.HandleFunc("POST /orders/{id}/return", s.postReturn)
	api.HandleFunc("GET /orders/{id}", s.getOrder)
	return service.NewWorkers(workers, 0, 0).HTTP(s.host.Faults.HTTP(api))
}

// postOrder takes an order. Asked again with the same id it finds the order that is there, so a caller may repeat the request.
func (s *shop) postOrder(w http.ResponseWriter, r *http.Request) {
	var o Order
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<16)).Decode(&o); err != nil || o.ID == "" || o.SKU == "" || o.Quantity < 1 || o.Cents < 1 {
		http.Error(w, "an order has an id, a sku, a quantity and a price", http.StatusBadRequest)
		return
	}
	ctx, cancel := patience(r)
	defer cancel()
	id, err := s.accept(ctx, o)
	if err != nil {
		refuse(w, err)
		return
	}
	s.engine.Wake()
	s.reply(ctx, w, o.ID, id, books.Confirmed)
}

// accept stores the order, its first event and its saga, all in one transaction.
func (s *shop) accept(ctx context.Context, o Order) (id string, err error) {
	err = s.box.InTx(ctx, s.db.DB, func(tx *sql.Tx) error {
		handle, err := s.place.Start(ctx, s.store.Tx(tx), o.ID, o, saga.Deadline(pendingFor))
		id = handle.ID
		if err != nil || handle.Existing {
			return err
		}
		_, err = tx.ExecContext(ctx, s.db.Q("INSERT INTO orders (id, sku, quantity, cents, card, state, saga) VALUES (?, ?, ?, ?, ?, ?, ?)"),
			o.ID, o.SKU, o.Quantity, o.Cents, o.Card, books.Open, id)
		if err != nil {
			return err
		}
		return s.publish(ctx, tx, o.ID, "placed")
	})
	return id, err
}

// postReturn takes back a confirmed order.
func (s *shop) postReturn(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := patience(r)
	defer cancel()
	o := Order{ID: r.PathValue("id")}
	var id string
	err := s.box.InTx(ctx, s.db.DB, func(tx *sql.Tx) error {
		res, err := tx.ExecContext(ctx, s.db.Q("UPDATE orders SET state = ? WHERE id = ? AND state = ?"), books.Returning, o.ID, books.Confirmed)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return errors.Join(err, errNotConfirmed)
		}
		if err := tx.QueryRowContext(ctx, s.db.Q("SELECT sku, quantity, cents FROM orders WHERE id = ?"), o.ID).Scan(&o.SKU, &o.Quantity, &o.Cents); err != nil {
			return err
		}
		handle, err := s.bring.Start(ctx, s.store.Tx(tx), o.ID, o)
		if err != nil {
			return err
		}
		id = handle.ID
		_, err = tx.ExecContext(ctx, s.db.Q("UPDATE orders SET saga = ? WHERE id = ?"), id, o.ID)
		return err
	})
	if err != nil {
		refuse(w, err)
		return
	}
	s.engine.Wake()
	s.reply(ctx, w, o.ID, id, books.Returned)
}

var errNotConfirmed = errors.New("this order is not confirmed, or on its way back already")

func (s *shop) getOrder(w http.ResponseWriter, r *http.Request) {
	a := Answer{Order: r.PathValue("id")}
	err := s.db.QueryRowContext(r.Context(), s.db.Q("SELECT state FROM orders WHERE id = ?"), a.Order).Scan(&a.State)
	if errors.Is(err, sql.ErrNoRows) {
		http.NotFound(w, r)
		return
	}
	service.Answer(w, a, err)
}

// margin is how much sooner than the caller gives up the answer leaves.
const margin = 700 * time.Millisecond

// patience bounds the wait for a saga by what the caller says it will wait. One that says nothing is answered when there is something to say.
func patience(r *http.Request) (context.Context, context.CancelFunc) {
	if d, said := link.Patience(r); said {
		return context.WithTimeout(r.Context(), max(d-margin, margin))
	}
	return context.WithCancel(r.Context())
}

// reply waits for the saga and says what became of the order, or that it goes on. When the saga is complete the order is done.
func (s *shop) reply(ctx context.Context, w http.ResponseWriter, order, id, done string) {
	a, code := Answer{Order: order}, http.StatusOK
	err := s.engine.Wait(ctx, id)
	var failed *saga.Error
	switch {
	case err == nil:
		a.State, a.Text = done, done
	case errors.As(err, &failed) && failed.State == saga.Compensated && status.Code(failed.Cause) == codes.FailedPrecondition:
		a.State, a.Text, code = books.Cancelled, status.Convert(failed.Cause).Message(), http.StatusConflict
	case errors.As(err, &failed) && failed.State == saga.Compensated:
		a.State, a.Text, code = books.Cancelled, failed.Cause.Error(), http.StatusServiceUnavailable
	default: // not at rest, or with an operator: it will be finished
		a.State, a.Text, code = books.Open, "accepted, payment pending", http.StatusAccepted
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(a) //nolint:errchkjson // the customer has gone: nobody to tell
}

func refuse(w http.ResponseWriter, err error) {
	switch {
	case errors.Is(err, errNotConfirmed), errors.Is(err, saga.ErrConflict):
		http.Error(w, err.Error(), http.StatusConflict)
	default:
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
	}
}

// Package shipping imitates a carrier's HTTP API, as third parties are: it has a quota and says 429 with Retry-After above it, and a few of its answers take
// very long. It does honour idempotency keys.
package shipping

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"net/http"
	"time"

	"golang.org/x/time/rate"

	"github.com/backstay-go/backstay/examples/shop/internal/books"
	"github.com/backstay-go/backstay/examples/shop/internal/service"
	"github.com/backstay-go/backstay/examples/shop/internal/store"
	"github.com/backstay-go/backstay/saga/guard"
)

// Booking asks for a parcel to be fetched.
type Booking struct {
	Order    string `json:"order"`
	SKU      string `json:"sku"`
	Quantity int64  `json:"quantity"`
}

// Parcel is the answer.
type Parcel struct {
	Number string `json:"number"`
}

const schema = `
CREATE TABLE IF NOT EXISTS parcel (order_id TEXT NOT NULL, kind TEXT NOT NULL, quantity BIGINT NOT NULL);
CREATE INDEX IF NOT EXISTS parcel_order ON parcel (order_id)`

// The carrier's quota in requests a second, and its slow tail: one answer in fifty.
const (
	quota    = 60
	slowOnes = 50
)

// Main runs the service.
func Main(ctx context.Context, h *service.Host) error {
	db, err := store.Open(ctx, h.Name, h.Data, h.Postgres, schema)
	if err != nil {
		return err
	}
	defer db.Close()
	if err := guard.Migrate(ctx, db.DB, db.Dialect); err != nil {
		return err
	}
	api := http.NewServeMux()
	api.HandleFunc("POST /parcels", func(w http.ResponseWriter, r *http.Request) { book(w, r, db) })
	guarded := guard.HTTP(guard.New(db.DB, db.Dialect), api, guard.HTTPConfig{})
	workers := service.NewWorkers(64, 5*time.Millisecond, 20*time.Millisecond)
	books.Serve(h, db, "parcel", "quantity")
	h.Ready()
	return h.ServeHTTP(ctx, limited(rate.NewLimiter(quota, quota/2), workers.HTTP(h.Faults.HTTP(slow(guarded)))))
}

func book(w http.ResponseWriter, r *http.Request, db *store.DB) {
	var b Booking
	if err := json.NewDecoder(r.Body).Decode(&b); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	_, err := guard.TxFrom(r.Context()).ExecContext(r.Context(), db.Q("INSERT INTO parcel (order_id, kind, quantity) VALUES (?, 'book', ?)"), b.Order, b.Quantity)
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(Parcel{"P-" + b.Order}) //nolint:errchkjson // guard.HTTP holds the answer in memory
}

// limited is the quota.
func limited(l *rate.Limiter, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !l.Allow() {
			w.Header().Set("Retry-After", "1")
			http.Error(w, "quota exceeded", http.StatusTooManyRequests)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// slow is the tail.
func slow(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if rand.N(slowOnes) == 0 {
			t := time.NewTimer(200*time.Millisecond + rand.N(400*time.Millisecond))
			defer t.Stop()
			select {
			case <-t.C:
			case <-r.Context().Done():
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

// Package gateway is where customers come in: it takes their orders to the orders service, and knows from inventory's stream what is on the shelf.
package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/backstay-go/backstay/examples/shop/internal/inventory"
	"github.com/backstay-go/backstay/examples/shop/internal/link"
	"github.com/backstay-go/backstay/examples/shop/internal/orders"
	"github.com/backstay-go/backstay/examples/shop/internal/service"
	pb "github.com/backstay-go/backstay/examples/shop/internal/shoppb"
)

// Patience is how long a customer waits for an answer.
const Patience = 2 * time.Second

// Gateway is the order entry.
type Gateway struct {
	host   *service.Host
	orders *http.Client

	mu    sync.Mutex
	shelf map[string]int64 // guarded by mu
}

// atOnce is how many orders may be under way. Orders answers late on purpose, when the saga is not at its end.
const atOnce = 120

// New returns the order entry. Its calls are bounded so that the answer is there before the customer's patience ends.
func New(h *service.Host) *Gateway {
	limits := link.Limits{Total: Patience - 100*time.Millisecond, Attempt: Patience - 300*time.Millisecond, AtOnce: atOnce}
	return &Gateway{host: h, orders: h.Link("orders", limits).HTTP(), shelf: map[string]int64{}}
}

// Routes adds the customers' part to mux.
func (g *Gateway) Routes(mux *http.ServeMux) {
	mux.HandleFunc("POST /orders", g.postOrder)
	mux.HandleFunc("POST /orders/{id}/return", func(w http.ResponseWriter, r *http.Request) {
		g.forward(w, r, "/orders/"+r.PathValue("id")+"/return", nil)
	})
	mux.HandleFunc("GET /shelf", func(w http.ResponseWriter, _ *http.Request) {
		g.mu.Lock()
		defer g.mu.Unlock()
		service.Answer(w, g.shelf, nil)
	})
}

// postOrder prices the order and hands it on.
func (g *Gateway) postOrder(w http.ResponseWriter, r *http.Request) {
	var o orders.Order
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<16)).Decode(&o); err != nil || o.ID == "" || o.Quantity < 1 || o.Quantity > 100 {
		http.Error(w, "an order has an id, a sku and a quantity", http.StatusBadRequest)
		return
	}
	for _, good := range inventory.Goods {
		if good.SKU == o.SKU {
			o.Cents = good.Cents * o.Quantity
		}
	}
	if o.Cents == 0 {
		http.Error(w, "we do not sell that", http.StatusNotFound)
		return
	}
	body, err := json.Marshal(o)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	g.forward(w, r, "/orders", body)
}

// forward sends the request to the orders service under the order's id as its idempotency key: that service finds what it has under this id.
func (g *Gateway) forward(w http.ResponseWriter, r *http.Request, path string, body []byte) {
	req, err := http.NewRequestWithContext(r.Context(), http.MethodPost, "http://"+g.host.Peers["orders"]+path, bytes.NewReader(body))
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	req.Header.Set("Content-Type", "application/json")
	if key := r.Header.Get("Idempotency-Key"); key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	resp, err := g.orders.Do(req)
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	defer resp.Body.Close()
	w.Header().Set("Content-Type", resp.Header.Get("Content-Type"))
	w.WriteHeader(resp.StatusCode)
	_, _ = io.Copy(w, resp.Body) // the customer has gone: nobody to tell
}

// Watch follows the shelf until ctx is over.
func (g *Gateway) Watch(ctx context.Context, client pb.InventoryClient) {
	for ctx.Err() == nil {
		g.follow(ctx, client)
		t := time.NewTimer(time.Second)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
		}
	}
}

func (g *Gateway) follow(ctx context.Context, client pb.InventoryClient) {
	stream, err := client.Watch(ctx, &pb.WatchRequest{})
	if err != nil {
		return
	}
	for {
		stock, err := stream.Recv()
		if err != nil {
			return
		}
		g.mu.Lock()
		for _, item := range stock.GetItems() {
			g.shelf[item.GetSku()] = item.GetOnHand()
		}
		g.mu.Unlock()
	}
}

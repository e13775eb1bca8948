// Package load is the shop's customers. They come whether or not the shop keeps up (an open loop): who waits for an answer does not keep the next one from
// asking, which is what makes an overload one.
package load

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/backstay-go/backstay/examples/shop/internal/gateway"
	"github.com/backstay-go/backstay/examples/shop/internal/inventory"
	"github.com/backstay-go/backstay/examples/shop/internal/orders"
	"github.com/backstay-go/backstay/examples/shop/internal/payments"
)

// Rate bounds: orders a second.
const (
	MinRate = 0
	MaxRate = 200
)

// Generator makes orders. Make one with New.
type Generator struct {
	url    string
	client *http.Client
	prefix string

	mu   sync.Mutex
	rate float64       // guarded by mu
	woke chan struct{} // closed and replaced when the rate changes; guarded by mu

	stats stats
}

// New returns customers of the shop at url, who order rate times a second. Which goods they want, and when, follows from the seed.
func New(url string, rate float64) *Generator {
	return &Generator{
		url:    url,
		client: &http.Client{Timeout: gateway.Patience, Transport: &http.Transport{MaxIdleConnsPerHost: 512, IdleConnTimeout: 5 * time.Second}},
		prefix: strconv.FormatInt(time.Now().UnixMilli(), 36),
		rate:   rate,
		woke:   make(chan struct{}),
	}
}

// Dial replaces how customers connect; before Run.
func (g *Generator) Dial(dial func(ctx context.Context, network, addr string) (net.Conn, error)) {
	g.client.Transport = &http.Transport{DialContext: dial}
}

// Rate returns how many orders a second there are.
func (g *Generator) Rate() float64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.rate
}

// SetRate changes it; 0: none.
func (g *Generator) SetRate(rate float64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.rate = min(max(rate, MinRate), MaxRate)
	close(g.woke)
	g.woke = make(chan struct{})
}

// customer is one order, and what its customer does afterwards.
type customer struct {
	order   orders.Order
	returns bool
}

// plan draws the customers of a seed, one after another.
type plan struct {
	rng    *rand.Rand
	prefix string
	n      int
}

func newPlan(seed uint64, prefix string) *plan {
	return &plan{rng: rand.New(rand.NewPCG(seed, 0x10ad)), prefix: prefix}
}

// next returns the next customer, and how long after the one before it comes, in units of the mean.
func (p *plan) next() (c customer, gap float64) {
	p.n++
	gap = p.rng.ExpFloat64()
	c.order = orders.Order{
		ID:       fmt.Sprintf("%s-%d", p.prefix, p.n),
		SKU:      inventory.Goods[p.rng.IntN(len(inventory.Goods))].SKU,
		Quantity: 1 + p.rng.Int64N(3),
		Card:     fmt.Sprintf("4000-0000-0000-%04d", 1000+p.rng.IntN(9000)),
	}
	if p.rng.IntN(50) == 0 {
		c.order.Card = payments.DeclinedCard
	}
	c.returns = p.rng.IntN(25) == 0
	return c, gap
}

// Run sends the customers of the seed until ctx is over, and waits for those who are in the shop.
func (g *Generator) Run(ctx context.Context, seed uint64) {
	var in sync.WaitGroup
	defer in.Wait()
	defer g.client.CloseIdleConnections()
	p := newPlan(seed, g.prefix)
	at := time.Now()
	for {
		c, gap := p.next()
		for waiting := true; waiting; {
			g.mu.Lock()
			rate, woke := g.rate, g.woke
			g.mu.Unlock()
			var due <-chan time.Time
			if rate > 0 {
				due = time.After(time.Until(at.Add(time.Duration(gap / rate * float64(time.Second)))))
			}
			select {
			case <-ctx.Done():
				return
			case <-woke:
				at = time.Now()
			case <-due:
				at = at.Add(time.Duration(gap / rate * float64(time.Second)))
				waiting = false
			}
		}
		in.Go(func() { g.visit(context.WithoutCancel(ctx), c) })
	}
}

// visit is one customer's visit.
func (g *Generator) visit(ctx context.Context, c customer) {
	g.stats.offer()
	start := time.Now()
	a, code, err := g.post(ctx, "/orders", c.order.ID, c.order)
	// A no of the business (sold out, card declined) is an answer as good as a yes.
	good := err == nil && (code == http.StatusOK || code == http.StatusAccepted || code == http.StatusConflict)
	g.stats.end(good, time.Since(start))
	if c.returns && code == http.StatusOK && err == nil {
		_, _, _ = g.post(ctx, "/orders/"+a.Order+"/return", a.Order+"-return", struct{}{}) // the customer does not insist
	}
}

func (g *Generator) post(ctx context.Context, path, key string, v any) (a orders.Answer, code int, err error) {
	body, err := json.Marshal(v)
	if err != nil {
		return a, 0, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, g.url+path, bytes.NewReader(body))
	if err != nil {
		return a, 0, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Idempotency-Key", key)
	resp, err := g.client.Do(req)
	if err != nil {
		return a, 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 300 && resp.StatusCode != http.StatusConflict {
		_, err = io.Copy(io.Discard, resp.Body)
		return a, resp.StatusCode, err
	}
	return a, resp.StatusCode, json.NewDecoder(resp.Body).Decode(&a)
}

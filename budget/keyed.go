package budget

import (
	"context"
	"math"
	"sync/atomic"
	"time"

	"github.com/backstay-go/backstay"
)

// Wrap implements [backstay.Policy]: each call through it deposits, and nothing else. It has a place in a chain only where hedges draw on b
// and no retry around them does.
func (b *Budget) Wrap(next backstay.Handler) backstay.Handler {
	if b == nil {
		return next
	}
	return func(ctx context.Context, call *backstay.Call) backstay.Outcome { return b.Around(ctx, call, next) }
}

// Around implements [backstay.Around].
func (b *Budget) Around(ctx context.Context, call *backstay.Call, next backstay.Handler) backstay.Outcome {
	b.Deposit()
	return next(ctx, call)
}

// Keep implements [backstay.Keeper]. A budget with fewer tokens than a new one has something to remember until the floor has refilled it.
func (b *Budget) Keep() (busy bool, left time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.advance()
	missing := b.limits.start - b.reserve - b.deposited
	switch {
	case missing <= 0:
		return false, 0
	case b.limits.floor == 0:
		return false, math.MaxInt64
	}
	return false, time.Duration(min(math.Ceil(float64(missing)/token*float64(b.limits.floor)), 1<<62))
}

// Gauges implements [backstay.Gauged]: the tokens left.
func (b *Budget) Gauges(tell func(backstay.Gauge)) {
	if b != nil {
		tell(backstay.Gauge{Kind: backstay.GaugeTokens, Policy: "budget", Value: b.Snapshot().Tokens})
	}
}

// Table holds a budget for each key: a host, a tenant. Its memory is bounded, see [backstay.Keyed]. All methods are safe for concurrent use.
type Table struct {
	keyed  *backstay.Keyed[*Budget]
	config atomic.Pointer[Config] // what Apply set last; a budget that has another catches up when it is next asked for
}

// PerKey returns a Table whose budgets have the settings c. It panics when c or keys is not valid.
//
//	budgets := budget.PerKey(budget.Config{}, backstay.KeyedConfig{})
//	r := retry.New(retry.Config{BudgetFor: budgets.For})
func PerKey(c Config, keys backstay.KeyedConfig) *Table {
	if err := c.Validate(); err != nil {
		panic(err)
	}
	t := &Table{}
	t.config.Store(&c)
	t.keyed = backstay.NewKeyed(keys, func(string) *Budget {
		now := t.config.Load()
		b := New(*now)
		b.table.Store(now)
		return b
	})
	return t
}

// For returns the budget of key, which is made if there is none. It is never nil. A budget that has been forgotten meanwhile, because there were too
// many keys, goes on to work for whoever holds it.
func (t *Table) For(key string) *Budget {
	b, _ := t.keyed.Get(key)
	if c := t.config.Load(); b.table.Load() != c {
		b.table.Store(c)
		_ = b.Apply(*c) // it was valid when it was set
	}
	return b
}

// Apply changes the settings of all budgets, each as [Budget.Apply] does, and of those to come. On an error nothing changes.
func (t *Table) Apply(c Config) error {
	if err := c.Validate(); err != nil {
		return err
	}
	t.config.Store(&c)
	return nil
}

// Keyed returns the table itself, to list it, or to stand in a chain as [Budget.Wrap] does.
func (t *Table) Keyed() *backstay.Keyed[*Budget] { return t.keyed }

// Gauges implements [backstay.Gauged]: the tokens left of each key.
func (t *Table) Gauges(tell func(backstay.Gauge)) { t.keyed.Gauges(tell) }

// Package outboxmem is an outbox in memory: for tests and for trying things out. Nothing survives the process. It follows the contract of
// [outbox.Source] in everything else, several relays included.
package outboxmem

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/backstay-go/backstay/internal/configjson"
	"github.com/backstay-go/backstay/outbox"
)

// Config sets a [Box] up. The zero value works.
type Config struct {
	Partitions int           `json:"partitions"` // default 16
	Limits     outbox.Limits `json:"limits"`
	Sealer     outbox.Sealer `json:"-"` // nil: payloads are kept as they are
}

// Box is an outbox in memory. It is safe for concurrent use.
type Box struct {
	prep outbox.Preparation

	mu        sync.Mutex // guards everything below
	seq       int64
	rows      []map[int64]*row // by partition and number
	order     [][]int64        // the numbers of each partition, rising; deleted ones are swept out now and then
	leases    []lease
	relays    map[string]time.Time
	scheduled []*row
	dead      map[int64]*outbox.DeadLetter
	tries     map[int64]int
	seen      map[[2]string]time.Time // inbox
	busy      map[[2]string]chan struct{}
	inbox     map[string]*inboxCounts // by consumer
	hints     map[*func(bool)]struct{}
	open      map[*Tx]time.Time // since when transactions hold messages
}

type row struct {
	outbox.Enqueued
	due time.Time
}

type lease struct {
	owner string
	epoch int64
	gen   int64
	until time.Time
}

// New returns an empty box. At most one Config may be given; New panics with its Validate error.
func New(cfg ...Config) *Box {
	var c Config
	if len(cfg) > 0 {
		c = cfg[0]
	}
	if err := c.Validate(); err != nil {
		panic(err)
	}
	n := c.Partitions
	if n == 0 {
		n = 16
	}
	b := &Box{
		prep: outbox.Preparation{Limits: c.Limits, Sealer: c.Sealer, Partitions: n},
		rows: make([]map[int64]*row, n), order: make([][]int64, n), leases: make([]lease, n),
		relays: map[string]time.Time{}, dead: map[int64]*outbox.DeadLetter{}, tries: map[int64]int{},
		seen: map[[2]string]time.Time{}, busy: map[[2]string]chan struct{}{}, inbox: map[string]*inboxCounts{}, hints: map[*func(bool)]struct{}{},
		open: map[*Tx]time.Time{},
	}
	for i := range b.rows {
		b.rows[i] = map[int64]*row{}
	}
	return b
}

// Validate reports all faults of the config, or nil.
func (c Config) Validate() error {
	if c.Partitions < 0 || c.Partitions > 1024 {
		return fmt.Errorf("outboxmem.Config.Partitions: %d, want 1 to 1024", c.Partitions)
	}
	return nil
}

// MarshalJSON encodes the data of the config; what is zero is left out.
func (c Config) MarshalJSON() ([]byte, error) { return configjson.Marshal(c) }

// UnmarshalJSON decodes what MarshalJSON encodes. Unknown fields are refused, fields not named keep their values.
func (c *Config) UnmarshalJSON(data []byte) error { return configjson.Unmarshal(data, c) }

// Tx is a transaction: its messages are seen when it commits. It is for one goroutine.
type Tx struct {
	box  *Box
	rows []*row
	done bool
}

// Begin starts a transaction.
func (b *Box) Begin() *Tx { return &Tx{box: b} }

// InTx runs fn in a transaction and commits it, or rolls it back when fn returns an error or panics.
func (b *Box) InTx(_ context.Context, fn func(*Tx) error) error {
	tx := b.Begin()
	defer tx.Rollback()
	if err := fn(tx); err != nil {
		return err
	}
	tx.Commit()
	return nil
}

// Enqueue writes messages in a transaction of their own.
func (b *Box) Enqueue(ctx context.Context, messages ...outbox.Message) error {
	return b.InTx(ctx, func(tx *Tx) error { return tx.Enqueue(ctx, messages...) })
}

// Enqueue adds messages to the transaction. Their numbers are taken now, as a database's sequence does.
func (tx *Tx) Enqueue(ctx context.Context, messages ...outbox.Message) error {
	b := tx.box
	ready, err := b.prep.Prepare(ctx, messages)
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	if _, ok := b.open[tx]; !ok && len(ready) > 0 && !tx.done {
		b.open[tx] = now
	}
	for i := range ready {
		r := &row{Enqueued: ready[i]}
		r.Message = *r.Message.Clone()
		b.seq++
		r.Seq, r.Created = b.seq, now
		r.due = r.NotBefore
		if r.Delay > 0 {
			r.due = now.Add(r.Delay)
		}
		tx.rows = append(tx.rows, r)
	}
	return nil
}

// Commit makes the transaction's messages visible. A second Commit or Rollback does nothing.
func (tx *Tx) Commit() {
	if tx.done {
		return
	}
	tx.done = true
	b := tx.box
	b.mu.Lock()
	delete(b.open, tx)
	now := time.Now()
	for _, r := range tx.rows {
		if r.due.After(now) {
			b.scheduled = append(b.scheduled, r)
		} else {
			b.insert(r)
		}
	}
	hints := b.listeners()
	b.mu.Unlock()
	for _, hint := range hints {
		hint(true)
	}
}

// Rollback drops the transaction's messages.
func (tx *Tx) Rollback() {
	tx.done = true
	tx.box.mu.Lock()
	delete(tx.box.open, tx)
	tx.box.mu.Unlock()
}

// insert puts a row in its place. The mutex is held.
func (b *Box) insert(r *row) {
	p := r.Part
	b.rows[p][r.Seq] = r
	at, _ := slices.BinarySearch(b.order[p], r.Seq)
	if at == len(b.order[p]) || b.order[p][at] != r.Seq {
		b.order[p] = slices.Insert(b.order[p], at, r.Seq)
	}
}

func (b *Box) listeners() []func(bool) {
	hints := make([]func(bool), 0, len(b.hints))
	for h := range b.hints {
		hints = append(hints, *h)
	}
	return hints
}

// Len returns how many messages wait, those not yet due included and dead letters not.
func (b *Box) Len() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := len(b.scheduled)
	for _, rows := range b.rows {
		n += len(rows)
	}
	return n
}

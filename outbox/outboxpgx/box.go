// Package outboxpgx is the outbox of package outboxsql for pgx: the same tables, enqueues in a pgx.Tx or folded into a pgx.Batch, and a relay that reads
// in binary and hears NOTIFY, so that a message is on its way about a millisecond after its commit.
//
//	box := outboxpgx.New()
//	err := box.InTx(ctx, pool, func(tx pgx.Tx) error {
//		…
//		return box.Enqueue(ctx, tx, outbox.Message{Topic: "orders", Key: o.ID, Payload: body})
//	})
//	relay := outbox.NewRelay(box.Source(pool), publisher, outbox.RelayConfig{})
//
// Producers of this package and relays of outboxsql go together, and the other way round. Box.SQL has the rest: Migrate, inboxes, dead letters. It needs a direct
// connection or a pooler in session mode to hear NOTIFY; without, it polls, and says so in the relay's log.
package outboxpgx

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/outboxsql"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
)

// Box is an outbox in PostgreSQL. It is safe for concurrent use and one serves a process.
type Box struct {
	// SQL is the same box through database/sql.
	SQL *outboxsql.Box

	cfg   outboxsql.Config
	table string // quoted
	meta  string
	sched string
	parts atomic.Int64

	mu     sync.Mutex
	opened []*sql.DB // by Source; guarded by mu
}

// New returns a box. At most one Config may be given; New panics with its Validate error. Config.Hints is not used: hints go
// through the pool given to InTx, Source or [Box.HintThrough].
func New(cfg ...outboxsql.Config) *Box {
	b := &Box{SQL: outboxsql.New(outboxsql.Postgres, cfg...)}
	b.cfg = b.SQL.Config()
	quote := func(suffix string) string {
		return pgx.Identifier(strings.Split(b.cfg.Table+suffix, ".")).Sanitize()
	}
	b.table, b.meta, b.sched = quote(""), quote("_meta"), quote("_scheduled")
	return b
}

// HintThrough sends the hints of Enqueue through the pool, as InTx and Source make the box do.
func (b *Box) HintThrough(pool *pgxpool.Pool) {
	channel := b.SQL.Channel()
	b.SQL.RingWith(func(ctx context.Context, payload string) error {
		_, err := pool.Exec(ctx, "SELECT pg_notify($1, $2)", channel, payload)
		return err
	})
}

// DB returns the pool as a *sql.DB, for the functions of Box.SQL. Closing it leaves the pool open.
func DB(pool *pgxpool.Pool) *sql.DB { return stdlib.OpenDBFromPool(pool) }

// Wake is outboxsql's [outboxsql.Box.Wake].
func (b *Box) Wake() { b.SQL.Wake() }

// Close waits for a hint that is being sent, two seconds at the most, and ends the Sources made: call it when their relays have returned. The pool stays open.
func (b *Box) Close() {
	b.SQL.Close()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, db := range b.opened {
		db.Close() // always nil: no connection of the pool is in use
	}
	b.opened = nil
}

const now = "(extract(epoch FROM statement_timestamp())*1000000)::bigint"

func (b *Box) insert() string {
	return "INSERT INTO " + b.table + " (part, msg_id, topic, msg_key, content_type, headers, payload, created_at, expires_at) "
}

// Enqueue writes messages in the caller's transaction, any number by one statement; see outboxsql's [outboxsql.Box.Enqueue].
func (b *Box) Enqueue(ctx context.Context, tx pgx.Tx, messages ...outbox.Message) (err error) {
	if len(messages) == 0 {
		return nil
	}
	ctx, end := outbox.StartEnqueue(ctx, messages[0].Topic, len(messages))
	defer func() { end(err) }()
	if b.parts.Load() == 0 {
		if err := b.load(ctx, tx); err != nil {
			return fmt.Errorf("outbox: enqueue: %w", err)
		}
	}
	ready, err := b.prepare(ctx, messages)
	if err != nil {
		return err
	}
	for _, q := range b.statements(ready) {
		if _, err := tx.Exec(ctx, q.sql, q.args...); err != nil {
			return fmt.Errorf("outbox: enqueue: %w", err)
		}
	}
	b.SQL.Hint()
	return nil
}

// Queue adds the enqueue to a batch, so that it costs no round trip of its own. The batch is to be sent in a transaction, or it is one itself (pgx makes it one
// unless told otherwise). It needs the number of partitions, which Source, an earlier Enqueue or [Box.Load] has read. Hints are up to the caller:
// call Wake after the commit.
func (b *Box) Queue(ctx context.Context, batch *pgx.Batch, messages ...outbox.Message) error {
	if b.parts.Load() == 0 {
		return fmt.Errorf("%w: not read yet: call Load", outbox.ErrPartitions)
	}
	ready, err := b.prepare(ctx, messages)
	if err != nil {
		return err
	}
	for _, q := range b.statements(ready) {
		batch.Queue(q.sql, q.args...)
	}
	return nil
}

// Load reads the number of partitions.
func (b *Box) Load(ctx context.Context, pool *pgxpool.Pool) error { return b.load(ctx, pool) }

func (b *Box) load(ctx context.Context, q interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}) error {
	var n int64
	err := q.QueryRow(ctx, "SELECT value FROM "+b.meta+" WHERE name = 'partitions'").Scan(&n)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return fmt.Errorf("%w: none is stored: call Migrate or Init", outbox.ErrPartitions)
	case err != nil:
		return err
	case b.cfg.Partitions != 0 && int64(b.cfg.Partitions) != n:
		return fmt.Errorf("%w: configured %d, the tables have %d", outbox.ErrPartitions, b.cfg.Partitions, n)
	}
	b.parts.Store(n)
	return nil
}

func (b *Box) prepare(ctx context.Context, messages []outbox.Message) ([]outbox.Enqueued, error) {
	return outbox.Preparation{Limits: b.cfg.Limits, Sealer: b.cfg.Sealer, Partitions: int(b.parts.Load())}.Prepare(ctx, messages)
}

type statement struct {
	sql  string
	args []any
}

// statements returns what writes the messages: at most one for those due at once, and one for those scheduled.
func (b *Box) statements(ready []outbox.Enqueued) (out []statement) {
	if b.cfg.StrictKeys {
		if locks := b.SQL.KeyLocks(ready); len(locks) > 0 {
			out = append(out, statement{"SELECT count(pg_advisory_xact_lock(k)) FROM (SELECT k FROM unnest($1::bigint[]) k ORDER BY k) s", []any{locks}})
		}
	}
	scheduled := func(m outbox.Enqueued) bool { return m.Delay > 0 || !m.NotBefore.IsZero() }
	due, later := ready, []outbox.Enqueued(nil)
	if slices.ContainsFunc(ready, scheduled) {
		due = slices.DeleteFunc(slices.Clone(ready), scheduled)
		later = slices.DeleteFunc(ready, func(m outbox.Enqueued) bool { return !scheduled(m) })
	}
	switch {
	case len(due) == 1:
		m := &due[0]
		out = append(out, statement{b.insert() + "VALUES ($1, $2, $3, $4, $5, $6, $7, " + now + ", $8)",
			[]any{int16(m.Part), m.ID, m.Topic, m.Key, m.ContentType, outbox.EncodeHeaders(m.Headers), bytes(m.Payload), micros(m.ExpiresAt)}})
	case len(due) > 1:
		out = append(out, statement{b.insert() + "SELECT part, msg_id, topic, msg_key, content_type, headers, payload, " + now + ", expires_at" +
			" FROM unnest($1::smallint[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bytea[], $8::bigint[])" +
			" WITH ORDINALITY AS m (part, msg_id, topic, msg_key, content_type, headers, payload, expires_at, ord) ORDER BY ord", arrays(due)})
	}
	if len(later) > 0 {
		relative, value := make([]int64, len(later)), make([]int64, len(later)) // 1 and a delay, or 0 and a time
		for i := range later {
			if m := &later[i]; m.NotBefore.IsZero() {
				relative[i], value[i] = 1, m.Delay.Microseconds()
			} else {
				value[i] = m.NotBefore.UnixMicro()
			}
		}
		out = append(out, statement{"INSERT INTO " + b.sched + " (due, part, msg_id, topic, msg_key, content_type, headers, payload, expires_at)" +
			" SELECT " + now + " * relative + value, part, msg_id, topic, msg_key, content_type, headers, payload, expires_at" +
			" FROM unnest($1::smallint[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bytea[], $8::bigint[], $9::bigint[], $10::bigint[])" +
			" WITH ORDINALITY AS m (part, msg_id, topic, msg_key, content_type, headers, payload, expires_at, relative, value, ord) ORDER BY ord",
			append(arrays(later), relative, value)})
	}
	return out
}

func arrays(ready []outbox.Enqueued) []any {
	n := len(ready)
	part, id, topic, key := make([]int16, n), make([]string, n), make([]string, n), make([]string, n)
	kind, headers, payload, expires := make([]string, n), make([]string, n), make([][]byte, n), make([]int64, n)
	for i := range ready {
		m := &ready[i]
		part[i], id[i], topic[i], key[i] = int16(m.Part), m.ID, m.Topic, m.Key
		kind[i], headers[i], payload[i], expires[i] = m.ContentType, outbox.EncodeHeaders(m.Headers), bytes(m.Payload), micros(m.ExpiresAt)
	}
	return []any{part, id, topic, key, kind, headers, payload, expires}
}

// bytes is never nil, which would be written as NULL.
func bytes(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

// InTx begins a transaction, runs fn, commits, and then wakes the relays; see outboxsql's [outboxsql.Box.InTx].
func (b *Box) InTx(ctx context.Context, pool *pgxpool.Pool, fn func(tx pgx.Tx) error) error {
	b.HintThrough(pool)
	tx, err := pool.Begin(ctx)
	if err != nil {
		return err
	}
	defer tx.Rollback(context.WithoutCancel(ctx)) // does nothing after the commit
	if err := fn(tx); err != nil {
		return err
	}
	if err := tx.Commit(ctx); err != nil {
		if outboxsql.UnknownCommit(err) {
			return &outboxsql.CommitError{Err: err}
		}
		return err
	}
	b.Wake()
	return nil
}

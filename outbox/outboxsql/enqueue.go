package outboxsql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"time"

	"github.com/backstay-go/backstay/internal/sqldialect"
	"github.com/backstay-go/backstay/outbox"
)

// Tx is a transaction of the caller's: *sql.Tx and whatever has its shape, such as GORM's ConnPool in a transaction, ent's Tx, or what sqlc calls DBTX.
type Tx interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// chunk is the largest number of messages in one statement, except on PostgreSQL, where any number that is due at once is one.
const chunk = 1000

// chunkBytes bounds a statement elsewhere: a quarter of MariaDB's default max_allowed_packet of 16 MiB.
const chunkBytes = 4 << 20

// Enqueue writes messages in the caller's transaction: they are published if it commits, and never if not. It checks all messages first
// ([outbox.InvalidError]) and writes none when one is bad. Numbers follow the order of the arguments. Something that can begin transactions, so is none
// itself (*sql.DB, *sql.Conn), is refused with [outbox.ErrNotTx]. After any other error the transaction is to be rolled back.
//
// Relays get a hint while the transaction is still open and look out for it for 50 ms; see [Box.Wake] for later.
func (b *Box) Enqueue(ctx context.Context, tx Tx, messages ...outbox.Message) (err error) {
	if err := checkTx(tx); err != nil {
		return err
	}
	if len(messages) == 0 {
		return nil
	}
	ctx, end := outbox.StartEnqueue(ctx, messages[0].Topic, len(messages))
	defer func() { end(err) }()
	parts, err := b.partitions(ctx, tx)
	if err != nil {
		return fmt.Errorf("outbox: enqueue: %w", err)
	}
	ready, err := outbox.Preparation{Limits: b.cfg.Limits, Sealer: b.cfg.Sealer, Partitions: parts}.Prepare(ctx, messages)
	if err != nil {
		return err
	}
	if b.cfg.StrictKeys {
		if err := b.lockKeys(ctx, tx, ready); err != nil {
			return fmt.Errorf("outbox: enqueue: lock keys: %w", err)
		}
	}
	now, later := ready, []outbox.Enqueued(nil)
	if slices.ContainsFunc(ready, scheduled) {
		now = slices.DeleteFunc(slices.Clone(ready), scheduled)
		later = slices.DeleteFunc(ready, func(m outbox.Enqueued) bool { return !scheduled(m) })
	}
	if err := b.write(ctx, tx, now); err != nil {
		return fmt.Errorf("outbox: enqueue: %w", err)
	}
	if err := b.writeRows(ctx, tx, b.t.intoScheduled(), b.t.scheduledRow, later, scheduledArgs); err != nil {
		return fmt.Errorf("outbox: enqueue: %w", err)
	}
	if len(now) > 0 {
		b.hint(false)
	}
	return nil
}

func scheduled(m outbox.Enqueued) bool { return m.Delay > 0 || !m.NotBefore.IsZero() }

// checkTx refuses what is not a transaction: whatever can begin one.
func checkTx(tx Tx) error {
	switch tx := tx.(type) {
	case nil:
		return fmt.Errorf("%w: nil", outbox.ErrNotTx)
	case *sql.Tx:
		if tx == nil {
			return fmt.Errorf("%w: nil", outbox.ErrNotTx)
		}
	case interface {
		BeginTx(context.Context, *sql.TxOptions) (*sql.Tx, error)
	}:
		return fmt.Errorf("%w: %T", outbox.ErrNotTx, tx)
	}
	return nil
}

// partitions returns the stored number, asked once in the life of the box, in the caller's transaction.
func (b *Box) partitions(ctx context.Context, tx Tx) (int, error) {
	if n := b.parts.Load(); n > 0 {
		return int(n), nil
	}
	if b.d == SQLite { // a transaction that reads first cannot wait for the lock when it comes to write
		if _, err := tx.ExecContext(ctx, "DELETE FROM "+b.t.meta+" WHERE name = ''"); err != nil {
			return 0, err
		}
	}
	return b.stored(ctx, tx)
}

// KeyLocks returns the numbers under which strict keys lock the keys of messages, sorted, for companions that lock them themselves.
func (b *Box) KeyLocks(ready []outbox.Enqueued) []int64 {
	var locks []int64
	for i := range ready {
		if ready[i].Key == "" {
			continue
		}
		h := fnv.New64a()
		h.Write([]byte(b.cfg.Table + "\x00" + ready[i].Key))
		n := int64(h.Sum64())
		if b.d == MySQL {
			n = int64(h.Sum64() % strictBuckets)
		}
		locks = append(locks, n)
	}
	slices.Sort(locks)
	return slices.Compact(locks)
}

// lockKeys takes the transaction's locks on the keys, in one order for all.
func (b *Box) lockKeys(ctx context.Context, tx Tx, ready []outbox.Enqueued) error {
	if b.d == SQLite {
		return nil // one writer at a time, always
	}
	locks := b.KeyLocks(ready)
	if len(locks) == 0 {
		return nil
	}
	if b.d == MySQL {
		rows, err := tx.QueryContext(ctx, "SELECT bucket FROM "+b.t.strict+" WHERE bucket IN ("+ints(locks)+") ORDER BY bucket FOR UPDATE")
		if err != nil {
			return err
		}
		for rows.Next() {
		}
		return errors.Join(rows.Err(), rows.Close())
	}
	_, err := tx.ExecContext(ctx, "SELECT count(pg_advisory_xact_lock(k)) FROM (SELECT k FROM unnest($1::text::bigint[]) k ORDER BY k) s", intArray(locks))
	return err
}

// write inserts messages that are due at once.
func (b *Box) write(ctx context.Context, tx Tx, ready []outbox.Enqueued) error {
	switch {
	case len(ready) == 0:
		return nil
	case len(ready) == 1:
		_, err := tx.ExecContext(ctx, b.t.insert, dueArgs(&ready[0])...)
		return err
	case b.d == Postgres:
		return b.writeArrays(ctx, tx, ready)
	}
	return b.writeRows(ctx, tx, b.t.into(), b.t.row, ready, dueArgs)
}

// writeRows inserts messages by statements of up to a chunk of them.
func (b *Box) writeRows(ctx context.Context, tx Tx, into, row string, ready []outbox.Enqueued, argsOf func(*outbox.Enqueued) []any) error {
	for len(ready) > 0 {
		n, size := 0, 0
		for n < len(ready) && n < chunk && (n == 0 || size+ready[n].Size() <= chunkBytes) {
			size += ready[n].Size()
			n++
		}
		query := into + " VALUES "
		text := make([]byte, 0, len(query)+n*(len(row)+2))
		text = append(text, query...)
		args := make([]any, 0, 10*n)
		for i := range ready[:n] {
			if i > 0 {
				text = append(text, ", "...)
			}
			text = append(text, row...)
			args = append(args, argsOf(&ready[i])...)
		}
		if _, err := tx.ExecContext(ctx, b.d.Rebind(string(text)), args...); err != nil {
			return err
		}
		ready = ready[n:]
	}
	return nil
}

func dueArgs(m *outbox.Enqueued) []any {
	return []any{m.Part, m.ID, m.Topic, m.Key, m.ContentType, outbox.EncodeHeaders(m.Headers), payload(m), micros(m.ExpiresAt)}
}

// payload is never nil, which drivers would write as NULL.
func payload(m *outbox.Enqueued) []byte {
	if m.Payload == nil {
		return []byte{}
	}
	return m.Payload
}

func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

func scheduledArgs(m *outbox.Enqueued) []any {
	relative, value := 1, m.Delay.Microseconds()
	if !m.NotBefore.IsZero() {
		relative, value = 0, m.NotBefore.UnixMicro()
	}
	return []any{relative, value, m.Part, m.ID, m.Topic, m.Key, m.ContentType, outbox.EncodeHeaders(m.Headers), payload(m), micros(m.ExpiresAt)}
}

// CommitError is what InTx returns when the answer to its commit was lost: the transaction, and its messages, may or may not have been
// committed.
type CommitError = sqldialect.CommitError

// UnknownCommit reports whether an error of a commit leaves it open if the transaction was committed.
func UnknownCommit(err error) bool { return sqldialect.UnknownCommit(err) }

// InTx begins a transaction, runs fn, commits, and then wakes the relays, so that the messages are on their way within about a millisecond. An error of
// fn rolls back and is returned as it is, a panic rolls back and goes on. It is not repeated. When the answer to the commit is lost
// the error is a [*CommitError].
func (b *Box) InTx(ctx context.Context, db *sql.DB, fn func(tx *sql.Tx) error) error {
	b.bell.use(db)
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() // does nothing after the commit
	if err := fn(tx); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		if sqldialect.UnknownCommit(err) {
			return &CommitError{Err: err}
		}
		return err
	}
	b.Wake()
	return nil
}

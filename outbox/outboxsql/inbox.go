package outboxsql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/backstay-go/backstay/internal/sqldialect"
	"github.com/backstay-go/backstay/outbox"
)

// Inbox remembers which messages a consumer has handled, in the database of the effects, so that a message delivered again has no second effect. Two
// consumers of other names each handle a message once. It is safe for concurrent use.
type Inbox struct {
	box      *Box
	consumer string
	counts   *inboxCounts // of the consumer, whichever Inbox counts
}

type inboxCounts struct {
	handled, duplicates atomic.Int64
	meter               *outbox.InboxMeter
}

func (c *inboxCounts) duplicate(ctx context.Context) {
	c.duplicates.Add(1)
	c.meter.Duplicate(ctx)
}

// ErrInboxID is what Once and Handle return for an id that no inbox can hold: empty, longer than 255 bytes, or not printable ASCII.
var ErrInboxID = errors.New("outbox: inbox: bad message id")

// Inbox returns the inbox of a consumer: 1 to 255 bytes of printable ASCII, else it panics, since it is a constant of the program.
func (b *Box) Inbox(consumer string) *Inbox {
	if !printable(consumer) {
		panic(fmt.Sprintf("outboxsql: Inbox(%q): want 1 to 255 bytes of printable ASCII", consumer))
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	counts := b.inbox[consumer]
	if counts == nil {
		counts = &inboxCounts{meter: outbox.NewInboxMeter(consumer)}
		b.inbox[consumer] = counts
	}
	return &Inbox{b, consumer, counts}
}

// Stats returns what this process has counted for the consumer since the box was made: Handle's messages, and the duplicates of Once and Handle.
func (in *Inbox) Stats() outbox.InboxStats {
	return outbox.InboxStats{Handled: in.counts.handled.Load(), Duplicates: in.counts.duplicates.Load()}
}

func printable(s string) bool {
	return s != "" && len(s) <= 255 && strings.IndexFunc(s, func(r rune) bool { return r < 0x20 || r > 0x7e }) < 0
}

// Once notes in the caller's transaction that the message is handled, and reports whether it had been: then the caller does nothing more and
// commits. It waits for another transaction that is at the same message. On PostgreSQL the transaction should be READ COMMITTED, the default; in
// a stricter one the loser of two gets a serialization failure and tries again.
func (in *Inbox) Once(ctx context.Context, tx Tx, id string) (duplicate bool, err error) {
	duplicate, err = in.once(ctx, tx, id)
	if duplicate {
		in.counts.duplicate(ctx)
	}
	return duplicate, err
}

func (in *Inbox) once(ctx context.Context, tx Tx, id string) (duplicate bool, err error) {
	if err := checkTx(tx); err != nil {
		return false, err
	}
	if !printable(id) {
		return false, ErrInboxID
	}
	b := in.box
	query := "INSERT INTO " + b.t.inbox + " (consumer, msg_id, seen_at) VALUES (?, ?, " + b.t.now + ")"
	if b.d == MySQL {
		_, err := tx.ExecContext(ctx, query, in.consumer, id)
		if sqldialect.Classify(err) == sqldialect.Duplicate { // undoes the statement only
			return true, nil
		}
		return false, err
	}
	r, err := tx.ExecContext(ctx, b.d.Rebind(query+" ON CONFLICT DO NOTHING"), in.consumer, id)
	if err != nil {
		return false, err
	}
	n, err := r.RowsAffected()
	return n == 0, err
}

// Handle runs fn in a transaction, with the note that the message is handled, unless it had been; then it does nothing and returns nil. Whatever fn writes in tx, messages
// enqueued included, happens once. An error of fn rolls everything back and is returned: the message is to be delivered again. A transaction that lost
// against another one is repeated, so fn must have no effect outside tx. When the answer to the commit is lost the error is a
// [*CommitError], and delivery again settles it.
func (in *Inbox) Handle(ctx context.Context, db *sql.DB, id string, fn func(tx *sql.Tx) error) error {
	in.box.bell.use(db)
	var duplicate bool
	err := sqldialect.InTx(ctx, db, in.box.d, func(tx *sql.Tx) (err error) {
		if duplicate, err = in.once(ctx, tx, id); err != nil || duplicate {
			return err
		}
		return fn(tx)
	})
	switch {
	case err != nil:
	case duplicate:
		in.counts.duplicate(ctx)
	default:
		in.counts.handled.Add(1)
		in.counts.meter.Handled(ctx)
	}
	return err
}

// purgeChunk is how many notes one statement of Purge looks at.
const purgeChunk = 1000

// Purge forgets messages handled longer ago than keep, and returns how many. It goes through the consumer's notes in chunks of 1,000, each in a transaction of its own, so that it
// holds no lock for long. A message that is delivered once more after its note is gone is handled again: keep must exceed the time in
// which brokers and replays may repeat one; a week is usual.
func (in *Inbox) Purge(ctx context.Context, db *sql.DB, keep time.Duration) (purged int, err error) {
	from := ""
	for {
		last, old, n, err := in.chunk(ctx, db, from, keep)
		if err != nil {
			return purged, err
		}
		if len(old) > 0 {
			gone, err := in.forget(ctx, db, old)
			if err != nil {
				return purged, err
			}
			purged += gone
		}
		if n < purgeChunk {
			return purged, nil
		}
		from = last
	}
}

// forget deletes notes.
func (in *Inbox) forget(ctx context.Context, db *sql.DB, ids []any) (int, error) {
	b := in.box
	query := b.d.Rebind("DELETE FROM " + b.t.inbox + " WHERE consumer = ? AND msg_id IN (?" + strings.Repeat(",?", len(ids)-1) + ")")
	args := append([]any{in.consumer}, ids...)
	if b.d == MySQL { // as in Source.delete: a list may be looked for in all of the table, which waits for the notes of open transactions
		query = "DELETE i FROM (SELECT CAST(? AS BINARY) AS id" + strings.Repeat(" UNION ALL SELECT CAST(? AS BINARY)", len(ids)-1) +
			") d STRAIGHT_JOIN " + b.t.inbox + " i FORCE INDEX (PRIMARY) ON i.consumer = ? AND i.msg_id = d.id"
		args = append(slices.Clip(ids), in.consumer)
	}
	r, err := db.ExecContext(ctx, query, args...)
	if err != nil {
		return 0, err
	}
	n, err := r.RowsAffected()
	return int(n), err
}

// chunk returns the last of the next notes after from, those that are old, and how many it looked at.
func (in *Inbox) chunk(ctx context.Context, db *sql.DB, from string, keep time.Duration) (last string, old []any, n int, err error) {
	b := in.box
	rows, err := db.QueryContext(ctx, b.d.Rebind("SELECT msg_id, CASE WHEN seen_at < "+b.t.now+" - ? THEN 1 ELSE 0 END FROM "+b.t.inbox+
		" WHERE consumer = ? AND msg_id > ? ORDER BY msg_id LIMIT ?"), keep.Microseconds(), in.consumer, from, purgeChunk)
	if err != nil {
		return "", nil, 0, err
	}
	defer rows.Close()
	for rows.Next() {
		var isOld int
		if err := rows.Scan(&last, &isOld); err != nil {
			return "", nil, 0, err
		}
		if isOld == 1 {
			old = append(old, last)
		}
		n++
	}
	return last, old, n, rows.Err()
}

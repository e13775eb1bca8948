package outboxsql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/backstay-go/backstay/outbox"
)

// watch remembers since when transactions have been seen. It belongs to whoever has its turn.
type watch struct {
	turn  chan struct{}        // holds one while somebody looks: looks must not overlap
	last  time.Time            // the last look
	seen  map[string]time.Time // the look before the first that found them
	since time.Time            // what the last look told: nobody open has held a message for longer
	asked time.Time            // the last question to InnoDB, in vain or not
	pause time.Duration        // the least time between two of them
}

// unseen is the age of a transaction that the first look finds: nobody knows.
const unseen = 24 * time.Hour

// note takes in the transactions that a look begun at now has found, and returns for how long the oldest may have been there.
func (w *watch) note(now time.Time, found []string) (age time.Duration) {
	since := w.last
	if since.IsZero() {
		since = now.Add(-unseen)
	}
	seen := make(map[string]time.Time, len(found))
	for _, id := range found {
		at, ok := w.seen[id]
		if !ok {
			at = since
		}
		seen[id] = at
		age = max(age, now.Sub(at))
	}
	w.last, w.seen = now, seen
	return age
}

const (
	// innodbMargin covers an insert that has its number and is not yet a written row: microseconds, unless its server is starved. One that waits for a lock
	// is told of as such.
	innodbMargin = 200 * time.Millisecond
	// InnoDB reads its transactions into a cache, and anew only when nobody has read the cache for 0.1 s (CACHE_MIN_IDLE_TIME_NS): who asks more often sees
	// what was, for as long as it goes on. So there are two of that between questions, and more while others' questions keep the cache from being filled.
	innodbPause    = 200 * time.Millisecond
	innodbMaxPause = 5 * time.Second
)

// OldestWriter implements [outbox.WriterWatcher]. PostgreSQL tells by the locks on the table, which every insert holds until its
// transaction ends, prepared ones included, and which everybody may see. MySQL and MariaDB tell of all transactions that have written something or wait for a
// lock, at most five times a second, and only to who has the PROCESS privilege; without it the error is [errors.ErrUnsupported]. Between two looks the answer is the last one, grown older.
// SQLite has one writer at a time: nobody can be late.
func (s *Source) OldestWriter(ctx context.Context) (time.Duration, error) {
	if s.box.d == SQLite {
		return 0, nil
	}
	select {
	case s.watch.turn <- struct{}{}:
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	defer func() { <-s.watch.turn }()
	now := time.Now()
	if s.box.d == MySQL {
		return s.oldestInnoDB(ctx, now)
	}
	found, err := s.lockers(ctx)
	if err != nil {
		return 0, err
	}
	return s.watch.note(now, found), nil
}

// lockers returns the transactions of PostgreSQL that hold the lock of an insert.
func (s *Source) lockers(ctx context.Context) (found []string, err error) {
	rows, err := s.db.QueryContext(ctx, "SELECT DISTINCT virtualtransaction FROM pg_locks WHERE locktype = 'relation' AND relation = $1::text::regclass"+
		" AND mode = 'RowExclusiveLock' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())", s.box.t.outbox)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			return nil, err
		}
		found = append(found, id)
	}
	return found, rows.Err()
}

// oldestInnoDB looks when it is time to, and otherwise, or when the cache was not filled anew, lets the last answer stand.
func (s *Source) oldestInnoDB(ctx context.Context, now time.Time) (time.Duration, error) {
	w := &s.watch
	if w.since.IsZero() {
		w.since = now.Add(-unseen)
	}
	if now.Sub(w.asked) < w.pause {
		return now.Sub(w.since), nil
	}
	found, fresh, err := s.innodb(ctx)
	w.asked = time.Now()
	if err != nil {
		if strings.Contains(err.Error(), "PROCESS privilege") {
			err = fmt.Errorf("%w: %w", errors.ErrUnsupported, err)
		}
		return 0, err
	}
	if fresh {
		w.since = now.Add(-w.note(now, found) - innodbMargin)
		w.pause /= 2
	} else {
		w.pause *= 2
	}
	w.pause = min(max(w.pause, innodbPause), innodbMaxPause)
	w.pause += rand.N(w.pause / 8) // relays that hinder each other fall out of step
	return now.Sub(w.since), nil
}

// innodb returns the transactions of the server that have written or wait for a lock. fresh: InnoDB looked for this question and not for an earlier
// one, since it found the transaction that asks, with the text of the question.
func (s *Source) innodb(ctx context.Context) (found []string, fresh bool, err error) {
	tx, err := s.db.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return nil, false, err
	}
	defer tx.Rollback()
	var ignored int64
	if err := tx.QueryRowContext(ctx, s.box.t.partitions).Scan(&ignored); err != nil { // begins it in InnoDB
		return nil, false, err
	}
	id := outbox.NewID()
	rows, err := tx.QueryContext(ctx, "SELECT trx_id, COALESCE(INSTR(trx_query, '"+id+"'), 0) > 0 FROM information_schema.innodb_trx"+
		" WHERE trx_rows_modified > 0 OR trx_state = 'LOCK WAIT' OR INSTR(trx_query, '"+id+"') > 0")
	if err != nil {
		return nil, false, err
	}
	defer rows.Close()
	for rows.Next() {
		var id string
		var own bool
		if err := rows.Scan(&id, &own); err != nil {
			return nil, false, err
		}
		if own {
			fresh = true
		} else {
			found = append(found, id)
		}
	}
	return found, fresh, rows.Err()
}

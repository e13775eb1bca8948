package guard

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/backstay-go/backstay/internal/sqldialect"
)

// DB runs guarded calls in transactions of a *sql.DB. It may be used by many
// goroutines.
type DB struct {
	db *sql.DB
	d  Dialect

	mu   sync.Mutex
	busy map[string]bool // keys with a call running in this process; guarded by mu
}

// New returns a runner on db. It panics if d is not one of the constants of
// this package. It does not touch the database: see [Check].
func New(db *sql.DB, d Dialect) *DB {
	if !d.Valid() {
		panic(fmt.Sprintf("guard.New: %v", d))
	}
	return &DB{db: db, d: d, busy: map[string]bool{}}
}

type txKey struct{}

// TxFrom returns the transaction in which a guarded function runs, and nil
// elsewhere. The function must do its work in it, and must not end it.
func TxFrom(ctx context.Context) *sql.Tx {
	tx, _ := ctx.Value(txKey{}).(*sql.Tx)
	return tx
}

// Run begins a transaction, makes the call and commits. fn finds the
// transaction with [TxFrom].
//
// While another call with the same key runs, in this process or another, the
// error is ErrRunning: a caller that waited would hold a connection each. After
// a deadlock or a serialization failure Run begins anew, so fn may run several
// times, and only the last run's effects remain. An error whose text begins
// with "commit: outcome unknown" tells that the connection was lost during the
// commit; the same call again finds out.
func (g *DB) Run(ctx context.Context, c Call, fn Func) (Answer, error) {
	if err := c.Validate(); err != nil {
		return Answer{}, err
	}
	if c.Op == OpCompensate {
		c.Key = strings.TrimSuffix(c.Key, undoSuffix) // one lock for both ops
	}
	if !g.enter(c.Key) {
		return Answer{}, ErrRunning
	}
	defer g.leave(c.Key)
	var a Answer
	err := sqldialect.InTx(ctx, g.db, g.d, func(tx *sql.Tx) (err error) {
		if err := g.lock(ctx, tx, c.Key); err != nil {
			return err
		}
		a, err = Run(context.WithValue(ctx, txKey{}, tx), SQL(tx, g.d), c, fn)
		return err
	})
	if err != nil {
		return Answer{}, err
	}
	return a, nil
}

func (g *DB) enter(key string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.busy[key] {
		return false
	}
	g.busy[key] = true
	return true
}

func (g *DB) leave(key string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.busy, key)
}

// lock asks, without waiting, whether another process runs the key. It is only
// there for a quick ErrRunning; that no call runs twice is the row's doing. So
// two keys with the same hash do no harm. All locks are the transaction's: a
// lock of the session would go back to the pool with the connection. SQLite
// has none and needs none: there the second writer waits for the file.
func (g *DB) lock(ctx context.Context, tx *sql.Tx, key string) error {
	switch g.d {
	case Postgres:
		sum := sha256.Sum256([]byte("backstay/guard/" + key))
		var ok bool
		id := int64(binary.BigEndian.Uint64(sum[:]))
		if err := tx.QueryRowContext(ctx, "SELECT pg_try_advisory_xact_lock($1)", id).Scan(&ok); err != nil {
			return fmt.Errorf("guard: lock: %w", err)
		}
		if !ok {
			return ErrRunning
		}
	case MySQL:
		// A row that another transaction has inserted and not committed is
		// locked, though it cannot be seen.
		var n int
		err := tx.QueryRowContext(ctx, "SELECT 1 FROM saga_guard WHERE guard_key = ? AND op = ? FOR UPDATE NOWAIT", key, string(OpAction)).Scan(&n)
		switch {
		case sqldialect.Classify(err) == sqldialect.Busy:
			return ErrRunning
		case err != nil && !errors.Is(err, sql.ErrNoRows):
			return fmt.Errorf("guard: lock: %w", err)
		}
	}
	return nil
}

// busyError reports whether err only says that someone else was in the way.
func busyError(err error) bool {
	return errors.Is(err, ErrRunning) || sqldialect.Classify(err).Retry()
}

package sqlstore

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/backstay-go/backstay/internal/sqldialect"
	"github.com/backstay-go/backstay/saga"
)

// Store implements the abilities of a saga store, except the ways in through
// a caller's transaction. It may be used by many goroutines.
type Store struct {
	pool   Pool
	d      sqldialect.Dialect
	native bool          // the driver takes Go slices for arrays; else they go as text
	line   chan struct{} // where writers of SQLite queue; nil elsewhere
	sql    texts         // statements of PostgreSQL that every step uses

	hub hub

	mu      sync.Mutex
	orphans []orphan // claims of which the answer was lost; guarded by mu
}

// New returns a store on pool. native tells that its connections take Go
// slices for PostgreSQL's arrays.
func New(pool Pool, d sqldialect.Dialect, native bool) *Store {
	s := &Store{pool: pool, d: d, native: native}
	switch d {
	case sqldialect.Postgres:
		s.sql = s.prepareTexts()
	case sqldialect.SQLite:
		s.line = make(chan struct{}, 1)
	}
	return s
}

// forever is the wake-up of a run that only mail or an operator brings back.
const forever = math.MaxInt64

// nodeMemory is how long a dead node is remembered at least, in microseconds:
// a start under it, in a transaction begun before its death, may commit later.
// Two days are longer than any database lets a transaction stand open.
const nodeMemory = int64(48 * time.Hour / time.Microsecond)

// now is the dialect's clock, in SQL.
func (s *Store) now() string { return s.d.NowMicros() }

// q rebinds a query.
func (s *Store) q(query string) string { return s.d.Rebind(query) }

// attempts bounds how often a transaction of the store's own is begun anew
// after a deadlock or the like.
const attempts = 10

// engine lends fn an engine connection.
func (s *Store) engine(ctx context.Context, fn func(EngineConn) error) error {
	for attempt := 1; ; attempt++ {
		done, err := s.turn(ctx)
		if err != nil {
			return err
		}
		c, release, err := s.pool.Engine(ctx)
		if err != nil {
			done()
			return err
		}
		err = fn(c)
		release(err)
		done()
		if err == nil || attempt == attempts || !sqldialect.Classify(err).Retry() || !pause(ctx, attempt) {
			return err
		}
	}
}

// engineTx runs fn in a transaction on an engine connection. It is begun anew
// after a deadlock or the like.
func (s *Store) engineTx(ctx context.Context, fn func(Tx) error) error {
	return s.engine(ctx, func(c EngineConn) error { return inTx(ctx, c, fn) })
}

// tx is engineTx on a plain connection.
func (s *Store) tx(ctx context.Context, fn func(Tx) error) error {
	for attempt := 1; ; attempt++ {
		done, err := s.turn(ctx)
		if err != nil {
			return err
		}
		err = inTx(ctx, s.pool, fn)
		done()
		if err == nil || attempt == attempts || !sqldialect.Classify(err).Retry() || !pause(ctx, attempt) {
			return err
		}
	}
}

// errCommit wraps the error of a commit whose outcome is unknown.
type errCommit struct{ err error }

func (e errCommit) Error() string { return "commit: outcome unknown: " + e.err.Error() }
func (e errCommit) Unwrap() error { return e.err }

func inTx(ctx context.Context, b interface {
	Begin(context.Context) (Tx, error)
}, fn func(Tx) error) error {
	tx, err := b.Begin(ctx)
	if err != nil {
		return err
	}
	defer rollback(ctx, tx) // after the commit it does nothing
	if err := fn(tx); err != nil {
		return err
	}
	if err := tx.Commit(ctx); err != nil {
		if sqldialect.UnknownCommit(err) {
			return errCommit{err}
		}
		return err
	}
	return nil
}

// rollback ends a transaction even when ctx is over.
func rollback(ctx context.Context, tx Tx) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	_ = tx.Rollback(ctx) // a connection that cannot roll back is gone, and its transaction too
}

// pause waits for a random time below 2^attempt milliseconds, at most 250 ms,
// and reports whether ctx is still alive.
func pause(ctx context.Context, attempt int) bool {
	t := time.NewTimer(rand.N(min(time.Millisecond<<attempt, 250*time.Millisecond)))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// wrap says which part of the store failed; the errors of saga's family stay
// as they are.
func wrap(what string, err error) error {
	if err == nil || errors.Is(err, saga.ErrFenced) || errors.Is(err, saga.ErrNotFound) || errors.Is(err, saga.ErrTerminal) ||
		errors.Is(err, saga.ErrBusy) || errors.Is(err, saga.ErrLocked) || errors.Is(err, saga.ErrShape) || errors.Is(err, saga.ErrUnknown) {
		return err
	}
	return fmt.Errorf("saga store: %s: %w", what, err)
}

// maxName is the longest name in bytes that the keys of all dialects hold.
const maxName = 255

// names checks values that go into text columns: NUL and broken UTF-8 would
// fail a whole batch in PostgreSQL and be kept by the others.
func names(values ...string) error {
	for _, v := range values {
		if len(v) > maxName {
			return fmt.Errorf("saga store: name %.40q…: %d bytes, at most %d", v, len(v), maxName)
		}
		if err := text(v); err != nil {
			return err
		}
	}
	return nil
}

func text(v string) error {
	if strings.IndexByte(v, 0) >= 0 || !utf8.ValidString(v) {
		return fmt.Errorf("saga store: %.40q is not text", v)
	}
	return nil
}

// entries checks a log's text columns.
func entries(log []saga.Entry) error {
	for i := range log {
		e := &log[i]
		if err := names(string(e.Event), string(e.Op), e.Verb, e.Actor); err != nil {
			return err
		}
		if err := text(e.Step); err != nil {
			return err
		}
		for _, n := range e.Next {
			if err := text(n); err != nil || strings.IndexByte(n, '\n') >= 0 {
				return fmt.Errorf("saga store: intent %.40q is not a line of text", n)
			}
		}
	}
	return nil
}

// micros converts a duration for SQL; a started microsecond counts.
func micros(d time.Duration) int64 { return int64((d + time.Microsecond - 1) / time.Microsecond) }

// at converts a time of the database; 0 and forever are the zero time.
func at(us int64) time.Time {
	if us == 0 || us == forever {
		return time.Time{}
	}
	return time.UnixMicro(us).UTC()
}

func bit(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// null is v, or NULL for the empty string.
func null(v string) any {
	if v == "" {
		return nil
	}
	return v
}

// blob is v, or NULL for a nil slice; an empty one stays empty.
func blob(v []byte) any {
	if v == nil {
		return nil
	}
	return v
}

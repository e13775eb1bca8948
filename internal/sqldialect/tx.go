package sqldialect

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"time"
)

// A Queryer is what *sql.DB, *sql.Tx and *sql.Conn have in common here.
type Queryer interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// txAttempts bounds the transactions of one InTx. With the pauses below the
// last begins about a second after the first, longer than any queue of
// victims seen under 64 writers on one row.
const txAttempts = 10

// InTx runs fn in a transaction with d's options and commits it. When fn or
// the commit fails with an error that a new transaction may escape
// ([Class.Retry]), everything is rolled back and fn runs again, at most ten
// times with jittered pauses; so fn must have no effect outside tx.
//
// Any other error rolls back and is returned as it is. An error of the commit
// for which [UnknownCommit] holds leaves the outcome open; it is wrapped in
// [CommitError] so that the caller can tell.
//
// In SQLite the first statement of fn must write: a transaction that reads
// first cannot wait for the lock when it comes to write.
func InTx(ctx context.Context, db *sql.DB, d Dialect, fn func(tx *sql.Tx) error) error {
	for attempt := 1; ; attempt++ {
		err := once(ctx, db, d, fn)
		if err == nil || attempt == txAttempts || !Classify(err).Retry() {
			return err
		}
		if _, open := err.(*CommitError); open {
			return err
		}
		if pause(ctx, attempt) != nil {
			return err
		}
	}
}

func once(ctx context.Context, db *sql.DB, d Dialect, fn func(tx *sql.Tx) error) error {
	tx, err := db.BeginTx(ctx, d.TxOptions())
	if err != nil {
		return err
	}
	defer tx.Rollback() // after Commit it does nothing; it also runs when fn panics
	if err := fn(tx); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		if UnknownCommit(err) {
			return &CommitError{Err: err}
		}
		return err
	}
	return nil
}

// A CommitError reports that the answer to a commit was lost: the transaction
// may or may not have been committed.
type CommitError struct{ Err error }

// Error says that the outcome is unknown, and why.
func (e *CommitError) Error() string { return fmt.Sprintf("commit: outcome unknown: %v", e.Err) }

// Unwrap returns the driver's error.
func (e *CommitError) Unwrap() error { return e.Err }

// pause sleeps for a random time below 2^attempt milliseconds, at most 250 ms.
func pause(ctx context.Context, attempt int) error {
	top := min(time.Millisecond<<attempt, 250*time.Millisecond)
	t := time.NewTimer(rand.N(top))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

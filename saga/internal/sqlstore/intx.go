package sqlstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/backstay-go/backstay/internal/sqldialect"
	"github.com/backstay-go/backstay/saga"
)

// settleTime bounds how long the outcome of a lost commit is looked for.
const settleTime = 10 * time.Second

// InTx runs a step's body in one transaction with its checkpoint. handle turns
// the store's transaction into what bodies get.
func (s *Store) InTx(ctx context.Context, at saga.Fence, handle func(Tx) any, body func(saga.Tx) (saga.Checkpoint, error)) (saga.Committed, error) {
	if err := names(at.ID); err != nil {
		return saga.Committed{}, err
	}
	cp, mail, err := s.inTx(ctx, at, handle, body)
	if err != nil && cp != nil { // of the commit
		return s.resolve(ctx, cp, err)
	}
	return saga.Committed{Mail: mail}, err
}

// inTx is InTx up to the answer of the commit: with an error, a checkpoint tells
// that the commit's outcome is unknown.
func (s *Store) inTx(ctx context.Context, at saga.Fence, handle func(Tx) any, body func(saga.Tx) (saga.Checkpoint, error)) (*saga.Checkpoint, int64, error) {
	done, err := s.turn(ctx)
	if err != nil {
		return nil, 0, wrap("begin", err)
	}
	defer done()
	tx, err := s.pool.Begin(ctx)
	if err != nil {
		return nil, 0, wrap("begin", err)
	}
	defer rollback(ctx, tx)
	if err := s.fence(ctx, tx, at); err != nil {
		return nil, 0, rolledBack(err)
	}
	cp, err := body(saga.Tx{
		Handle: handle(tx),
		Lock:   func(ctx context.Context, resource string) error { return s.lock(ctx, tx, at.ID, resource) },
	})
	if err != nil {
		if sqldialect.Classify(err).Retry() {
			return nil, 0, fmt.Errorf("%w: %w", saga.ErrRolledBack, err)
		}
		return nil, 0, err
	}
	if cp.ID != at.ID || cp.Epoch != at.Epoch || cp.Seq != at.Seq {
		return nil, 0, errors.New("saga store: the checkpoint is not that of the fence")
	}
	if err := checkpoint(&cp); err != nil {
		return nil, 0, err
	}
	mail, err := s.record(ctx, tx, &cp)
	if err != nil {
		return nil, 0, rolledBack(err)
	}
	err = tx.Commit(ctx)
	switch {
	case err == nil:
		return &cp, mail, nil
	case sqldialect.UnknownCommit(err):
		return &cp, 0, err
	}
	return nil, 0, rolledBack(err)
}

// rolledBack marks an error after which a new transaction may succeed.
func rolledBack(err error) error {
	if sqldialect.Classify(err).Retry() {
		return fmt.Errorf("%w: %w", saga.ErrRolledBack, err)
	}
	return wrap("step", err)
}

// fence is the first statement of the transaction: it locks the run at the
// given epoch and number, so that nobody takes it over before the commit.
func (s *Store) fence(ctx context.Context, c Conn, at saga.Fence) error {
	const where = " WHERE id = ? AND epoch = ? AND seq = ?"
	args := []any{at.ID, at.Epoch, at.Seq}
	var found bool
	var err error
	if s.d == sqldialect.SQLite {
		// A write, so that the transaction has the file from here on.
		var n int64
		n, err = c.Exec(ctx, "UPDATE saga_run SET seq = seq"+where, args...)
		found = n > 0
	} else {
		var n int64
		found, err = one(ctx, c, s.q("SELECT 1 FROM saga_run"+where+" FOR UPDATE"), args, &n)
	}
	if err == nil && !found {
		err = saga.ErrFenced
	}
	return err
}

// resolve finds out whether a commit took place whose answer was lost. The
// server may not have noticed yet that the connection is gone and still be
// about to commit, so it first waits for the run's lock, which the lost
// transaction holds; only then the log tells the truth.
func (s *Store) resolve(ctx context.Context, cp *saga.Checkpoint, cause error) (saga.Committed, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTime)
	defer cancel()
	var out saga.Committed
	for attempt := 1; ; attempt++ {
		err := s.tx(ctx, func(tx Tx) error {
			var err error
			if s.d == sqldialect.SQLite {
				_, err = tx.Exec(ctx, "UPDATE saga_run SET seq = seq WHERE id = ?", cp.ID)
			} else {
				var n int64
				_, err = one(ctx, tx, s.q("SELECT 1 FROM saga_run WHERE id = ? FOR UPDATE"), []any{cp.ID}, &n)
			}
			if err != nil {
				return err
			}
			mail, ok, err := s.repeated(ctx, tx, cp)
			if err == nil && !ok {
				err = saga.ErrRolledBack
			}
			out.Mail = mail
			return err
		})
		switch {
		case err == nil:
			return out, nil
		case errors.Is(err, saga.ErrRolledBack):
			return saga.Committed{}, fmt.Errorf("%w: %w", err, cause)
		case ctx.Err() != nil || !pause(ctx, attempt+4):
			return saga.Committed{}, fmt.Errorf("%w: %w", saga.ErrUnknown, cause)
		}
	}
}

// Lock makes an instance the holder of a resource, in a commit of its own.
func (s *Store) Lock(ctx context.Context, at saga.Fence, resource string) error {
	if err := names(at.ID, resource); err != nil {
		return err
	}
	return wrap("lock", s.tx(ctx, func(tx Tx) error {
		// By epoch alone: other branches of the same owner may write
		// checkpoints meanwhile.
		var n int64
		var found bool
		var err error
		if s.d == sqldialect.SQLite {
			n, err = tx.Exec(ctx, "UPDATE saga_run SET seq = seq WHERE id = ? AND epoch = ?", at.ID, at.Epoch)
			found = n > 0
		} else {
			found, err = one(ctx, tx, s.q("SELECT 1 FROM saga_run WHERE id = ? AND epoch = ? FOR UPDATE"), []any{at.ID, at.Epoch}, &n)
		}
		if err != nil {
			return err
		}
		if !found {
			return saga.ErrFenced
		}
		return s.lock(ctx, tx, at.ID, resource)
	}))
}

// lock takes a semantic lock in tx, which holds the run's lock.
func (s *Store) lock(ctx context.Context, c Conn, id, resource string) error {
	if err := names(resource); err != nil {
		return err
	}
	insert := "INSERT INTO saga_lock (resource, id) VALUES (?, ?)"
	if s.d != sqldialect.MySQL {
		insert += " ON CONFLICT DO NOTHING"
	}
	n, err := c.Exec(ctx, s.q(insert), resource, id)
	if s.d == sqldialect.MySQL && sqldialect.Classify(err) == sqldialect.Duplicate {
		n, err = 0, nil
	}
	if err != nil || n > 0 {
		return err
	}
	query := "SELECT id FROM saga_lock WHERE resource = ?"
	if s.d == sqldialect.MySQL {
		query += " LOCK IN SHARE MODE"
	}
	var holder string
	found, err := one(ctx, c, s.q(query), []any{resource}, &holder)
	switch {
	case err != nil:
		return err
	case found && holder == id:
		return nil
	}
	return saga.ErrLocked // also when it was let go between the statements: try again
}

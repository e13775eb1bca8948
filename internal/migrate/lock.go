package migrate

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"hash/fnv"
	"time"

	"github.com/backstay-go/backstay/internal/sqldialect"
)

// lockWait bounds how long Up waits for another process's migration.
const lockWait = 2 * time.Minute

// lock makes this connection the only one that migrates, and opens the
// transaction where DDL can be part of one. The returned function ends both:
// it commits if ok is true, else rolls back, and always lets go of the lock.
func (s Set) lock(ctx context.Context, conn *sql.Conn) (func(ok bool) error, error) {
	switch s.Dialect {
	case sqldialect.MySQL:
		return s.lockMySQL(ctx, conn)
	case sqldialect.SQLite:
		return begin(ctx, conn, "BEGIN IMMEDIATE")
	}
	unlock, err := begin(ctx, conn, "BEGIN ISOLATION LEVEL READ COMMITTED")
	if err != nil {
		return nil, err
	}
	// A lock of the transaction, not of the session, so that it also works
	// behind a pooler that hands connections out by transaction.
	h := fnv.New64a()
	h.Write([]byte("backstay/migrate/" + s.Name + "/" + s.Table))
	ctx, cancel := context.WithTimeout(ctx, lockWait)
	defer cancel()
	if _, err := conn.ExecContext(ctx, fmt.Sprintf("SELECT pg_advisory_xact_lock(%d)", int64(h.Sum64()))); err != nil {
		return nil, errors.Join(err, unlock(false))
	}
	return unlock, nil
}

// begin opens a transaction by statement: database/sql cannot ask SQLite for
// an immediate one, and a deferred one could not wait for the lock.
func begin(ctx context.Context, conn *sql.Conn, stmt string) (func(ok bool) error, error) {
	if err := waitBusy(ctx, func() error { _, err := conn.ExecContext(ctx, stmt); return err }); err != nil {
		return nil, err
	}
	return func(ok bool) error {
		// The end of the transaction must not be skipped because ctx is
		// over: the connection goes back to the pool.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		end := "ROLLBACK"
		if ok {
			end = "COMMIT"
		}
		_, err := conn.ExecContext(ctx, end)
		return err
	}, nil
}

// waitBusy repeats fn while SQLite says that the file is locked, for users
// who set no busy_timeout.
func waitBusy(ctx context.Context, fn func() error) error {
	deadline := time.NewTimer(lockWait)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := fn()
		if sqldialect.Classify(err) != sqldialect.Busy {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-deadline.C:
			return err
		case <-tick.C:
		}
	}
}

// lockMySQL takes a named lock of the session: DDL there ends transactions,
// so no row lock would live through it. The name carries the database,
// because named locks are the server's.
func (s Set) lockMySQL(ctx context.Context, conn *sql.Conn) (func(ok bool) error, error) {
	const name = "CONCAT('backstay/', SHA1(CONCAT(DATABASE(), '/', ?)))"
	var got sql.NullInt64
	err := conn.QueryRowContext(ctx, "SELECT GET_LOCK("+name+", ?)", s.Name+"/"+s.Table, int(lockWait.Seconds())).Scan(&got)
	if err != nil {
		return nil, err
	}
	if got.Int64 != 1 {
		return nil, fmt.Errorf("another process holds the migration lock for more than %v", lockWait)
	}
	return func(bool) error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		_, err := conn.ExecContext(ctx, "DO RELEASE_LOCK("+name+")", s.Name+"/"+s.Table)
		return err
	}, nil
}

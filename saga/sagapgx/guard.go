package sagapgx

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/backstay-go/backstay/internal/sqldialect"
	"github.com/backstay-go/backstay/saga/guard"
)

// GuardLog returns the [guard.Log] of a transaction that the caller has open
// and ends, for guard.Action and guard.Compensate. It should be READ COMMITTED,
// which is the default.
func GuardLog(tx pgx.Tx) guard.Log { return guardLog{tx} }

type guardLog struct{ tx pgx.Tx }

func (l guardLog) Claim(ctx context.Context, r guard.Row) (guard.Row, bool, error) {
	tag, err := l.tx.Exec(ctx, "INSERT INTO saga_guard (guard_key, op, by_op, epoch, done, at) VALUES ($1, $2, $3, $4, 0, "+
		sqldialect.Postgres.NowMicros()+") ON CONFLICT DO NOTHING", r.Key, string(r.Op), string(r.By), r.Epoch)
	if err != nil {
		return guard.Row{}, false, fmt.Errorf("guard: claim: %w", err)
	}
	if tag.RowsAffected() == 1 {
		return r, true, nil
	}
	var by string
	var done int16
	err = l.tx.QueryRow(ctx, "SELECT by_op, epoch, done, result FROM saga_guard WHERE guard_key = $1 AND op = $2", r.Key, string(r.Op)).
		Scan(&by, &r.Epoch, &done, &r.Result)
	if errors.Is(err, pgx.ErrNoRows) {
		// Purged between the two statements, or invisible to a snapshot.
		return guard.Row{}, false, fmt.Errorf("guard: claim of %q: the row is there and cannot be read: %w", r.Key, guard.ErrRunning)
	}
	if err != nil {
		return guard.Row{}, false, fmt.Errorf("guard: claim: %w", err)
	}
	r.By, r.Done = guard.Op(by), done != 0
	return r, false, nil
}

func (l guardLog) Finish(ctx context.Context, key string, op guard.Op, result []byte) error {
	_, err := l.tx.Exec(ctx, "UPDATE saga_guard SET done = 1, result = $1 WHERE guard_key = $2 AND op = $3", result, key, string(op))
	if err != nil {
		return fmt.Errorf("guard: result: %w", err)
	}
	return nil
}

func (l guardLog) Forget(ctx context.Context, key string, op guard.Op) error {
	_, err := l.tx.Exec(ctx, "DELETE FROM saga_guard WHERE guard_key = $1 AND op = $2", key, string(op))
	return err
}

// Guard runs guarded calls in transactions of a pgx pool: the [guard.Runner]
// for guard.HTTP and for gRPC servers. It may be used by many goroutines.
type Guard struct{ pool *pgxpool.Pool }

// NewGuard returns a guard on pool. The table must exist: see [Migrate], or
// guard.Migrate for a database that holds no sagas.
func NewGuard(pool *pgxpool.Pool) *Guard { return &Guard{pool} }

type txKey struct{}

// TxFrom returns the transaction in which a guarded function runs, and nil
// elsewhere. The function must do its work in it, and must not end it.
func TxFrom(ctx context.Context) pgx.Tx {
	tx, _ := ctx.Value(txKey{}).(pgx.Tx)
	return tx
}

// guardAttempts bounds the transactions of one Run; with the pauses between
// them the last begins about a second after the first.
const guardAttempts = 10

// Run begins a transaction, makes the call and commits: see [guard.DB.Run].
func (g *Guard) Run(ctx context.Context, c guard.Call, fn guard.Func) (guard.Answer, error) {
	if err := c.Validate(); err != nil {
		return guard.Answer{}, err
	}
	for attempt := 1; ; attempt++ {
		a, committing, err := g.once(ctx, c, fn)
		switch {
		case err == nil:
			return a, nil
		case committing && sqldialect.UnknownCommit(err):
			return guard.Answer{}, fmt.Errorf("commit: outcome unknown: %w", err)
		case attempt == guardAttempts || !sqldialect.Classify(err).Retry():
			return guard.Answer{}, err
		}
		t := time.NewTimer(rand.N(min(time.Millisecond<<attempt, 250*time.Millisecond)))
		select {
		case <-ctx.Done():
			t.Stop()
			return guard.Answer{}, err
		case <-t.C:
		}
	}
}

func (g *Guard) once(ctx context.Context, c guard.Call, fn guard.Func) (a guard.Answer, committing bool, err error) {
	tx, err := g.pool.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.ReadCommitted})
	if err != nil {
		return a, false, err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		tx.Rollback(ctx) // after the commit it does nothing
	}()
	// Only for a quick ErrRunning: that no call runs twice is the row's doing.
	sum := sha256.Sum256([]byte("backstay/guard/" + c.Key))
	var ok bool
	if err := tx.QueryRow(ctx, "SELECT pg_try_advisory_xact_lock($1)", int64(binary.BigEndian.Uint64(sum[:]))).Scan(&ok); err != nil {
		return a, false, fmt.Errorf("guard: lock: %w", err)
	}
	if !ok {
		return a, false, guard.ErrRunning
	}
	a, err = guard.Run(context.WithValue(ctx, txKey{}, tx), GuardLog(tx), c, fn)
	if err != nil {
		return a, false, err
	}
	return a, true, tx.Commit(ctx)
}

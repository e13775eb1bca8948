package saga_test

import (
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/backstay-go/backstay/integration/saga/sagadb"
	"github.com/backstay-go/backstay/internal/sqldialect"
	"github.com/backstay-go/backstay/saga"
	"github.com/backstay-go/backstay/saga/guard/guardtest"
	"github.com/backstay-go/backstay/saga/sagapgx"
	"github.com/backstay-go/backstay/saga/sagasql"
	"github.com/backstay-go/backstay/saga/sagatest"
)

var (
	_ fullStore = (*sagasql.Store)(nil)
	_ fullStore = (*sagapgx.Store)(nil)
)

type fullStore interface {
	saga.Store
	saga.Reader
	saga.Mailbox
	saga.Keeper
	saga.Transactor
	saga.Locker
	saga.Hinter
}

// opened is a store on a database of its own, with a second way in as another
// process would have it.
func sqlStore(t *testing.T, d sqldialect.Dialect) *sagasql.Store {
	t.Helper()
	db := sagadb.Open(t, d)
	if err := sagasql.Migrate(t.Context(), db, d); err != nil {
		t.Fatal(err)
	}
	store := sagasql.New(db, d)
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return store
}

func pgxPool(t testing.TB) *pgxpool.Pool {
	t.Helper()
	pool, err := pgxpool.New(t.Context(), sagadb.DSN(t, sqldialect.Postgres))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

func pgxStore(t *testing.T) *sagapgx.Store {
	t.Helper()
	pool := pgxPool(t)
	if err := sagapgx.Migrate(t.Context(), pool); err != nil {
		t.Fatal(err)
	}
	if err := sagapgx.Check(t.Context(), pool); err != nil {
		t.Fatal(err)
	}
	store := sagapgx.New(pool)
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return store
}

// eachStore runs fn on every store there is for SQL.
func eachStore(t *testing.T, fn func(t *testing.T, open func(t *testing.T) saga.Store)) {
	sagadb.Each(t, func(t *testing.T, d sqldialect.Dialect) {
		t.Parallel() // the cases wait more than they work
		fn(t, func(t *testing.T) saga.Store { return sqlStore(t, d) })
	})
	t.Run("pgx", func(t *testing.T) {
		t.Parallel()
		fn(t, func(t *testing.T) saga.Store { return pgxStore(t) })
	})
}

func TestStore(t *testing.T) {
	eachStore(t, func(t *testing.T, open func(t *testing.T) saga.Store) { sagatest.TestStore(t, open) })
}

func TestGuardPgx(t *testing.T) {
	guardtest.TestRunner(t, func(t *testing.T) guardtest.World {
		pool := pgxPool(t)
		if err := sagapgx.Migrate(t.Context(), pool); err != nil {
			t.Fatal(err)
		}
		if _, err := pool.Exec(t.Context(), "CREATE TABLE ledger (line text NOT NULL)"); err != nil {
			t.Fatal(err)
		}
		return pgxWorld(pool)
	})
}

package saga_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/backstay-go/backstay/integration/saga/sagadb"
	"github.com/backstay-go/backstay/internal/sqldialect"
	"github.com/backstay-go/backstay/saga"
	"github.com/backstay-go/backstay/saga/sagapgx"
	"github.com/backstay-go/backstay/saga/sagasql"
	"github.com/backstay-go/backstay/saga/sagatest"
)

// The acceptance cases of the engine on every SQL store.
func TestEngine(t *testing.T) {
	sagadb.Each(t, func(t *testing.T, d sqldialect.Dialect) {
		if d == sqldialect.SQLite && testing.Short() {
			t.Skip("skipped: -short is how the race detector runs this, and it slows SQLite, C translated to Go, 25 times: leases run out. MariaDB's store is the same code.")
		}
		t.Parallel() // the cases wait more than they work
		sagatest.TestEngine(t, sqlKit(d))
	})
	t.Run("pgx", func(t *testing.T) {
		t.Parallel()
		sagatest.TestEngine(t, pgxKit())
	})
}

var tables = []string{"saga_instance", "saga_run", "saga_node", "saga_log", "saga_mail", "saga_lock", "saga_def", "saga_guard"}

// withDB is a store with the pool that it is on.
type withDB struct {
	*sagasql.Store
	db *sql.DB
}

func sqlKit(d sqldialect.Dialect) sagatest.Kit {
	text := "text"
	if d == sqldialect.MySQL {
		text = "varbinary(255)"
	}
	return sagatest.Kit{
		TxKind: sagasql.TxKind,
		Open: func(t *testing.T) saga.Store {
			db := sagadb.Open(t, d)
			if err := sagasql.Migrate(t.Context(), db, d); err != nil {
				t.Fatal(err)
			}
			if _, err := db.Exec("CREATE TABLE business (k " + text + " NOT NULL PRIMARY KEY, v " + text + " NOT NULL)"); err != nil {
				t.Fatal(err)
			}
			store := sagasql.New(db, d)
			t.Cleanup(func() { store.Close() })
			return withDB{store, db}
		},
		Begin: func(t *testing.T, s saga.Store) (saga.Starter, func() error, func() error) {
			w := s.(withDB)
			tx, err := w.db.BeginTx(context.WithoutCancel(t.Context()), nil)
			if err != nil {
				t.Fatal(err)
			}
			return w.Tx(tx), tx.Commit, tx.Rollback
		},
		Write: func(ctx context.Context, handle any, key, value string) error {
			stmt := "INSERT INTO business (k, v) VALUES (?, ?) ON CONFLICT (k) DO UPDATE SET v = excluded.v"
			if d == sqldialect.MySQL {
				stmt = "REPLACE INTO business (k, v) VALUES (?, ?)"
			}
			_, err := handle.(*sql.Tx).ExecContext(ctx, d.Rebind(stmt), key, value)
			return err
		},
		Value: func(t *testing.T, s saga.Store, key string) string {
			var v string
			err := s.(withDB).db.QueryRow(d.Rebind("SELECT v FROM business WHERE k = ?"), key).Scan(&v)
			if err != nil && !errors.Is(err, sql.ErrNoRows) {
				t.Fatal(err)
			}
			return v
		},
		Dump: func(t *testing.T, s saga.Store) []byte {
			var out bytes.Buffer
			for _, table := range tables {
				rows, err := s.(withDB).db.Query("SELECT * FROM " + table)
				if err != nil {
					t.Fatal(err)
				}
				dump(t, &out, rows)
			}
			return out.Bytes()
		},
	}
}

func dump(t *testing.T, out *bytes.Buffer, rows *sql.Rows) {
	t.Helper()
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		t.Fatal(err)
	}
	for rows.Next() {
		values, dest := make([]any, len(columns)), make([]any, len(columns))
		for i := range values {
			dest[i] = &values[i]
		}
		if err := rows.Scan(dest...); err != nil {
			t.Fatal(err)
		}
		for _, v := range values {
			fmt.Fprintf(out, "%s|", v)
		}
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
}

type withPool struct {
	*sagapgx.Store
	pool *pgxpool.Pool
}

func pgxKit() sagatest.Kit {
	return sagatest.Kit{
		TxKind: sagapgx.TxKind,
		Open: func(t *testing.T) saga.Store {
			pool := pgxPool(t)
			if err := sagapgx.Migrate(t.Context(), pool); err != nil {
				t.Fatal(err)
			}
			if _, err := pool.Exec(t.Context(), "CREATE TABLE business (k text PRIMARY KEY, v text NOT NULL)"); err != nil {
				t.Fatal(err)
			}
			store := sagapgx.New(pool)
			t.Cleanup(func() { store.Close() })
			return withPool{store, pool}
		},
		Begin: func(t *testing.T, s saga.Store) (saga.Starter, func() error, func() error) {
			ctx, w := context.WithoutCancel(t.Context()), s.(withPool)
			tx, err := w.pool.Begin(ctx)
			if err != nil {
				t.Fatal(err)
			}
			return w.Tx(tx), func() error { return tx.Commit(ctx) }, func() error { return tx.Rollback(ctx) }
		},
		Write: func(ctx context.Context, handle any, key, value string) error {
			_, err := handle.(pgx.Tx).Exec(ctx, "INSERT INTO business (k, v) VALUES ($1, $2) ON CONFLICT (k) DO UPDATE SET v = excluded.v", key, value)
			return err
		},
		Value: func(t *testing.T, s saga.Store, key string) string {
			var v string
			err := s.(withPool).pool.QueryRow(context.WithoutCancel(t.Context()), "SELECT v FROM business WHERE k = $1", key).Scan(&v)
			if err != nil && !errors.Is(err, pgx.ErrNoRows) {
				t.Fatal(err)
			}
			return v
		},
		Dump: func(t *testing.T, s saga.Store) []byte {
			var out bytes.Buffer
			for _, table := range tables {
				rows, err := s.(withPool).pool.Query(context.WithoutCancel(t.Context()), "SELECT * FROM "+table)
				if err != nil {
					t.Fatal(err)
				}
				for rows.Next() {
					values, err := rows.Values()
					if err != nil {
						t.Fatal(err)
					}
					for _, v := range values {
						fmt.Fprintf(&out, "%s|", v)
					}
				}
				if err := rows.Err(); err != nil {
					t.Fatal(err)
				}
			}
			return out.Bytes()
		},
	}
}

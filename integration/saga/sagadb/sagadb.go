// Package sagadb opens databases of their own for the saga tests: one new
// database a test, dropped at its end, so that packages run side by side.
package sagadb

import (
	"context"
	"crypto/rand"
	"database/sql"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	_ "github.com/go-sql-driver/mysql" // the driver "mysql"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
	_ "modernc.org/sqlite"             // the driver "sqlite"

	"github.com/backstay-go/backstay/internal/sqldialect"
)

// Dialects are all that the tests run on.
var Dialects = []sqldialect.Dialect{sqldialect.SQLite, sqldialect.Postgres, sqldialect.MySQL}

// Each runs fn once for each dialect, as a subtest of its name.
func Each(t *testing.T, fn func(t *testing.T, d sqldialect.Dialect)) {
	for _, d := range Dialects {
		t.Run(d.String(), func(t *testing.T) { fn(t, d) })
	}
}

// Open returns a pool on a new, empty database and drops it when the test
// ends. It skips the test if the server is not there, or fails it if the
// environment has BACKSTAY_SERVERS=require.
func Open(t testing.TB, d sqldialect.Dialect) *sql.DB {
	t.Helper()
	return Pool(t, d, DSN(t, d))
}

// Pool opens a pool on dsn and closes it when the test ends.
func Pool(t testing.TB, d sqldialect.Dialect, dsn string) *sql.DB {
	t.Helper()
	db, err := Connect(d, dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// Connect opens a pool as Pool does, for programs that are no tests.
func Connect(d sqldialect.Dialect, dsn string) (*sql.DB, error) {
	db, err := sql.Open(driver(d), dsn)
	if err != nil {
		return nil, err
	}
	n := 24
	if d == sqldialect.SQLite {
		n = 8
	}
	db.SetMaxOpenConns(n)
	db.SetMaxIdleConns(n)
	return db, nil
}

func driver(d sqldialect.Dialect) string {
	switch d {
	case sqldialect.Postgres:
		return "pgx"
	case sqldialect.MySQL:
		return "mysql"
	}
	return "sqlite"
}

// DSN makes a new database and returns how to reach it.
func DSN(t testing.TB, d sqldialect.Dialect) string {
	t.Helper()
	name := "bs_saga_" + rand.Text()[:12]
	switch d {
	case sqldialect.SQLite:
		return SQLiteDSN(filepath.Join(t.TempDir(), name+".db"))
	case sqldialect.Postgres:
		need(t, "127.0.0.1:5432")
		name = lower(name)
		const admin = "postgres://postgres@127.0.0.1:5432/postgres?sslmode=disable"
		run(t, d, admin, "CREATE DATABASE "+name)
		t.Cleanup(func() { run(t, d, admin, "DROP DATABASE "+name+" WITH (FORCE)") })
		return fmt.Sprintf("postgres://postgres@127.0.0.1:5432/%s?sslmode=disable", name)
	default:
		need(t, "127.0.0.1:3306")
		name = lower(name)
		const admin = "root@tcp(127.0.0.1:3306)/"
		run(t, d, admin, "CREATE DATABASE "+name)
		t.Cleanup(func() { run(t, d, admin, "DROP DATABASE "+name) })
		return "root@tcp(127.0.0.1:3306)/" + name
	}
}

// SQLiteDSN is how a file is opened: write-ahead log, a wait for the lock,
// and every commit synced.
func SQLiteDSN(file string) string {
	return "file:" + file + "?_pragma=journal_mode(WAL)&_pragma=busy_timeout(10000)&_pragma=synchronous(FULL)"
}

func need(t testing.TB, addr string) {
	t.Helper()
	c, err := net.DialTimeout("tcp", addr, time.Second)
	if err == nil {
		c.Close()
		return
	}
	if os.Getenv("BACKSTAY_SERVERS") == "require" {
		t.Fatalf("no server at %s: %v", addr, err)
	}
	t.Skipf("skipped: no server at %s (BACKSTAY_SERVERS=require makes this a failure)", addr)
}

func run(t testing.TB, d sqldialect.Dialect, dsn, stmt string) {
	t.Helper()
	db, err := sql.Open(driver(d), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if _, err := db.ExecContext(ctx, stmt); err != nil {
		t.Fatalf("%s: %v", stmt, err)
	}
}

func lower(s string) string {
	b := []byte(s)
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

package saga_test

import (
	"context"
	"crypto/rand"
	"database/sql"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	_ "github.com/jackc/pgx/v5/stdlib"
)

const server = "127.0.0.1:5432"

func dsn(database string) string {
	return "postgres://postgres@" + server + "/" + database + "?sslmode=disable"
}

// database makes a database of the benchmark's own, drops it at the end and
// returns its name.
func database(b testing.TB) string {
	b.Helper()
	c, err := net.DialTimeout("tcp", server, time.Second)
	if err != nil {
		if os.Getenv("BACKSTAY_SERVERS") == "require" {
			b.Fatalf("no PostgreSQL at %s: %v", server, err)
		}
		b.Skipf("skipped: no PostgreSQL at %s", server)
	}
	c.Close()
	name := "bs_sagabench_" + strings.ToLower(rand.Text()[:10])
	admin, err := sql.Open("pgx", dsn("postgres"))
	if err != nil {
		b.Fatal(err)
	}
	if _, err := admin.Exec("CREATE DATABASE " + name); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		admin.Exec("DROP DATABASE " + name + " WITH (FORCE)")
		admin.Close()
	})
	return name
}

func pgxPool(b testing.TB, dsn string) *pgxpool.Pool {
	b.Helper()
	pool, err := pgxpool.New(context.Background(), dsn)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(pool.Close)
	return pool
}

func sqlPool(b testing.TB, dsn string) *sql.DB {
	b.Helper()
	db, err := sql.Open("pgx", dsn)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { db.Close() })
	db.SetMaxOpenConns(16)
	db.SetMaxIdleConns(16)
	return db
}

// Package outbox measures the outbox on PostgreSQL beside River and watermill-sql, which do the same work in the same run.
//
//	go test ./outbox -run '^$' -bench . -benchtime 1x -count 5      (in bench; the median of five counts)
package outbox

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/outboxpgx"
	"github.com/jackc/pgx/v5/pgxpool"
)

const admin = "postgres://postgres@127.0.0.1:5432/%s?sslmode=disable"

func TestMain(m *testing.M) {
	if role := os.Getenv("BACKSTAY_BENCH_ROLE"); role != "" {
		child(role)
		return
	}
	os.Exit(m.Run())
}

// newDatabase makes a database of the test's own and returns its DSN.
func newDatabase(tb testing.TB) string {
	tb.Helper()
	if c, err := net.DialTimeout("tcp", "127.0.0.1:5432", time.Second); err == nil {
		c.Close()
	} else if os.Getenv("BACKSTAY_SERVERS") == "require" {
		tb.Fatalf("no PostgreSQL: %v", err)
	} else {
		tb.Skip("skipped: no PostgreSQL at 127.0.0.1:5432 (BACKSTAY_SERVERS=require makes this a failure)")
	}
	name := "bs_outbox_" + strings.ToLower(rand.Text()[:12])
	execAll(tb, fmt.Sprintf(admin, "postgres"), "CREATE DATABASE "+name)
	tb.Cleanup(func() { execAll(tb, fmt.Sprintf(admin, "postgres"), "DROP DATABASE "+name+" WITH (FORCE)") })
	return fmt.Sprintf(admin, name)
}

func execAll(tb testing.TB, dsn string, statements ...string) {
	tb.Helper()
	pool := connect(tb, dsn)
	defer pool.Close()
	for _, s := range statements {
		if _, err := pool.Exec(context.Background(), s); err != nil {
			tb.Fatalf("%s: %v", s, err)
		}
	}
}

func connect(tb testing.TB, dsn string) *pgxpool.Pool {
	tb.Helper()
	pool, err := pgxpool.New(context.Background(), dsn+"&pool_max_conns=16")
	if err != nil {
		tb.Fatal(err)
	}
	return pool
}

// openBox makes the tables.
func openBox(tb testing.TB, pool *pgxpool.Pool) *outboxpgx.Box {
	tb.Helper()
	box := outboxpgx.New()
	db := outboxpgx.DB(pool)
	defer db.Close()
	if err := box.SQL.Migrate(context.Background(), db); err != nil {
		tb.Fatal(err)
	}
	if err := box.Load(context.Background(), pool); err != nil {
		tb.Fatal(err)
	}
	return box
}

// newMessage is one of about 300 bytes: a payload of 200, a key, and 100 of headers.
func newMessage(i int) outbox.Message {
	return outbox.Message{Topic: "orders", Key: fmt.Sprintf("order-%d", i%1000), Payload: payload(), Headers: headers()}
}

func payload() []byte { return []byte(`{"a":"` + strings.Repeat("x", 192) + `"}`) }

func headers() map[string]string {
	return map[string]string{"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "event": "order-placed"}
}

package store_test

import (
	"testing"

	"github.com/backstay-go/backstay/examples/shop/internal/store"
	"github.com/backstay-go/backstay/saga/guard"
)

func TestQ(t *testing.T) {
	const query = "UPDATE t SET a = ? WHERE b IN (?,?)"
	for d, want := range map[guard.Dialect]string{guard.SQLite: query, guard.Postgres: "UPDATE t SET a = $1 WHERE b IN ($2,$3)"} {
		if got := (&store.DB{Dialect: d}).Q(query); got != want {
			t.Errorf("%v: got %q, want %q", d, got, want)
		}
	}
	if got, want := store.List(3), "(?,?,?)"; got != want {
		t.Errorf("List: got %q, want %q", got, want)
	}
}

// A service's tables are there after Open, and after the next one.
func TestOpen(t *testing.T) {
	dir := t.TempDir()
	for range 2 {
		db, err := store.Open(t.Context(), "orders", dir, "", "CREATE TABLE IF NOT EXISTS a (n BIGINT); CREATE INDEX IF NOT EXISTS a_n ON a (n)")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := db.ExecContext(t.Context(), db.Q("INSERT INTO a (n) VALUES (?)"), 1); err != nil {
			t.Error(err)
		}
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}
}

// A folder belongs to one shop at a time.
func TestLock(t *testing.T) {
	dir := t.TempDir()
	unlock, err := store.Lock(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.Lock(t.Context(), dir); err == nil {
		t.Error("locked twice")
	}
	unlock()
	again, err := store.Lock(t.Context(), dir)
	if err != nil {
		t.Fatalf("after unlock: %v", err)
	}
	again()
}

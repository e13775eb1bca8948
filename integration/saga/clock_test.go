package saga_test

import (
	"database/sql"
	"fmt"
	"testing"
	"time"

	"github.com/backstay-go/backstay/integration/saga/sagadb"
	"github.com/backstay-go/backstay/internal/sqldialect"
	"github.com/backstay-go/backstay/saga"
	"github.com/backstay-go/backstay/saga/sagasql"
)

// skewed is a store whose database's clock is off by d from this process's: a
// function of the clock's name stands before the system's in the search path.
func skewed(t *testing.T, by time.Duration) (*sagasql.Store, *sql.DB) {
	t.Helper()
	d := sqldialect.Postgres
	dsn := sagadb.DSN(t, d)
	db := sagadb.Pool(t, d, dsn)
	if err := sagasql.Migrate(t.Context(), db, d); err != nil {
		t.Fatal(err)
	}
	var name string
	if err := db.QueryRow("SELECT current_database()").Scan(&name); err != nil {
		t.Fatal(err)
	}
	for _, stmt := range []string{
		"CREATE SCHEMA skew",
		fmt.Sprintf(`CREATE FUNCTION skew.statement_timestamp() RETURNS timestamptz STABLE LANGUAGE sql
AS $$ SELECT pg_catalog.statement_timestamp() + interval '%d seconds' $$`, int(by.Seconds())),
		"ALTER DATABASE " + name + " SET search_path = skew, public, pg_catalog",
	} {
		if _, err := db.Exec(stmt); err != nil {
			t.Fatal(err)
		}
	}
	db = sagadb.Pool(t, d, dsn) // new sessions
	store := sagasql.New(db, d)
	t.Cleanup(func() { store.Close() })
	return store, db
}

// However wrong the worker's clock is, no lease is stolen before its time and
// none outlives it: only the database's clock counts.
func TestSkewedClock(t *testing.T) {
	for _, by := range []time.Duration{-10 * time.Minute, 10 * time.Minute} {
		t.Run(by.String(), func(t *testing.T) {
			store, _ := skewed(t, by)
			ctx := t.Context()
			pulse, err := store.Beat(ctx, saga.Beat{Node: "a", TTL: 30 * time.Second})
			if err != nil {
				t.Fatal(err)
			}
			if off := time.Until(pulse.Now) - by; off.Abs() > time.Minute {
				t.Fatalf("the database's clock: got %v from ours, want about %v", time.Until(pulse.Now), by)
			}
			n := saga.NewInstance{ID: "i1", Ref: saga.Ref{Def: "d", Ver: 1}, Key: "k", Hash: "h", Codec: "json", Node: "a",
				Log: []saga.Entry{{Seq: 1, Event: saga.EventStart}}}
			if got, err := store.Start(ctx, []saga.NewInstance{n}); err != nil || !got[0].Owned {
				t.Fatalf("Start: got %+v, %v, want it owned", got, err)
			}
			if _, err := store.Beat(ctx, saga.Beat{Node: "b", TTL: 30 * time.Second}); err != nil {
				t.Fatal(err)
			}
			want := saga.Claim{Node: "b", Refs: []saga.Ref{n.Ref}, Max: 10}
			if got, err := store.Claim(ctx, want); err != nil || len(got) != 0 {
				t.Fatalf("Claim under a live lease: got %d, %v, want 0, nil", len(got), err)
			}
			// A lease that is over is over.
			if _, err := store.Beat(ctx, saga.Beat{Node: "a", TTL: time.Microsecond}); err != nil {
				t.Fatal(err)
			}
			if !poll(t, func() bool {
				got, err := store.Claim(ctx, want)
				if err != nil {
					t.Fatal(err)
				}
				return len(got) == 1
			}) {
				t.Error("Claim after the lease: got nothing")
			}
			// A wake-up lies as far ahead as was asked.
			if _, err := store.Commit(ctx, []saga.Checkpoint{{ID: "i1", Epoch: 2, Seq: 1, State: saga.Waiting, Release: true, Wake: 30 * time.Second}}); err != nil {
				t.Fatal(err)
			}
			if got, err := store.Claim(ctx, want); err != nil || len(got) != 0 {
				t.Errorf("Claim of a sleeping instance: got %d, %v, want 0, nil", len(got), err)
			}
		})
	}
}

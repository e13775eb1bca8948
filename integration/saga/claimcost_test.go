package saga_test

import (
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/backstay-go/backstay/integration/saga/sagadb"
	"github.com/backstay-go/backstay/internal/sqldialect"
	"github.com/backstay-go/backstay/saga"
	"github.com/backstay-go/backstay/saga/sagasql"
)

var crowd = flag.Int("saga.crowd", 100_000, "finished, sleeping and parked instances each, in TestClaimCost")

// A claim must not slow down with instances that are not due. Two databases,
// one empty and one with a crowd, are measured in turns, so that whatever else
// the machine does meets both.
//
//	go test ./saga -run ClaimCost -v -saga.crowd 1000000
func TestClaimCost(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped: fills a large table")
	}
	few, many := claims(t, 0), claims(t, *crowd)
	var fewTook, manyTook []time.Duration
	for round := range 300 {
		a, b := few(), many()
		if round >= 50 { // plans and caches
			fewTook, manyTook = append(fewTook, a), append(manyTook, b)
		}
	}
	slices.Sort(fewTook)
	slices.Sort(manyTook)
	a, b := fewTook[len(fewTook)/2], manyTook[len(manyTook)/2]
	t.Logf("median claim of 10: %v alone, %v among %d each of finished, sleeping and parked: %+.1f %%",
		a, b, *crowd, 100*(b.Seconds()/a.Seconds()-1))
	if b.Seconds() > 1.5*a.Seconds() {
		t.Errorf("claim among %d: got %v, want about %v", 3**crowd, b, a)
	}
}

// claims returns a function that starts ten sagas, claims them, ends them and
// tells how long the claim took, in a database with a crowd of others.
func claims(t *testing.T, crowd int) func() time.Duration {
	t.Helper()
	d := sqldialect.Postgres
	db, ctx := sagadb.Open(t, d), t.Context()
	if err := sagasql.Migrate(ctx, db, d); err != nil {
		t.Fatal(err)
	}
	fill(t, db, "finished-", crowd, "completed", "")
	fill(t, db, "sleeping-", crowd, "waiting", "4000000000000000")
	fill(t, db, "parked-", crowd, "parked-fwd", "9223372036854775807")
	if _, err := db.ExecContext(ctx, "VACUUM ANALYZE"); err != nil {
		t.Fatal(err)
	}
	store := sagasql.New(db, d)
	t.Cleanup(func() { store.Close() })
	ref := saga.Ref{Def: "d", Ver: 1}
	if _, err := store.Beat(ctx, saga.Beat{Node: "n", TTL: time.Hour}); err != nil {
		t.Fatal(err)
	}
	k := 0
	return func() time.Duration {
		batch := make([]saga.NewInstance, 10)
		for i := range batch {
			k++
			batch[i] = saga.NewInstance{ID: fmt.Sprintf("ffff-%08d", k), Ref: ref, Key: fmt.Sprint("due-", k), Hash: "h", Codec: "json",
				Log: []saga.Entry{{Seq: 1, Event: saga.EventStart}}}
		}
		if _, err := store.Start(ctx, batch); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		got, err := store.Claim(ctx, saga.Claim{Node: "n", Refs: []saga.Ref{ref}, Max: 10})
		took := time.Since(start)
		if err != nil || len(got) != 10 {
			t.Fatalf("claim: got %d, %v, want 10, nil", len(got), err)
		}
		cps := make([]saga.Checkpoint, len(got))
		for i, c := range got {
			cps[i] = saga.Checkpoint{ID: c.ID, Epoch: c.Epoch, Seq: 1, State: saga.Completed, Log: []saga.Entry{{Seq: 2, Event: saga.EventDone}}}
		}
		if _, err := store.Commit(ctx, cps); err != nil {
			t.Fatal(err)
		}
		return took
	}
}

// fill makes n instances in a state, with a run due at wake unless it is empty.
func fill(t *testing.T, db *sql.DB, name string, n int, state, wake string) {
	t.Helper()
	_, err := db.Exec(`INSERT INTO saga_instance (id, def, ver, tenant, business_key, input_hash, codec, prio, created_at, state, ended_at)
SELECT $1 || g, 'd', 1, '', $1 || g, 'h', 'json', 0, 0, CASE WHEN $2 = '' THEN $3 END, CASE WHEN $2 = '' THEN 1 END FROM generate_series(1, $4) g`,
		name, wake, state, n)
	if err == nil && wake != "" {
		_, err = db.Exec(`INSERT INTO saga_run (id, def, ver, prio, epoch, wake_at, seq, state, step, pivot, mail, seen)
SELECT $1 || g, 'd', 1, g % 10, 1, $2::bigint, 1, $3, '', 0, 0, 0 FROM generate_series(1, $4) g`, name, wake, state, n)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// To say that all live instances can be claimed, which health asks again and again, hardly any of them is read.
func TestUnclaimableCost(t *testing.T) {
	d := sqldialect.Postgres
	dsn := sagadb.DSN(t, d)
	watch := sagadb.Pool(t, d, dsn)
	watch.SetMaxOpenConns(1)
	list := func(want ...string) (read int64) {
		t.Helper()
		const reads = "SELECT SUM(idx_tup_read) + (SELECT seq_tup_read FROM pg_stat_user_tables WHERE relname = 'saga_run') FROM pg_stat_user_indexes WHERE relname = 'saga_run'"
		var before, after int64
		stats(t, watch)
		if err := watch.QueryRow(reads).Scan(&before); err != nil {
			t.Fatal(err)
		}
		db, err := sagadb.Connect(d, dsn)
		if err != nil {
			t.Fatal(err)
		}
		found, err := sagasql.New(db, d).List(t.Context(), saga.Filter{Except: []saga.Ref{{Def: "d", Ver: 1}, {Def: "plain", Ver: 3}}, Limit: 10})
		var ids []string
		for _, in := range found {
			ids = append(ids, in.ID)
		}
		if err = errors.Join(err, db.Close()); err != nil || !slices.Equal(ids, want) {
			t.Errorf("got %v, %v, want %v", ids, err, want)
		}
		stats(t, watch)
		if err := watch.QueryRow(reads).Scan(&after); err != nil {
			t.Fatal(err)
		}
		return after - before
	}
	func() {
		db, err := sagadb.Connect(d, dsn)
		if err == nil {
			err = sagasql.Migrate(t.Context(), db, d)
		}
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		fill(t, db, "sleeping-", 20_000, "waiting", "4000000000000000")
		fill(t, db, "parked-", 20_000, "parked-fwd", "9223372036854775807")
		if _, err := db.Exec("VACUUM ANALYZE"); err != nil {
			t.Fatal(err)
		}
	}()
	if n := list(); n > 100 {
		t.Errorf("read %d rows of 40,000, want a few", n)
	}
	if _, err := watch.Exec("UPDATE saga_run SET def = 'e', ver = 2 WHERE id = 'parked-7'"); err != nil {
		t.Fatal(err)
	}
	if _, err := watch.Exec("UPDATE saga_run SET ver = 2, owner = 'gone' WHERE id = 'sleeping-7'"); err != nil {
		t.Fatal(err)
	}
	list("parked-7", "sleeping-7")
}

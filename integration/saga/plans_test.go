package saga_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/backstay-go/backstay/integration/saga/sagadb"
	"github.com/backstay-go/backstay/internal/sqldialect"
	"github.com/backstay-go/backstay/saga"
	"github.com/backstay-go/backstay/saga/sagasql"
)

type order struct{ ID string }

// plain does nothing four times.
func plain(t testing.TB) *saga.Definition[order] {
	t.Helper()
	return saga.Must(saga.Define("plain", 1, func(b *saga.Builder[order]) {
		step := func(_ *saga.Ctx, o order) (string, error) { return o.ID, nil }
		undo := func(*saga.Ctx, order, saga.Result[string]) error { return nil }
		saga.Step(b, "a", step).Compensate(undo)
		saga.Step(b, "b", step).Compensate(undo)
		saga.Step(b, "c", step).Pivot()
		saga.Step(b, "d", step).Retriable()
	}))
}

// engine runs an engine until the test ends.
func engine(t testing.TB, store saga.Store, opts ...saga.Option) *saga.Engine {
	t.Helper()
	e := saga.New(store, opts...)
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- e.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("Run: got %v, want nil", err)
		}
	})
	return e
}

func runMany(t testing.TB, e *saga.Engine, d *saga.Definition[order], prefix string, sagas, atOnce int) {
	t.Helper()
	next := make(chan int)
	var wg sync.WaitGroup
	for range atOnce {
		wg.Go(func() {
			for i := range next {
				key := fmt.Sprint(prefix, i)
				h, err := d.Start(t.Context(), e, key, order{key})
				if err == nil {
					err = e.Wait(t.Context(), h.ID)
				}
				if err != nil {
					t.Errorf("saga %s: got %v, want nil", key, err)
				}
			}
		})
	}
	for i := range sagas {
		next <- i
	}
	close(next)
	wg.Wait()
}

// hot are the tables that every step reads or writes.
const hot = "'saga_run', 'saga_instance', 'saga_log', 'saga_node', 'saga_mail', 'saga_lock'"

type tableStats struct{ seqScans, updates, hotUpdates int64 }

// stats reads what the server counted. A session reports at its end, so it
// waits until there is no other one; the caller has closed them.
func stats(t testing.TB, db *sql.DB) map[string]tableStats {
	t.Helper()
	if !poll(t, func() bool {
		var others int
		err := db.QueryRow("SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()").Scan(&others)
		if err != nil {
			t.Fatal(err)
		}
		return others == 0
	}) {
		t.Fatal("the sessions do not end")
	}
	rows, err := db.Query("SELECT relname, seq_scan, n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname IN (" + hot + ")")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	out := map[string]tableStats{}
	for rows.Next() {
		var name string
		var s tableStats
		if err := rows.Scan(&name, &s.seqScans, &s.updates, &s.hotUpdates); err != nil {
			t.Fatal(err)
		}
		out[name] = s
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

// With tables that were never analysed PostgreSQL plans sequential scans for
// statements over many keys, and keeps such plans: the store must not have
// any, from the first saga on.
func TestNoSequentialScans(t *testing.T) {
	d := sqldialect.Postgres
	dsn := sagadb.DSN(t, d)
	first, err := sagadb.Connect(d, dsn)
	if err == nil {
		err = errors.Join(sagasql.Migrate(t.Context(), first, d), first.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	watch := sagadb.Pool(t, d, dsn)
	watch.SetMaxOpenConns(1)
	before := stats(t, watch) // creating an index scans the empty table
	func() {
		db, err := sagadb.Connect(d, dsn)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		store := sagasql.New(db, d)
		defer store.Close()
		def := plain(t)
		e := saga.New(store, saga.Register(def), saga.Config{Lease: 10 * time.Second, Poll: 20 * time.Millisecond})
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- e.Run(ctx) }()
		runMany(t, e, def, "owned-", 600, 60)
		for i := range 100 { // claimed, not owned from the start
			if _, err := def.Start(ctx, store, fmt.Sprint("claimed-", i), order{"x"}); err != nil {
				t.Error(err)
			}
		}
		for i := range 100 {
			in, err := e.Find(ctx, "", "plain", fmt.Sprint("claimed-", i))
			if err == nil {
				err = e.Wait(ctx, in.ID)
			}
			if err != nil {
				t.Error(err)
			}
		}
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		for range 200 { // leases, as of an engine that runs for half an hour
			if p, err := store.Beat(t.Context(), saga.Beat{Node: "n", TTL: time.Minute}); err != nil || p.Lost {
				t.Errorf("Beat: got %+v, %v", p, err)
			}
		}
	}()
	after := stats(t, watch)
	if n := after["saga_run"].updates - before["saga_run"].updates; n < 3*700 {
		t.Errorf("the server counted %d updates of saga_run, want at least %d", n, 3*700)
	}
	for name, s := range after {
		if n := s.seqScans - before[name].seqScans; n != 0 {
			t.Errorf("sequential scans of %s: got %d, want 0", name, n)
		}
	}
	// Lease renewals and checkpoints must stay on their page.
	for _, name := range []string{"saga_node", "saga_run"} {
		s := after[name]
		t.Logf("%s: %d updates, %d HOT", name, s.updates, s.hotUpdates)
	}
	if s := after["saga_node"]; s.updates == 0 || float64(s.hotUpdates) < 0.9*float64(s.updates) {
		t.Errorf("lease updates: got %d HOT of %d, want more than 90 %%", s.hotUpdates, s.updates)
	}
}

// poll waits for a condition that another process brings about.
func poll(t testing.TB, ok func() bool) bool {
	t.Helper()
	deadline := time.NewTimer(20 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if ok() {
			return true
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			return false
		}
	}
}

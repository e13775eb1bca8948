package saga_test

import (
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

// A claim must not slow down with instances that are not due. The medians are
// logged; the test itself fails only when the crowd is walked over, which
// takes many times as long, since others use the machine too.
//
//	go test ./saga -run ClaimCost -v -saga.crowd 1000000
func TestClaimCost(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped: fills a large table")
	}
	d := sqldialect.Postgres
	db, ctx := sagadb.Open(t, d), t.Context()
	if err := sagasql.Migrate(ctx, db, d); err != nil {
		t.Fatal(err)
	}
	store := sagasql.New(db, d)
	defer store.Close()
	ref := saga.Ref{Def: "d", Ver: 1}
	if _, err := store.Beat(ctx, saga.Beat{Node: "n", TTL: time.Hour}); err != nil {
		t.Fatal(err)
	}
	k := 0
	median := func() (claims time.Duration) {
		var took []time.Duration
		for range 60 {
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
			took = append(took, time.Since(start))
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
		}
		slices.Sort(took)
		return took[len(took)/2]
	}
	median() // plans and caches
	fill := func(name, state string, wake string) {
		_, err := db.ExecContext(ctx, `INSERT INTO saga_instance (id, def, ver, tenant, business_key, input_hash, codec, prio, created_at, state, ended_at)
SELECT $1 || g, 'd', 1, '', $1 || g, 'h', 'json', 0, 0, CASE WHEN $2 = '' THEN $3 END, CASE WHEN $2 = '' THEN 1 END FROM generate_series(1, $4) g`,
			name, wake, state, *crowd)
		if err == nil && wake != "" {
			_, err = db.ExecContext(ctx, `INSERT INTO saga_run (id, def, ver, prio, epoch, wake_at, seq, state, step, pivot, mail, seen)
SELECT $1 || g, 'd', 1, g % 10, 1, $2::bigint, 1, $3, '', 0, 0, 0 FROM generate_series(1, $4) g`, name, wake, state, *crowd)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	small := median()
	fill("finished-", "completed", "")
	fill("sleeping-", "waiting", "4000000000000000")
	fill("parked-", "parked-fwd", "9223372036854775807")
	if _, err := db.ExecContext(ctx, "ANALYZE"); err != nil {
		t.Fatal(err)
	}
	store.Close() // new sessions, new plans, as after a restart
	median()
	large := median()
	t.Logf("claim of 10: %v among few, %v among %d each of finished, sleeping and parked", small, large, *crowd)
	if large > 2*small+2*time.Millisecond {
		t.Errorf("claim among %d: got %v, want about %v", 3**crowd, large, small)
	}
}

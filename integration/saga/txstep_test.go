package saga_test

import (
	"context"
	"database/sql"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/backstay-go/backstay/integration/saga/sagadb"
	"github.com/backstay-go/backstay/internal/sqldialect"
	"github.com/backstay-go/backstay/saga"
	"github.com/backstay-go/backstay/saga/sagasql"
)

// A serialization failure ends the transaction: the step begins anew in a new
// one, without being charged an attempt, and a statement repeated within the
// failed one would fail for good.
func TestTxStepAfterSerializationFailure(t *testing.T) {
	d := sqldialect.Postgres
	db := sagadb.Open(t, d)
	if err := sagasql.Migrate(t.Context(), db, d); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec("CREATE TABLE effects (k text)"); err != nil {
		t.Fatal(err)
	}
	var calls atomic.Int32
	var attempts []int
	def := saga.Must(saga.Define("tx", 1, func(b *saga.Builder[order]) {
		sagasql.TxStep(b, "a", func(c *saga.Ctx, tx *sql.Tx, o order) (string, error) {
			attempts = append(attempts, c.Attempt())
			if _, err := tx.ExecContext(c, "INSERT INTO effects VALUES ($1)", o.ID); err != nil {
				return "", err
			}
			if calls.Add(1) <= 3 {
				_, err := tx.ExecContext(c, "DO $$ BEGIN RAISE EXCEPTION 'lost' USING ERRCODE = '40001'; END $$")
				return "", err
			}
			return "done", nil
		}, saga.Attempts(1)).NothingToUndo("test")
	}))
	store := sagasql.New(db, d)
	defer store.Close()
	e := engine(t, store, saga.Register(def))
	h, err := def.Start(t.Context(), e, "k", order{"o"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := e.Wait(ctx, h.ID); err != nil {
		t.Errorf("Wait: got %v, want nil (attempts %v)", err, attempts)
	}
	var n int
	if err := db.QueryRow("SELECT COUNT(*) FROM effects").Scan(&n); err != nil || n != 1 {
		t.Errorf("effects: got %d, %v, want 1, nil", n, err)
	}
}

// The fence is the first statement of a step's transaction: the body of a
// former owner does not even begin, and an owner's cannot be overtaken while
// it runs.
func TestTxStepFence(t *testing.T) {
	eachStore(t, func(t *testing.T, open func(t *testing.T) saga.Store) {
		store, ctx := open(t).(fullStore), t.Context()
		n := saga.NewInstance{ID: "i1", Ref: saga.Ref{Def: "d", Ver: 1}, Key: "k", Hash: "h", Codec: "json", Log: []saga.Entry{{Seq: 1, Event: saga.EventStart}}}
		if _, err := store.Start(ctx, []saga.NewInstance{n}); err != nil {
			t.Fatal(err)
		}
		claim := func(node string, ttl time.Duration) saga.Claimed {
			if _, err := store.Beat(ctx, saga.Beat{Node: node, TTL: ttl}); err != nil {
				t.Fatal(err)
			}
			var out saga.Claimed
			if !poll(t, func() bool {
				got, err := store.Claim(ctx, saga.Claim{Node: node, Refs: []saga.Ref{n.Ref}, Max: 1})
				if err != nil {
					t.Fatal(err)
				}
				if len(got) > 0 {
					out = got[0]
				}
				return len(got) == 1
			}) {
				t.Fatalf("node %s got nothing to claim", node)
			}
			return out
		}
		old := claim("a", 50*time.Millisecond)
		now := claim("b", time.Minute)
		if now.Epoch != old.Epoch+1 {
			t.Errorf("epoch after the takeover: got %d, want %d", now.Epoch, old.Epoch+1)
		}
		done := func(c saga.Claimed) saga.Checkpoint {
			return saga.Checkpoint{ID: "i1", Epoch: c.Epoch, Seq: 1, State: saga.Completed, Log: []saga.Entry{{Seq: 2, Event: saga.EventDone, Step: "a"}}}
		}
		ran := false
		_, err := store.InTx(ctx, saga.Fence{ID: "i1", Epoch: old.Epoch, Seq: 1}, func(saga.Tx) (saga.Checkpoint, error) {
			ran = true
			return done(old), nil
		})
		if !errors.Is(err, saga.ErrFenced) || ran {
			t.Errorf("InTx of the former owner: got %v, body ran %v, want ErrFenced, false", err, ran)
		}
		out, err := store.Commit(ctx, []saga.Checkpoint{done(old)})
		if err != nil || !errors.Is(out[0].Err, saga.ErrFenced) {
			t.Errorf("Commit of the former owner: got %+v, %v, want ErrFenced", out, err)
		}
		if log, err := store.History(ctx, "i1", 0, 10); err != nil || len(log) != 1 {
			t.Errorf("log after the former owner's writes: got %d entries, %v, want 1", len(log), err)
		}
		got, err := store.InTx(ctx, saga.Fence{ID: "i1", Epoch: now.Epoch, Seq: 1}, func(saga.Tx) (saga.Checkpoint, error) { return done(now), nil })
		if err != nil || got.Err != nil {
			t.Errorf("InTx of the owner: got %+v, %v, want nil", got, err)
		}
	})
}

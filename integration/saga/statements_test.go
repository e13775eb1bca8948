package saga_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/backstay-go/backstay/integration/saga/sagadb"
	"github.com/backstay-go/backstay/internal/sqldialect"
	"github.com/backstay-go/backstay/saga"
	"github.com/backstay-go/backstay/saga/sagapgx"
)

// traced counts statements.
type traced struct{ n atomic.Int64 }

func (t *traced) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	t.n.Add(1)
	return ctx
}

func (t *traced) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// stepwise starts an instance and returns what writes its next checkpoint.
func stepwise(t *testing.T, store saga.Store, id string) func() error {
	t.Helper()
	ctx := t.Context()
	if _, err := store.Beat(ctx, saga.Beat{Node: "node", TTL: time.Minute}); err != nil {
		t.Fatal(err)
	}
	got, err := store.Start(ctx, []saga.NewInstance{{ID: id, Ref: saga.Ref{Def: "d", Ver: 1}, Key: id, Hash: "h", Codec: "json", Input: []byte{}, Node: "node",
		Priority: -1, Log: []saga.Entry{{Seq: 1, Event: saga.EventStart, Next: []string{"+a#1"}}}}})
	if err != nil || len(got) != 1 || !got[0].Owned {
		t.Fatalf("start: got %+v, %v; want an instance of ours", got, err)
	}
	seq := int64(1)
	return func() error {
		cp := saga.Checkpoint{ID: id, Epoch: 1, Seq: seq, State: saga.Running, Step: "a",
			Log: []saga.Entry{{Seq: seq + 1, Event: saga.EventDone, Step: "a", Op: saga.Action, Attempt: 1, Data: []byte{0, 255}}}}
		done, err := store.Commit(ctx, []saga.Checkpoint{cp})
		if err == nil {
			err = done[0].Err
		}
		if err == nil {
			seq++
		}
		return err
	}
}

// TestStatementsOfOthersMaking: a pool that runs statements in a way of its own, or looks at each, has the store's run so as well.
func TestStatementsOfOthersMaking(t *testing.T) {
	for name, set := range map[string]func(*pgxpool.Config) *traced{
		"kept": func(*pgxpool.Config) *traced { return nil },
		"traced": func(c *pgxpool.Config) *traced {
			tr := &traced{}
			c.ConnConfig.Tracer = tr
			return tr
		},
		"described": func(c *pgxpool.Config) *traced {
			c.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe
			return nil
		},
		"unnamed": func(c *pgxpool.Config) *traced {
			c.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeDescribeExec
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, err := pgxpool.ParseConfig(sagadb.DSN(t, sqldialect.Postgres))
			if err != nil {
				t.Fatal(err)
			}
			cfg.MaxConns = 2
			tr := set(cfg)
			pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer pool.Close()
			if err := sagapgx.Migrate(t.Context(), pool); err != nil {
				t.Fatal(err)
			}
			store := sagapgx.New(pool)
			defer store.Close()
			next := stepwise(t, store, "i")
			if tr != nil {
				tr.n.Store(0)
			}
			for range 2 {
				if err := next(); err != nil {
					t.Fatal(err)
				}
			}
			if tr != nil && tr.n.Load() != 2 {
				t.Errorf("the tracer saw %d statements of two checkpoints, want 2", tr.n.Load())
			}
			if got, err := store.Get(t.Context(), "i"); err != nil || got.State != saga.Running || got.Step != "a" {
				t.Errorf("got %+v, %v; want a running instance at step a", got, err)
			}
			log, err := store.History(t.Context(), "i", 0, 10)
			if err != nil || len(log) != 3 || string(log[2].Data) != "\x00\xff" || log[2].Note != nil || log[2].Attempt != 1 || log[1].Seq != 2 {
				t.Errorf("got log %+v, %v; want a start and two ends with their data", log, err)
			}
		})
	}
}

// TestTablesChange: a statement that was prepared before the type of its result changed is prepared anew.
func TestTablesChange(t *testing.T) {
	pool := pgxPool(t)
	if err := sagapgx.Migrate(t.Context(), pool); err != nil {
		t.Fatal(err)
	}
	store := sagapgx.New(pool)
	defer store.Close()
	next := stepwise(t, store, "i")
	if err := next(); err != nil {
		t.Fatal(err)
	}
	if _, err := pool.Exec(t.Context(), "ALTER TABLE saga_run ALTER mail TYPE integer"); err != nil {
		t.Fatal(err)
	}
	if err := next(); err == nil {
		t.Fatal("the server took a plan of which the result has changed: this test shows nothing")
	}
	if err := next(); err != nil {
		t.Errorf("after the first failure: %v, want the statement prepared anew", err)
	}
}

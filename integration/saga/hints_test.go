package saga_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/backstay-go/backstay/integration/saga/sagadb"
	"github.com/backstay-go/backstay/internal/sqldialect"
	"github.com/backstay-go/backstay/saga"
	"github.com/backstay-go/backstay/saga/sagapgx"
	"github.com/backstay-go/backstay/saga/sagasql"
)

// rare is a Config whose polls and beats come too late for any test: what happens is told.
var rare = saga.Config{Poll: time.Hour, Lease: time.Hour, Hold: -1}

// soonEnough is how long a wake-up may take on a busy machine. It is far below rare's hour.
const soonEnough = 20 * time.Second

func within[T any](t *testing.T, what string, c <-chan T) (v T) {
	t.Helper()
	timer := time.NewTimer(soonEnough)
	defer timer.Stop()
	select {
	case v = <-c:
	case <-timer.C:
		t.Fatalf("%s: nothing happened within %v", what, soonEnough)
	}
	return v
}

// process is a way to the database as another process has it: its own pool, store and perhaps engine.
func process(t *testing.T, dsn string) *sagapgx.Store {
	t.Helper()
	pool, err := pgxpool.New(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	store := sagapgx.New(pool)
	t.Cleanup(func() { store.Close() })
	return store
}

type woken struct {
	*saga.Definition[order]
	ran    chan string
	causes chan error
}

// wakes waits for a signal, then runs a step that tells, then one that waits to be cancelled if the order says so.
func wakes() woken {
	w := woken{ran: make(chan string, 100), causes: make(chan error, 100)}
	w.Definition = saga.Must(saga.Define("wakes", 1, func(b *saga.Builder[order]) {
		undo := func(*saga.Ctx, order, saga.Result[string]) error { return nil }
		saga.Step(b, "first", func(c *saga.Ctx, o order) (string, error) {
			w.ran <- c.ID()
			return o.ID, nil
		}).Compensate(undo)
		saga.Step(b, "hold", func(c *saga.Ctx, o order) (string, error) {
			if o.ID != "hold" {
				return "", nil
			}
			w.ran <- "holding"
			<-c.Done()
			w.causes <- context.Cause(c)
			return "", c.Err()
		}, saga.Timeout(time.Hour)).Compensate(undo)
		saga.Wait[string](b, "await", "go")
		saga.Step(b, "second", func(c *saga.Ctx, _ order) (string, error) {
			w.ran <- "second"
			return "", nil
		}).Compensate(undo)
	}))
	return w
}

// TestNotify: what one process does is heard by the engine of another, which polls once an hour. Each part has processes of its own,
// and waits for the engine to be at rest: it finds what it finds by a hint, or not at all.
func TestNotify(t *testing.T) {
	dsn := sagadb.DSN(t, sqldialect.Postgres)
	pool, err := pgxpool.New(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	if err := sagapgx.Migrate(t.Context(), pool); err != nil {
		t.Fatal(err)
	}
	part := func(name string, fn func(t *testing.T, w woken, hears *hearing, there *sagapgx.Store, sender *saga.Engine)) {
		t.Run(name, func(t *testing.T) {
			there, w := process(t, dsn), wakes()
			hears := newHearing(process(t, dsn), 2)
			engine(t, hears, saga.Register(w), rare)
			hears.atRest(t)
			fn(t, w, hears, there, saga.New(there, saga.Register(w), rare)) // that engine does not run
		})
	}

	part("start", func(t *testing.T, w woken, _ *hearing, there *sagapgx.Store, _ *saga.Engine) {
		h, err := w.Start(t.Context(), there, "store", order{})
		if err != nil {
			t.Fatal(err)
		}
		within(t, "a start through the other store", w.ran)
		comes(t, there, h.ID, saga.Waiting)
	})

	part("start in a transaction", func(t *testing.T, w woken, _ *hearing, there *sagapgx.Store, _ *saga.Engine) {
		tx, err := pool.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		h, err := w.Start(t.Context(), there.Tx(tx), "tx", order{})
		if err != nil {
			t.Fatal(err)
		}
		if err := tx.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		within(t, "a start in the other process's transaction", w.ran)
		comes(t, there, h.ID, saga.Waiting)
	})

	part("signal", func(t *testing.T, w woken, _ *hearing, there *sagapgx.Store, sender *saga.Engine) {
		h, err := w.Start(t.Context(), there, "signal", order{})
		if err != nil {
			t.Fatal(err)
		}
		within(t, "a start", w.ran)
		comes(t, there, h.ID, saga.Waiting)
		if err := sender.Signal(t.Context(), h.ID, "go", "x", "1"); err != nil {
			t.Fatal(err)
		}
		if got := within(t, "a signal from the other process", w.ran); got != "second" {
			t.Errorf("got %q, want the second step", got)
		}
		comes(t, there, h.ID, saga.Completed)
	})

	part("cancel", func(t *testing.T, w woken, _ *hearing, there *sagapgx.Store, sender *saga.Engine) {
		h, err := w.Start(t.Context(), there, "hold", order{"hold"})
		if err != nil {
			t.Fatal(err)
		}
		within(t, "a start", w.ran)
		within(t, "its second step", w.ran)
		if err := sender.Cancel(t.Context(), h.ID, saga.By{Actor: "me"}); err != nil {
			t.Fatal(err)
		}
		if got := within(t, "a cancel from the other process", w.causes); !errors.Is(got, saga.ErrCancelled) {
			t.Errorf("the running body's context ended with %v, want ErrCancelled", got)
		}
		comes(t, there, h.ID, saga.Compensated)
	})

	// All connections are cut, as by a server that is started anew. The listener comes back after a second; by then a
	// store notices before it uses a connection that it kept.
	part("cut", func(t *testing.T, w woken, hears *hearing, there *sagapgx.Store, _ *saga.Engine) {
		h, err := w.Start(t.Context(), there, "before", order{}) // so that it keeps a connection
		if err != nil {
			t.Fatal(err)
		}
		within(t, "a start", w.ran)
		comes(t, there, h.ID, saga.Waiting)
		if _, err := pool.Exec(t.Context(), "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"); err != nil {
			t.Fatal(err)
		}
		within(t, "hearing begins again", hears.begun)
		if _, err := w.Start(t.Context(), there, "again", order{}); err != nil {
			t.Fatal(err)
		}
		within(t, "a start after the listener's connection was cut", w.ran)
	})
}

// comes waits until the instance is in that state: the next part's engine has nothing to do with one that waits or has ended.
func comes(t *testing.T, store saga.Reader, id string, to saga.State) {
	t.Helper()
	if !poll(t, func() bool {
		inst, err := store.Get(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		return inst.State == to
	}) {
		t.Fatalf("the instance does not come to be %s", to)
	}
}

// TestNotifyHandOver: when an engine stops, another takes its sagas over without waiting for a lease or a poll.
func TestNotifyHandOver(t *testing.T) {
	dsn := sagadb.DSN(t, sqldialect.Postgres)
	first, second := process(t, dsn), process(t, dsn)
	pool, err := pgxpool.New(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	if err := sagapgx.Migrate(t.Context(), pool); err != nil {
		t.Fatal(err)
	}
	w := wakes()
	config := rare
	config.Grace = -1
	hears := newHearing(first, 2)
	e := saga.New(hears, saga.Register(w), config)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- e.Run(ctx) }()
	hears.atRest(t)
	if _, err := w.Start(t.Context(), first, "k", order{"hold"}); err != nil {
		t.Fatal(err)
	}
	within(t, "the first step", w.ran)
	within(t, "the second step", w.ran)
	hears = newHearing(second, 2)
	engine(t, hears, saga.Register(w), config)
	hears.atRest(t)
	stop()
	if err := within(t, "the first engine's end", ended); err != nil {
		t.Error(err)
	}
	if got := within(t, "the body's end", w.causes); !errors.Is(got, saga.ErrStopped) {
		t.Errorf("the body's context ended with %v, want ErrStopped", got)
	}
	if got := within(t, "the step again, on the second engine", w.ran); got != "holding" {
		t.Errorf("got %q, want the step again", got)
	}
}

// hearing is a store that tells when its engine's ears are open and it is at rest. The engine looks for due instances once when
// it begins, and then when a hint comes, or an hour later. The hints which only say that hearing has begun are kept from it here; so
// it is at rest once they are over and the first look has ended.
type hearing struct {
	fullStore
	opening int32         // how many hints say that hearing has begun
	begun   chan struct{} // one for each time that it has
	first   sync.Once
	looked  chan struct{} // closed
}

func newHearing(s fullStore, opening int32) *hearing {
	return &hearing{fullStore: s, opening: opening, begun: make(chan struct{}, 10), looked: make(chan struct{})}
}

func (h *hearing) Hints(ctx context.Context, hint func(saga.Hint)) error {
	var n atomic.Int32
	return h.fullStore.Hints(ctx, func(x saga.Hint) {
		switch n := n.Add(1); {
		case n < h.opening:
		case n == h.opening:
			h.begun <- struct{}{}
		default:
			hint(x)
		}
	})
}

func (h *hearing) Claim(ctx context.Context, want saga.Claim) ([]saga.Claimed, error) {
	defer h.first.Do(func() { close(h.looked) })
	return h.fullStore.Claim(ctx, want)
}

// atRest waits until the engine does nothing unless it is told to.
func (h *hearing) atRest(t *testing.T) {
	t.Helper()
	within(t, "hearing begins", h.begun)
	within(t, "the engine's first look ends", h.looked)
}

// TestHintsInProcess: on every database the engine of the same store hears of starts in transactions, and of signals
// through another engine.
func TestHintsInProcess(t *testing.T) {
	sagadb.Each(t, func(t *testing.T, d sqldialect.Dialect) {
		db := sagadb.Open(t, d)
		if err := sagasql.Migrate(t.Context(), db, d); err != nil {
			t.Fatal(err)
		}
		part := func(name string, fn func(t *testing.T, w woken, e *saga.Engine, store *sagasql.Store)) {
			t.Run(name, func(t *testing.T) {
				store, w := sagasql.New(db, d), wakes()
				t.Cleanup(func() { store.Close() })
				hears := newHearing(store, 1)
				e := engine(t, hears, saga.Register(w), rare)
				hears.atRest(t)
				fn(t, w, e, store)
			})
		}
		part("start in a transaction", func(t *testing.T, w woken, _ *saga.Engine, store *sagasql.Store) {
			tx, err := db.BeginTx(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			h, err := w.Start(t.Context(), store.Tx(tx), "tx", order{})
			if err == nil {
				err = tx.Commit()
			}
			if err != nil {
				t.Fatal(err)
			}
			within(t, "a start in a transaction", w.ran)
			comes(t, store, h.ID, saga.Waiting)
		})
		part("signal", func(t *testing.T, w woken, e *saga.Engine, store *sagasql.Store) {
			h, err := w.Start(t.Context(), e, "signal", order{})
			if err != nil {
				t.Fatal(err)
			}
			within(t, "a start", w.ran)
			comes(t, store, h.ID, saga.Waiting)
			if err := saga.New(store, saga.Register(w), rare).Signal(t.Context(), h.ID, "go", "x", "1"); err != nil {
				t.Fatal(err)
			}
			if got := within(t, "a signal through another engine", w.ran); got != "second" {
				t.Errorf("got %q, want the second step", got)
			}
		})
	})
}

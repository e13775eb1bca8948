package saga_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/backstay-go/backstay/integration/saga/sagadb"
	"github.com/backstay-go/backstay/internal/sqldialect"
	"github.com/backstay-go/backstay/saga/guard"
	"github.com/backstay-go/backstay/saga/guard/guardtest"
)

// guarded opens a database with the guard's table and a ledger of effects.
func guarded(t *testing.T, d sqldialect.Dialect) *sql.DB {
	t.Helper()
	db := sagadb.Open(t, d)
	if err := guard.Check(t.Context(), db, d); err == nil {
		t.Error("Check of an empty database: got nil, want an error")
	}
	for range 2 {
		if err := guard.Migrate(t.Context(), db, d); err != nil {
			t.Fatal(err)
		}
	}
	if err := guard.Check(t.Context(), db, d); err != nil {
		t.Fatal(err)
	}
	text := "text"
	if d == guard.MySQL {
		text = "varbinary(600)"
	}
	if _, err := db.Exec("CREATE TABLE ledger (line " + text + " NOT NULL)"); err != nil {
		t.Fatal(err)
	}
	return db
}

func effects(db *sql.DB) func(context.Context) ([]string, error) {
	return func(ctx context.Context) ([]string, error) {
		rows, err := db.QueryContext(ctx, "SELECT line FROM ledger")
		if err != nil {
			return nil, err
		}
		defer rows.Close()
		var out []string
		for rows.Next() {
			var s string
			if err := rows.Scan(&s); err != nil {
				return nil, err
			}
			out = append(out, s)
		}
		return out, rows.Err()
	}
}

func effect(d sqldialect.Dialect) func(context.Context, string) error {
	return func(ctx context.Context, line string) error {
		_, err := guard.TxFrom(ctx).ExecContext(ctx, d.Rebind("INSERT INTO ledger (line) VALUES (?)"), line)
		return err
	}
}

func TestGuard(t *testing.T) {
	sagadb.Each(t, func(t *testing.T, d sqldialect.Dialect) {
		guardtest.TestRunner(t, func(t *testing.T) guardtest.World {
			db := guarded(t, d)
			return guardtest.World{Runner: guard.New(db, d), Effect: effect(d), Effects: effects(db)}
		})
	})
}

// Two processes do not share the runner's memory: the row and the lock of the
// database must tell them apart.
func TestGuardTwoProcesses(t *testing.T) {
	sagadb.Each(t, func(t *testing.T, d sqldialect.Dialect) {
		guardtest.TestRunner(t, func(t *testing.T) guardtest.World {
			db := guarded(t, d)
			return guardtest.World{Runner: &several{db: db, d: d}, Effect: effect(d), Effects: effects(db)}
		})
	})
}

// several makes a runner anew for each call.
type several struct {
	db *sql.DB
	d  sqldialect.Dialect
}

func (s *several) Run(ctx context.Context, c guard.Call, fn guard.Func) (guard.Answer, error) {
	return guard.New(s.db, s.d).Run(ctx, c, fn)
}

// In the caller's own transaction the second of two waits for the first, and
// inserts itself when the first is rolled back.
func TestGuardInCallersTransaction(t *testing.T) {
	for _, commit := range []bool{true, false} {
		t.Run(fmt.Sprintf("commit=%v", commit), func(t *testing.T) {
			sagadb.Each(t, func(t *testing.T, d sqldialect.Dialect) {
				db, ctx := guarded(t, d), t.Context()
				first, err := db.BeginTx(ctx, d.TxOptions())
				if err != nil {
					t.Fatal(err)
				}
				action := func(tx *sql.Tx, result string) (string, error) {
					return guard.Action(ctx, guard.SQL(tx, d), "s/a", func(context.Context) (string, error) { return result, nil })
				}
				if _, err := action(first, "first"); err != nil {
					t.Fatal(err)
				}
				var got string
				var secondErr error
				var wg sync.WaitGroup
				wg.Go(func() {
					secondErr = sqldialect.InTx(ctx, db, d, func(tx *sql.Tx) (err error) {
						got, err = action(tx, "second")
						return err
					})
				})
				if commit {
					err = first.Commit()
				} else {
					err = first.Rollback()
				}
				wg.Wait()
				want := map[bool]string{true: "first", false: "second"}[commit]
				if err != nil || secondErr != nil || got != want {
					t.Errorf("got %q, %v, %v, want %q, nil, nil", got, err, secondErr, want)
				}
			})
		})
	}
}

func TestGuardHTTP(t *testing.T) {
	sagadb.Each(t, func(t *testing.T, d sqldialect.Dialect) {
		db := guarded(t, d)
		h := guard.HTTP(guard.New(db, d), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if err := effect(d)(r.Context(), "line"); err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			if r.URL.Query().Get("no") != "" {
				http.Error(w, "no", http.StatusConflict)
				return
			}
			fmt.Fprint(w, "yes")
		}), guard.HTTPConfig{})
		server := httptest.NewServer(h)
		defer server.Close()
		post := func(path string) (int, string) {
			req, _ := http.NewRequestWithContext(t.Context(), "POST", server.URL+path, strings.NewReader("x"))
			req.Header.Set(guard.HeaderKey, "s/a")
			resp, err := server.Client().Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			return resp.StatusCode, resp.Header.Get(guard.HeaderGuard)
		}
		for i, want := range []string{"409 ran", "200 ran", "200 replayed"} {
			code, how := post([]string{"/?no=1", "/", "/"}[i])
			if got := fmt.Sprint(code, " ", how); got != want {
				t.Errorf("request %d: got %s, want %s", i, got, want)
			}
		}
		if got, err := effects(db)(t.Context()); err != nil || len(got) != 1 {
			t.Errorf("effects: got %q, %v, want one", got, err)
		}
	})
}

func TestGuardPurge(t *testing.T) {
	sagadb.Each(t, func(t *testing.T, d sqldialect.Dialect) {
		db, ctx := guarded(t, d), t.Context()
		g := guard.New(db, d)
		for i := range 5 {
			if _, err := g.Run(ctx, guard.Call{Key: fmt.Sprint("s/", i)}, func(context.Context, []byte) ([]byte, error) { return nil, nil }); err != nil {
				t.Fatal(err)
			}
		}
		if n, err := guard.Purge(ctx, db, d, time.Hour, 10); n != 0 || err != nil {
			t.Errorf("Purge of rows older than an hour: got %d, %v, want 0, nil", n, err)
		}
		if _, err := db.Exec("UPDATE saga_guard SET at = at - 7200000000 WHERE guard_key <> 's/3'"); err != nil {
			t.Fatal(err)
		}
		for i, want := range []int{3, 1, 0} {
			if n, err := guard.Purge(ctx, db, d, time.Hour, 3); n != want || err != nil {
				t.Errorf("Purge number %d: got %d, %v, want %d, nil", i, n, err, want)
			}
		}
		if _, err := guard.Purge(ctx, db, d, 0, 1); err == nil {
			t.Error("Purge with age 0: got nil, want an error")
		}
	})
}

// Many sagas at once on few keys: MySQL's duplicate-key locks deadlock there,
// and the runner must come through without losing or doubling an effect.
func TestGuardUnderContention(t *testing.T) {
	sagadb.Each(t, func(t *testing.T, d sqldialect.Dialect) {
		db, ctx := guarded(t, d), t.Context()
		var wg sync.WaitGroup
		for w := range 8 {
			g := guard.New(db, d)
			wg.Go(func() {
				for i := range 24 {
					op := []guard.Op{guard.OpAction, guard.OpCompensate}[(w+i)%2]
					key := fmt.Sprint("s/", i/4)
					for {
						_, err := g.Run(ctx, guard.Call{Key: key, Op: op}, func(ctx context.Context, _ []byte) ([]byte, error) {
							return nil, effect(d)(ctx, string(op)+key)
						})
						if errors.Is(err, guard.ErrRunning) {
							continue
						}
						if err != nil && !errors.Is(err, guard.ErrPoisoned) {
							t.Errorf("%s %s: got %v", op, key, err)
						}
						break
					}
				}
			})
		}
		wg.Wait()
		lines, err := effects(db)(ctx)
		if err != nil {
			t.Fatal(err)
		}
		count := map[string]int{}
		for _, l := range lines {
			count[l]++
		}
		for l, n := range count {
			if n != 1 {
				t.Errorf("effect %q: got %d times, want once", l, n)
			}
		}
		for i := range 6 {
			key := fmt.Sprint("s/", i)
			if count["action"+key] != count["compensate"+key] {
				t.Errorf("%s: got %d actions and %d undos, want as many", key, count["action"+key], count["compensate"+key])
			}
		}
	})
}

// A caller that goes away in the middle must not leave its key locked.
func TestGuardCancelledCall(t *testing.T) {
	sagadb.Each(t, func(t *testing.T, d sqldialect.Dialect) {
		db := guarded(t, d)
		for range 20 {
			ctx, cancel := context.WithCancel(t.Context())
			_, err := guard.New(db, d).Run(ctx, guard.Call{Key: "s/a"}, func(ctx context.Context, _ []byte) ([]byte, error) {
				cancel()
				<-ctx.Done()
				return nil, ctx.Err()
			})
			if !errors.Is(err, context.Canceled) && !errors.Is(err, guard.ErrRunning) { // the one before may be rolling back
				t.Errorf("got %v, want context.Canceled", err)
			}
		}
		var err error
		if !poll(t, func() bool { // the last rollback may be on its way
			_, err = guard.New(db, d).Run(t.Context(), guard.Call{Key: "s/a"}, func(context.Context, []byte) ([]byte, error) { return nil, nil })
			return err == nil
		}) {
			t.Errorf("a later call: got %v, want nil", err)
		}
	})
}

// Package kill_test kills, stops and cuts off processes that run sagas, and
// looks at what is left.
//
//	go test ./saga/kill -kill.rounds 300
package kill_test

import (
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/backstay-go/backstay/integration/saga/sagadb"
	"github.com/backstay-go/backstay/internal/sqldialect"
	"github.com/backstay-go/backstay/saga"
	"github.com/backstay-go/backstay/saga/sagasql"
)

var (
	rounds = flag.Int("kill.rounds", 60, "rounds, half of them on each database")
	seed   = flag.Uint64("kill.seed", 0, "seed of the first round; 0: by the clock")
)

func TestKill(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped: takes minutes")
	}
	for _, d := range []sqldialect.Dialect{sqldialect.Postgres, sqldialect.SQLite} {
		t.Run(d.String(), func(t *testing.T) {
			s := *seed
			if s == 0 {
				s = uint64(time.Now().UnixNano())
			}
			c := newCampaign(t, d)
			for i := range max(*rounds/2, 1) {
				c.round(i, s+uint64(i))
				if t.Failed() {
					t.Logf("round %d failed; again with -kill.rounds 2 -kill.seed %d", i, s+uint64(i))
					break
				}
			}
			t.Logf("%d rounds: %v", *rounds/2, c.tally)
		})
	}
}

// campaign is a database with two engines at work on it.
type campaign struct {
	t     *testing.T
	d     sqldialect.Dialect
	db    *sql.DB // the parent's own way in, which nobody cuts
	store *sagasql.Store
	def   *saga.Definition[trip]
	ask   *saga.Engine // never runs; for signals and cancels
	dsn   string       // the children's way in
	proxy *proxy
	kids  [2]*kid
	rng   *rand.Rand
	tally map[string]int
}

func newCampaign(t *testing.T, d sqldialect.Dialect) *campaign {
	t.Helper()
	dsn := sagadb.DSN(t, d)
	c := &campaign{t: t, d: d, dsn: dsn, db: sagadb.Pool(t, d, dsn), tally: map[string]int{}}
	ctx := t.Context()
	if err := errors.Join(sagasql.Migrate(ctx, c.db, d), createLedger(ctx, c.db, d)); err != nil {
		t.Fatal(err)
	}
	if d == sqldialect.Postgres {
		c.proxy = newProxy(t, "127.0.0.1:5432")
		c.dsn = strings.Replace(dsn, "127.0.0.1:5432", c.proxy.addr(), 1)
	}
	c.store = sagasql.New(c.db, d)
	t.Cleanup(func() { c.store.Close() })
	c.def = newWorld(c.db, d, func(string) {}).definition()
	c.ask = saga.New(c.store, saga.Register(c.def), config)
	t.Cleanup(func() {
		for _, k := range c.kids {
			if k != nil {
				k.kill()
			}
		}
	})
	return c
}

// kid is a child process.
type kid struct {
	cmd   *exec.Cmd
	stdin io.Closer
	gone  chan struct{}
}

func (c *campaign) spawn(point string, count int) *kid {
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), envDSN+"="+c.dsn, envDialect+"="+strconv.Itoa(int(c.d)), envPoint+"="+point, envCount+"="+strconv.Itoa(count))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		c.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	k := &kid{cmd, in, make(chan struct{})}
	go func() {
		cmd.Wait()
		close(k.gone)
	}()
	return k
}

func (k *kid) kill() {
	k.cmd.Process.Signal(syscall.SIGCONT)
	k.cmd.Process.Kill()
	<-k.gone
}

func (k *kid) dead() bool {
	select {
	case <-k.gone:
		return true
	default:
		return false
	}
}

// round starts some sagas, brings trouble over the engines and waits until all
// is at rest.
func (c *campaign) round(n int, seed uint64) {
	c.rng = rand.New(rand.NewPCG(seed, 1))
	trouble := []string{"point", "random", "stop", "both", "cut"}[n%5]
	if trouble == "cut" && c.proxy == nil {
		trouble = "point"
	}
	point, count := "", 0
	if trouble == "point" {
		point, count = points[c.rng.IntN(len(points))], 1+c.rng.IntN(6)
		c.tally[point]++
	}
	c.tally[trouble]++
	for i, k := range c.kids {
		if k == nil || k.dead() || i == 0 && point != "" {
			if k != nil {
				k.kill()
			}
			c.kids[i] = c.spawn(map[int]string{0: point}[i], count)
		}
	}
	ids := c.start(n)
	c.strike(trouble)
	for i, k := range c.kids {
		if k.dead() {
			c.kids[i] = c.spawn("", 0)
		}
	}
	c.rest(ids)
	c.check(n, ids)
}

// start makes sagas in transactions of the caller's, some of which roll back,
// and sends what they wait for, twice and too early.
func (c *campaign) start(round int) map[string]string {
	c.t.Helper()
	ctx := context.WithoutCancel(c.t.Context())
	ids := map[string]string{}
	for i := range 10 {
		in := trip{fmt.Sprintf("order-%d-%d", round, i), []string{"", "", "", "poor", "refused"}[c.rng.IntN(5)]}
		rollback := c.rng.IntN(5) == 0
		var h, again saga.Handle
		err := c.inTx(ctx, rollback, func(tx *sql.Tx) (err error) {
			if _, err := tx.ExecContext(ctx, c.d.Rebind("INSERT INTO orders (id) VALUES (?)"), in.Order); err != nil {
				return err
			}
			if h, err = c.def.Start(ctx, c.store.Tx(tx), in.Order, in); err != nil {
				return err
			}
			again, err = c.def.Start(ctx, c.store.Tx(tx), in.Order, in)
			return err
		})
		if err != nil {
			c.t.Fatalf("start: %v", err)
		}
		if again.ID != h.ID || !again.Existing {
			c.t.Fatalf("the same start again: got %+v, want %+v", again, h)
		}
		if rollback {
			continue
		}
		ids[h.ID] = in.Fate
		for range 2 {
			if err := c.ask.Signal(ctx, h.ID, "go", "now", "signal-1"); err != nil && !errors.Is(err, saga.ErrTerminal) {
				c.t.Fatalf("signal: %v", err)
			}
		}
		if c.rng.IntN(8) == 0 {
			ids[h.ID] = "cancelled"
			err := c.ask.Cancel(ctx, h.ID, saga.By{Actor: "test", Reason: "trouble"})
			if err != nil && !errors.Is(err, saga.ErrTerminal) && !errors.Is(err, saga.ErrAfterPivot) {
				c.t.Fatalf("cancel: %v", err)
			}
		}
	}
	return ids
}

func (c *campaign) inTx(ctx context.Context, rollback bool, fn func(*sql.Tx) error) error {
	err := sqldialect.InTx(ctx, c.db, c.d, func(tx *sql.Tx) error {
		if err := fn(tx); err != nil {
			return err
		}
		if rollback {
			return errNo
		}
		return nil
	})
	if rollback && errors.Is(err, errNo) {
		return nil
	}
	return err
}

// strike does the round's harm.
func (c *campaign) strike(trouble string) {
	switch trouble {
	case "point":
		c.wait(400 * time.Millisecond) // it dies by itself, if it comes by
	case "random":
		c.wait(time.Duration(c.rng.IntN(300)) * time.Millisecond)
		c.kids[c.rng.IntN(2)].kill()
	case "both":
		c.wait(time.Duration(c.rng.IntN(200)) * time.Millisecond)
		c.kids[0].kill()
		c.kids[1].kill()
	case "stop":
		c.wait(time.Duration(c.rng.IntN(60)) * time.Millisecond)
		k := c.kids[c.rng.IntN(2)]
		k.cmd.Process.Signal(syscall.SIGSTOP)
		c.wait(time.Duration(400+c.rng.IntN(500)) * time.Millisecond) // past the lease
		k.cmd.Process.Signal(syscall.SIGCONT)
	case "cut":
		for range 4 {
			c.proxy.cuts.Store(2)
			c.wait(time.Duration(20+c.rng.IntN(60)) * time.Millisecond)
		}
		c.proxy.cuts.Store(0)
		c.tally["cuts"] = int(c.proxy.done.Load())
	}
}

// wait lets other processes go on for a while. There is no event to wait for:
// the moment is meant to be arbitrary.
func (c *campaign) wait(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	<-t.C
}

// rest waits until no instance of the round is live.
func (c *campaign) rest(ids map[string]string) {
	c.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for id := range ids {
		for {
			in, err := c.store.Get(context.WithoutCancel(c.t.Context()), id)
			if err == nil && (in.State.Terminal() || in.State.Parked()) {
				c.tally[string(in.State)]++
				break
			}
			if time.Now().After(deadline) {
				c.show(id)
				mail, count, _ := c.store.Mail(context.WithoutCancel(c.t.Context()), id)
				c.t.Fatalf("instance %s (%q) is not at rest: %+v, %v; mail %d: %+v", id, ids[id], in, err, count, mail)
			}
			for i, k := range c.kids {
				if k.dead() { // a point of death that was passed late
					c.kids[i] = c.spawn("", 0)
				}
			}
			c.wait(10 * time.Millisecond)
		}
	}
}

// check holds the round's instances against the invariants.
func (c *campaign) check(round int, ids map[string]string) {
	c.t.Helper()
	ctx := context.WithoutCancel(c.t.Context())
	for _, id := range slices.Sorted(mapKeys(ids)) {
		if err := c.instance(ctx, id, ids[id]); err != nil {
			c.t.Errorf("round %d, instance %s (%q): %v", round, id, ids[id], err)
			c.show(id)
		}
	}
	var orders, instances, live int
	err := c.db.QueryRowContext(ctx, "SELECT (SELECT COUNT(*) FROM orders), (SELECT COUNT(*) FROM saga_instance), (SELECT COUNT(*) FROM saga_run)").
		Scan(&orders, &instances, &live)
	if err != nil || orders != instances || live != 0 {
		c.t.Errorf("round %d: %d orders, %d instances, %d live, %v: want as many instances as orders and none live", round, orders, instances, live, err)
	}
}

// show logs an instance's history.
func (c *campaign) show(id string) {
	log, err := c.store.History(context.WithoutCancel(c.t.Context()), id, 0, 60)
	if err != nil {
		c.t.Log(err)
	}
	for _, e := range log {
		c.t.Logf("%3d epoch %d %-10s %-10s %-10s #%d next %q %s", e.Seq, e.Epoch, e.Event, e.Step, e.Op, e.Attempt, e.Next, e.Note)
	}
}

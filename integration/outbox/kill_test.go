package outbox_test

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/outboxpgx"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

var (
	killRounds = flag.Int("outbox.rounds", 60, "rounds of the kill campaign")
	killSeed   = flag.Uint64("outbox.seed", 0, "seed of the kill campaign; 0: by the clock")
)

func TestMain(m *testing.M) {
	if os.Getenv("BACKSTAY_OUTBOX_ROLE") == "relay" {
		relayProcess()
		return
	}
	flag.Parse()
	os.Exit(m.Run())
}

const killLease = 300 * time.Millisecond

// relayProcess is one relay in a process of its own: until SIGTERM, or its input ends.
func relayProcess() {
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		io.Copy(io.Discard, bufio.NewReader(os.Stdin)) // "stop", or the parent is gone
		cancel()
	}()
	pool, err := pgxpool.New(ctx, os.Getenv("BACKSTAY_OUTBOX_DSN"))
	if err != nil {
		log.Fatal(err)
	}
	cfg := outbox.RelayConfig{
		Lease: killLease, MinBackoff: 5 * time.Millisecond, MaxBackoff: 100 * time.Millisecond, Sweep: 2 * time.Second, Batch: 50, MaxPoll: 100 * time.Millisecond,
	}
	cfg.Log = slog.New(slog.NewTextHandler(os.Stdout, nil))
	for { // the database may be away at the start
		relay := outbox.NewRelay(outboxpgx.New().Source(pool), newKillPublisher(os.Getenv("BACKSTAY_OUTBOX_BROKER")), cfg)
		err := relay.Run(ctx)
		if ctx.Err() != nil {
			if err != nil {
				log.Print("relay: ", err)
			}
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// A victim is a relay's process with its way to the database.
type victim struct {
	cmd   *exec.Cmd
	in    io.WriteCloser
	proxy *killProxy
}

type campaign struct {
	t       *testing.T
	broker  *killBroker
	dsn     string
	victims []*victim
	rng     *rand.Rand
	excuses *excuses
}

func (c *campaign) spawn(proxy *killProxy) *victim {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "BACKSTAY_OUTBOX_ROLE=relay", "BACKSTAY_OUTBOX_BROKER="+c.broker.addr,
		"BACKSTAY_OUTBOX_DSN="+strings.Replace(c.dsn, "127.0.0.1:5432", proxy.addr, 1)+"&pool_max_conns=4")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		c.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		c.t.Fatal(err)
	}
	go func() { // ends with the process
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if name, ok := strings.CutPrefix(lines.Text(), unknownLine); ok {
				c.excuses.unknownOutcome(name)
			}
		}
	}()
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	return &victim{cmd, in, proxy}
}

// faults are what a round does to one relay, or to the broker. The last does nothing: a round in which no message may come twice.
var faults = []struct {
	name string
	do   func(c *campaign, v *victim) *victim
}{
	{"kill", func(c *campaign, v *victim) *victim {
		v.cmd.Process.Kill()
		v.cmd.Wait()
		v.in.Close()
		return c.spawn(v.proxy)
	}},
	{"freeze", func(c *campaign, v *victim) *victim {
		v.cmd.Process.Signal(syscall.SIGSTOP)
		time.Sleep(2 * killLease)
		v.cmd.Process.Signal(syscall.SIGCONT)
		return v
	}},
	{"cut from the database", func(c *campaign, v *victim) *victim {
		v.proxy.refuse.Store(true)
		v.proxy.cut()
		time.Sleep(time.Duration(c.rng.Int64N(int64(2 * killLease))))
		v.proxy.refuse.Store(false)
		return v
	}},
	{"connections cut", func(c *campaign, v *victim) *victim { v.proxy.cut(); return v }},
	{"answers lost", func(c *campaign, v *victim) *victim { c.broker.lose.Store(3); return v }},
	{"cut from the broker", func(c *campaign, v *victim) *victim { c.broker.cut(); return v }},
	{"broker pauses", func(c *campaign, v *victim) *victim {
		resume := c.broker.pause()
		time.Sleep(2 * killLease)
		resume()
		return v
	}},
	{"broker restarts", func(c *campaign, v *victim) *victim {
		c.broker.stop()
		time.Sleep(killLease)
		c.broker.start(c.t, c.broker.addr)
		return v
	}},
	{"deploy", func(c *campaign, v *victim) *victim {
		v.in.Close() // shuts down in order
		v.cmd.Wait()
		return c.spawn(v.proxy)
	}},
	{"nothing", func(c *campaign, v *victim) *victim { time.Sleep(killLease); return v }},
}

const killKeys = 64

// TestKill kills, freezes and cuts off four relays while writers enqueue under 64 keys. Nothing is lost, nothing rolled back is
// published, first deliveries of a key are in order, and a message comes twice only with an excuse of its own, see excuses.
func TestKill(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped: takes minutes")
	}
	seed := *killSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("-outbox.seed=%d -outbox.rounds=%d", seed, *killRounds)
	box, pool := openPgx(t, "")
	c := &campaign{t: t, broker: newKillBroker(t), dsn: pool.Config().ConnString(), rng: rand.New(rand.NewPCG(seed, 0)), excuses: newExcuses(t, pool)}
	for range 4 {
		c.victims = append(c.victims, c.spawn(newKillProxy(t, "127.0.0.1:5432")))
	}
	defer func() {
		for _, v := range c.victims {
			v.cmd.Process.Kill()
			v.cmd.Wait()
		}
	}()
	w := &writers{box: box, pool: pool, seed: seed}
	stop := w.run(t)
	began := time.Now()
	for round := range *killRounds {
		fault := faults[round%len(faults)]
		i := c.rng.IntN(len(c.victims))
		time.Sleep(time.Duration(c.rng.Int64N(int64(100 * time.Millisecond))))
		c.victims[i] = fault.do(c, c.victims[i])
		// Whatever is committed now is to arrive, and its rows are to go.
		c.await(w.snapshot(), fmt.Sprintf("round %d, %s", round, fault.name))
		if t.Failed() {
			break
		}
	}
	stop()
	if !t.Failed() {
		c.await(w.snapshot(), "the end")
	}
	c.broker.mu.Lock()
	total := len(c.broker.log)
	c.broker.mu.Unlock()
	t.Logf("%d rounds in %v: %d arrivals; %s", *killRounds, time.Since(began).Round(time.Second), total, c.excuses)
}

// await waits until everything committed has arrived, and every repetition has its excuse, which may be told a little later than the repetition comes.
func (c *campaign) await(committed [killKeys]int, when string) {
	c.t.Helper()
	deadline := time.Now().Add(time.Minute) // a lease of 300 ms is short for a busy machine
	var bare time.Time                      // since when there has been a repetition without an excuse
	for {
		missing, unexcused, err := c.check(committed)
		switch {
		case err != nil:
			c.t.Errorf("%s: %v", when, err)
			return
		case unexcused == nil:
			bare = time.Time{}
			if !missing {
				return
			}
		case bare.IsZero():
			bare = time.Now()
		case time.Since(bare) > 2*time.Second:
			c.t.Errorf("%s: key %s: %d came again, though its partition had not been taken from anybody and no outcome was unknown", when, unexcused.Key, unexcused.N)
			return
		}
		if time.Now().After(deadline) {
			c.t.Errorf("%s: not all that was committed has arrived in a minute: lost", when)
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// check goes through the broker's log.
func (c *campaign) check(committed [killKeys]int) (missing bool, unexcused *arrival, err error) {
	c.broker.mu.Lock()
	log := slices.Clip(c.broker.log)
	c.broker.mu.Unlock()
	next := map[string]int{}
	var repeated []arrival
	for _, a := range log {
		switch want := next[a.Key]; {
		case a.N == want:
			next[a.Key]++
		case a.N > want:
			return false, nil, fmt.Errorf("key %s: %d arrived before %d", a.Key, a.N, want)
		default:
			repeated = append(repeated, a)
		}
	}
	unexcused, err = c.excuses.judge(repeated)
	for k, n := range committed {
		missing = missing || next[fmt.Sprint("k", k)] < n
	}
	return missing, unexcused, err
}

// writers enqueue under 64 keys, eight writers with eight keys each, so that the messages of a key are enqueued one transaction after the
// other. Transactions overlap between keys, commit late and roll back.
type writers struct {
	box       *outboxpgx.Box
	pool      *pgxpool.Pool
	seed      uint64
	committed [killKeys]atomic.Int64
}

func (w *writers) snapshot() (n [killKeys]int) {
	for k := range n {
		n[k] = int(w.committed[k].Load())
	}
	return n
}

var errRollback = errors.New("rolled back on purpose")

func (w *writers) run(t *testing.T) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			rng := rand.New(rand.NewPCG(w.seed, uint64(i+1)))
			for ctx.Err() == nil {
				key := i*8 + rng.IntN(8)
				n := 1 + rng.IntN(3)
				rollback := rng.IntN(10) == 0
				err := w.box.InTx(context.Background(), w.pool, func(tx pgx.Tx) error {
					var batch []outbox.Message
					for j := range n {
						batch = append(batch, outbox.Message{Topic: "t", Key: fmt.Sprint("k", key), Payload: fmt.Append(nil, int(w.committed[key].Load())+j)})
					}
					if rollback {
						for j := range batch {
							batch[j].Payload = []byte("1000000000") // shows up as a hole
						}
					}
					if err := w.box.Enqueue(context.Background(), tx, batch...); err != nil {
						return err
					}
					time.Sleep(time.Duration(rng.Int64N(int64(20 * time.Millisecond))))
					if rollback {
						return errRollback
					}
					return nil
				})
				switch {
				case err == nil:
					w.committed[key].Add(int64(n))
				case !errors.Is(err, errRollback):
					t.Errorf("writer: %v", err)
					return
				}
			}
		})
	}
	return func() { cancel(); all.Wait() }
}

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
	trouble map[int]int // lines that relays logged in a round: a lease lost to a busy machine, a deadline missed; guarded by broker.mu
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
			c.broker.mu.Lock()
			c.trouble[c.broker.round]++
			c.broker.mu.Unlock()
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
// published, first deliveries of a key are in order, and messages come twice only in rounds with a fault, or with one that a
// relay itself reports: on a busy machine a lease of 300 ms is lost now and then.
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
	c := &campaign{t: t, broker: newKillBroker(t), dsn: pool.Config().ConnString(), rng: rand.New(rand.NewPCG(seed, 0)), trouble: map[int]int{}}
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
	var duplicates int
	for round := range *killRounds {
		fault := faults[round%len(faults)]
		c.broker.mu.Lock()
		c.broker.round = round
		c.broker.mu.Unlock()
		i := c.rng.IntN(len(c.victims))
		time.Sleep(time.Duration(c.rng.Int64N(int64(100 * time.Millisecond))))
		c.victims[i] = fault.do(c, c.victims[i])
		// Whatever is committed now is to arrive, and its rows are to go.
		duplicates = c.await(w.snapshot(), fmt.Sprintf("round %d, %s", round, fault.name))
		if t.Failed() {
			break
		}
	}
	stop()
	if !t.Failed() {
		duplicates = c.await(w.snapshot(), "the end")
	}
	c.broker.mu.Lock()
	total := len(c.broker.log)
	c.broker.mu.Unlock()
	quiet, troubled := 0, 0
	c.broker.mu.Lock()
	for round := range *killRounds {
		if faults[round%len(faults)].name == "nothing" {
			quiet++
			if c.trouble[round] > 0 {
				troubled++
			}
		}
	}
	c.broker.mu.Unlock()
	t.Logf("%d rounds in %v: %d arrivals, %d of them repetitions; in %d of %d rounds without a fault a relay reported one",
		*killRounds, time.Since(began).Round(time.Second), total, duplicates, troubled, quiet)
}

// await waits until everything committed has arrived, then checks the log. It returns the repetitions so far.
func (c *campaign) await(committed [killKeys]int, when string) (duplicates int) {
	deadline := time.Now().Add(20 * time.Second)
	for {
		done, repeated, err := c.check(committed)
		if err != nil {
			c.t.Errorf("%s: %v", when, err)
			return repeated
		}
		if done {
			return repeated
		}
		if time.Now().After(deadline) {
			c.t.Errorf("%s: not all that was committed has arrived in 20 s: lost", when)
			return repeated
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func (c *campaign) check(committed [killKeys]int) (done bool, duplicates int, err error) {
	c.broker.mu.Lock()
	defer c.broker.mu.Unlock()
	next := map[string]int{}
	first := map[arrival]int{} // the round of the first arrival
	for _, a := range c.broker.log {
		message := arrival{Key: a.Key, N: a.N}
		switch want := next[a.Key]; {
		case a.N == want:
			next[a.Key]++
			first[message] = a.round
		case a.N > want:
			return false, duplicates, fmt.Errorf("key %s: %d arrived before %d", a.Key, a.N, want)
		default:
			duplicates++
			if first[message] == a.round && faults[a.round%len(faults)].name == "nothing" && c.trouble[a.round] == 0 {
				return false, duplicates, fmt.Errorf("key %s: %d came again in round %d, without a fault and without a word of a relay", a.Key, a.N, a.round)
			}
		}
	}
	for k, n := range committed {
		if next[fmt.Sprint("k", k)] < n {
			return false, duplicates, nil
		}
	}
	return true, duplicates, nil
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

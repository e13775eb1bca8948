package outbox

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/outboxpgx"
	"github.com/backstay-go/backstay/outbox/outboxsql"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
)

// child is the relay's process: it prints "key nanoseconds" for each message that it is handed, until its input ends.
func child(role string) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	pool, err := pgxpool.New(ctx, os.Getenv("BACKSTAY_BENCH_DSN")+"&pool_max_conns=8")
	if err != nil {
		log.Fatal(err)
	}
	var mu sync.Mutex
	out := bufio.NewWriter(os.Stdout)
	arrived := func(key string) {
		now := time.Now().UnixNano()
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintln(out, key, now)
		out.Flush()
	}
	switch role {
	case "river":
		client := newRiver(log.Default(), pool, func(a riverArgs) { arrived(a.Key) })
		if err := client.Start(ctx); err != nil {
			log.Fatal(err)
		}
	case "backstay":
		relay := outbox.NewRelay(outboxpgx.New().Source(pool), outbox.PublisherFunc(func(_ context.Context, batch []*outbox.Message, result []error) {
			for i, m := range batch {
				arrived(m.ID)
				result[i] = nil
			}
		}), outbox.RelayConfig{})
		go func() {
			if err := relay.Run(ctx); err != nil {
				log.Fatal(err)
			}
		}()
	}
	io.Copy(io.Discard, os.Stdin)
}

// startRelay starts the other process. The returned function stops it and returns when each message arrived.
func startRelay(b *testing.B, role, dsn string) (stop func(want int) map[string]time.Time) {
	b.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "BACKSTAY_BENCH_ROLE="+role, "BACKSTAY_BENCH_DSN="+dsn)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	var mu sync.Mutex
	got := map[string]time.Time{}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			key, at, _ := strings.Cut(lines.Text(), " ")
			ns, err := strconv.ParseInt(at, 10, 64)
			if err != nil {
				continue
			}
			mu.Lock()
			if _, again := got[key]; !again {
				got[key] = time.Unix(0, ns)
			}
			mu.Unlock()
		}
	}()
	return func(want int) map[string]time.Time {
		for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
			mu.Lock()
			n := len(got)
			mu.Unlock()
			if n >= want {
				break
			}
		}
		in.Close()
		<-ended
		cmd.Wait()
		return got
	}
}

// report compares when messages arrived with when their transactions had committed.
func report(b *testing.B, committed, arrived map[string]time.Time) {
	b.Helper()
	var took []time.Duration
	for key, at := range committed {
		if !strings.HasPrefix(key, "warm") {
			if _, ok := arrived[key]; !ok {
				b.Errorf("%s did not arrive", key)
			}
			took = append(took, arrived[key].Sub(at))
		}
	}
	slices.Sort(took)
	at := func(share float64) float64 {
		return float64(took[int(share*float64(len(took)-1))].Microseconds()) / 1000
	}
	b.ReportMetric(at(0.5), "p50-ms")
	b.ReportMetric(at(0.99), "p99-ms")
	b.ReportMetric(at(1), "max-ms")
	b.ReportMetric(0, "ns/op")
}

// pace calls f n times, rate times a second, after some calls to warm up; f returns the time of its commit.
func pace(n, rate int, f func(key string) time.Time) map[string]time.Time {
	committed := map[string]time.Time{}
	tick := time.NewTicker(time.Second / time.Duration(rate))
	defer tick.Stop()
	for i := range n + n/5 {
		<-tick.C
		key := fmt.Sprint("m", i)
		if i < n/5 {
			key = "warm-" + key
		}
		committed[key] = f(key)
	}
	return committed
}

const (
	latencyMessages = 1000
	latencyRate     = 200
)

func BenchmarkOutboxLatency(b *testing.B) {
	ctx := context.Background()
	ours := func(cfg outboxsql.Config, produce func(box *outboxpgx.Box, pool *pgxpool.Pool) map[string]time.Time) func(b *testing.B) {
		return func(b *testing.B) {
			for range b.N {
				dsn := newDatabase(b)
				pool := connect(b, dsn)
				openBox(b, pool).Close()
				stop := startRelay(b, "backstay", dsn)
				box := outboxpgx.New(cfg)
				committed := produce(box, pool)
				report(b, committed, stop(len(committed)))
				box.Close()
				pool.Close()
			}
		}
	}
	inTx := func(box *outboxpgx.Box, pool *pgxpool.Pool) map[string]time.Time {
		return pace(latencyMessages, latencyRate, func(key string) time.Time {
			var before time.Time
			m := newMessage(0)
			m.ID, m.Key = key, key
			err := box.InTx(ctx, pool, func(tx pgx.Tx) error { return box.Enqueue(ctx, tx, m) })
			if before = time.Now(); err != nil {
				b.Error(err)
			}
			return before
		})
	}
	enqueue := func(box *outboxpgx.Box, pool *pgxpool.Pool) map[string]time.Time {
		box.HintThrough(pool)
		return pace(latencyMessages, latencyRate, func(key string) time.Time {
			m := newMessage(0)
			m.ID, m.Key = key, key
			if err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error { return box.Enqueue(ctx, tx, m) }); err != nil {
				b.Error(err)
			}
			return time.Now()
		})
	}
	b.Run("backstay-intx", ours(outboxsql.Config{}, inTx))
	b.Run("backstay-enqueue", ours(outboxsql.Config{}, enqueue))
	b.Run("backstay-poll-only", ours(outboxsql.Config{Silent: true}, inTx))
	b.Run("backstay-late-commits", ours(outboxsql.Config{}, lateCommits(b)))
	b.Run("river", func(b *testing.B) {
		for range b.N {
			dsn := newDatabase(b)
			pool := connect(b, dsn)
			client := newRiver(b, pool, func(riverArgs) {})
			stop := startRelay(b, "river", dsn)
			committed := pace(latencyMessages, latencyRate, func(key string) time.Time {
				if err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
					_, err := client.InsertTx(ctx, tx, riverArgs{Key: key, Headers: headers(), Payload: payload()}, &river.InsertOpts{})
					return err
				}); err != nil {
					b.Error(err)
				}
				return time.Now()
			})
			report(b, committed, stop(len(committed)))
			pool.Close()
		}
	})
}

// lateCommits is 8 writers that commit 0 to 50 ms after the enqueue, 500 messages a second together. Like in pace, what they send in a first fifth more is to
// warm up: the relay's process is still starting.
func lateCommits(b *testing.B) func(box *outboxpgx.Box, pool *pgxpool.Pool) map[string]time.Time {
	return func(box *outboxpgx.Box, pool *pgxpool.Pool) map[string]time.Time {
		ctx := context.Background()
		box.HintThrough(pool)
		const warm, measured = time.Second, 5 * time.Second
		const writers, perTx = 8, 2 // a writer makes about 40 transactions a second
		start := time.Now()
		committed := map[string]time.Time{}
		var mu sync.Mutex
		var all sync.WaitGroup
		for w := range writers {
			all.Go(func() {
				for i := 0; ; i++ {
					prefix := ""
					switch since := time.Since(start); {
					case since < warm:
						prefix = "warm-"
					case since > warm+measured:
						return
					}
					var keys []string
					err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
						for n := range perTx {
							m := newMessage(0)
							m.ID = fmt.Sprintf("%sw%d-%d-%d", prefix, w, i, n)
							m.Key = m.ID
							keys = append(keys, m.ID)
							if err := box.Enqueue(ctx, tx, m); err != nil {
								return err
							}
						}
						time.Sleep(rand.N(50 * time.Millisecond))
						return nil
					})
					at := time.Now()
					if err != nil {
						b.Error(err)
					}
					mu.Lock()
					for _, k := range keys {
						committed[k] = at
					}
					mu.Unlock()
				}
			})
		}
		all.Wait()
		b.ReportMetric(float64(len(committed))/(warm+measured).Seconds(), "msgs/s")
		return committed
	}
}

package published_test

import (
	"fmt"
	"iter"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backstay-go/backstay/retry"
)

// row is a row of a database with optimistic concurrency: a write succeeds when nobody has written since the writer read.
type row struct {
	mu      sync.Mutex
	version int // guarded by mu, as is writes
	writes  int
}

func (r *row) read() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.version
}

func (r *row) write(version int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.writes++
	if version != r.version {
		return false
	}
	r.version++
	return true
}

// contend lets clients update one row, each until it has succeeded once, and returns how many writes they tried and when the last one was done. A message takes
// |Normal(10, 2)| ms.
func contend(clients int, seed uint64, config retry.Config) (writes int, took time.Duration) {
	shared, start := &row{}, time.Now()
	var all sync.WaitGroup
	for i := range clients {
		all.Go(func() {
			rng := rand.New(rand.NewPCG(seed, uint64(i)))
			message := func() time.Duration {
				return time.Duration(math.Abs(10+2*rng.NormFloat64()) * float64(time.Millisecond))
			}
			config := config
			config.Rand = rng.Float64 // one source for each client: the result is the seed's, whatever the order in which goroutines run
			wait, stop := iter.Pull(retry.New(config).Delays())
			defer stop()
			time.Sleep(message())
			for {
				version := shared.read()
				time.Sleep(message() + message()) // the answer, and the write on its way
				ok := shared.write(version)
				time.Sleep(message())
				if ok {
					return
				}
				d, _ := wait()
				time.Sleep(d + message())
			}
		})
	}
	all.Wait()
	return shared.writes, time.Since(start)
}

// TestBackoffAndJitter (R1) has clients contend for one row of a database, with our back-off between their tries.
func TestBackoffAndJitter(t *testing.T) {
	if testing.Short() {
		t.Skip("runs for seconds")
	}
	const runs = 100
	tab := compare(t, "AWS, Exponential Backoff and Jitter (2015): aws-arch-backoff-simulator, the authors' code run as it is, mean of 100 runs")
	// The authors' first wait is twice the base of 5 ms. Decorrelated jitter begins at the base itself.
	configs := []struct {
		name   string
		config retry.Config
		calls  map[int]float64 // by number of clients
		took   map[int]float64 // in ms
	}{
		{"no back-off", retry.Config{Delay: -1, Jitter: retry.None}, map[int]float64{10: 51, 50: 688, 100: 2425}, map[int]float64{50: 1143, 100: 2033}},
		{"exponential", retry.Config{Delay: 10 * time.Millisecond, Jitter: retry.None}, map[int]float64{10: 50, 50: 623, 100: 1849}, map[int]float64{50: 36399, 100: 63168}},
		{"decorrelated jitter", retry.Config{Delay: 5 * time.Millisecond, Jitter: retry.Decorrelated}, map[int]float64{10: 38, 50: 372, 100: 1001}, map[int]float64{50: 2218, 100: 4418}},
		{"equal jitter", retry.Config{Delay: 10 * time.Millisecond, Jitter: retry.Equal}, map[int]float64{10: 42, 50: 347, 100: 811}, map[int]float64{50: 4222, 100: 6565}},
		{"full jitter", retry.Config{Delay: 10 * time.Millisecond, Jitter: retry.Full}, map[int]float64{10: 39, 50: 332, 100: 796}, map[int]float64{50: 2858, 100: 4990}},
	}
	calls, took := map[string]float64{}, map[string]float64{}
	for _, clients := range []int{10, 50, 100} {
		for _, c := range configs {
			c.config.MaxDelay = 2 * time.Second
			var writes int
			var sum time.Duration
			synctest.Test(t, func(*testing.T) {
				for seed := range uint64(runs) {
					w, d := contend(clients, seed, c.config)
					writes += w
					sum += d
				}
			})
			calls[c.name], took[c.name] = float64(writes)/runs, sum.Seconds()*1000/runs
			tab.near(fmt.Sprintf("%d clients, %s: calls", clients, c.name), c.calls[clients], calls[c.name], 0.05)
			if ms, ok := c.took[clients]; ok {
				tab.near(fmt.Sprintf("%d clients, %s: ms", clients, c.name), ms, took[c.name], 0.08)
			}
		}
	}
	tab.near("100 clients: calls saved by full jitter", 1-796.0/1849, 1-calls["full jitter"]/calls["exponential"], 0.05)
	tab.near("100 clients: sooner done by full jitter, times", 63168.0/4990, took["exponential"]/took["full jitter"], 0.12)
}

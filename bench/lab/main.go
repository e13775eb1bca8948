// Lab runs the retry storm with the real packages of Backstay and its peers, in virtual time, and draws what becomes of the service.
//
//	go run ./bench/lab                            # everything: 20 seeds; for long
//	go run ./bench/lab -seeds 5 -peers 1 -only V1 # one variant, the peers with one seed
//	go run ./bench/lab -charts docs/charts        # also writes the charts of docs/overload.md
//	go run ./bench/lab -seeds 1 -peers 0 -only V1 -clients 500 -timeline # second by second, with another number of clients
//
// Arrivals depend on the seed alone. The order of goroutines does not, so runs with the same seed agree statistically, not to the call.
package main

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/backstay-go/backstay/bench/lab/storm"
)

// job is one run.
type job struct {
	scenario storm.Scenario
	strategy storm.Strategy
	seed     uint64
}

func main() {
	testing.Init()
	seeds := flag.Int("seeds", 20, "runs of each variant for Backstay and for no retry")
	peers := flag.Int("peers", 20, "runs of each variant for each peer; 0: none")
	seed := flag.Uint64("seed", 1, "the first seed; the others follow")
	only := flag.String("only", "", "run the variants whose names begin so")
	charts := flag.String("charts", "", "folder to write the charts into; empty: none")
	clients := flag.Int("clients", 0, "how many clients; 0: as each variant says")
	timeline := flag.Bool("timeline", false, "also print the first run of each variant by seconds, from the fault to 20 s after it")
	flag.Parse()

	// Bubbles of testing/synctest exist inside a test only. Main prints PASS and exits.
	testing.Main(func(string, string) (bool, error) { return true, nil }, []testing.InternalTest{{Name: "lab", F: func(t *testing.T) {
		if err := run(t, options{*seeds, *peers, *clients, *seed, *only, *charts, *timeline}); err != nil {
			t.Error(err)
		}
	}}}, nil, nil)
}

// options are the flags.
type options struct {
	seeds, peers, clients int
	seed                  uint64
	only, charts          string
	timeline              bool
}

func run(t *testing.T, o options) error {
	versions()
	fmt.Printf("seeds %d to %d, peers to %d\n\n", o.seed, o.seed+uint64(o.seeds)-1, o.seed+uint64(o.peers)-1)
	var jobs []job
	for _, s := range append(storm.Recovering(), storm.V4(50), storm.V4(500), storm.V4(5000)) {
		if !strings.HasPrefix(s.Name, o.only) {
			continue
		}
		if o.clients > 0 {
			s.Clients = o.clients
		}
		for i, strategy := range strategies(s) {
			n := o.seeds
			if i >= 2 {
				n = o.peers
			}
			for k := range uint64(n) {
				jobs = append(jobs, job{s, strategy, o.seed + k})
			}
		}
	}
	results := runAll(t, jobs)
	report(jobs, results)
	if o.timeline {
		bySeconds(jobs, results)
	}
	if o.charts == "" {
		return nil
	}
	return draw(o.charts, jobs, results)
}

// bySeconds prints the first run of each strategy second by second.
func bySeconds(jobs []job, results []storm.Result) {
	for _, g := range groups(jobs, results) {
		if g.scenario.Refuse {
			continue
		}
		fmt.Printf("\n%s, %d clients, %s, seed %d\n\n| second | calls | attempts | good | longest queue |\n|---|---|---|---|---|\n", g.scenario, g.scenario.Clients, g.strategy.Name, g.seed)
		for i, sec := range g.results[0] {
			if i >= int(g.scenario.Fault[0]/time.Second)-1 && i < g.scenario.FaultEnd()+20 {
				fmt.Printf("| %d | %d | %d | %d | %d |\n", i, sec.Offered, sec.Attempts, sec.Good, sec.Queue)
			}
		}
	}
}

func strategies(s storm.Scenario) []storm.Strategy {
	all := append([]storm.Strategy{storm.NoRetry(), storm.Backstay()}, storm.Peers()...)
	if s.Name == "V8" {
		all = append(all, storm.Resends())
	}
	return all
}

// versions prints which packages run.
func versions() {
	fmt.Println(runtime.Version())
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return
	}
	for _, m := range info.Deps {
		for _, name := range []string{"failsafe-go/failsafe-go", "hashicorp/go-retryablehttp", "cenkalti/backoff/v5", "google.golang.org/grpc"} {
			if strings.HasSuffix(m.Path, name) {
				fmt.Println(m.Path, m.Version)
			}
		}
	}
}

// runAll runs the jobs, as many at a time as there are processors, and shows how far it is.
func runAll(t *testing.T, jobs []job) []storm.Result {
	results := make([]storm.Result, len(jobs))
	var next, done int
	var mu sync.Mutex // guards next and done
	start := time.Now()
	work := func(t *testing.T) {
		for {
			mu.Lock()
			i := next
			next++
			mu.Unlock()
			if i >= len(jobs) {
				return
			}
			results[i] = storm.Run(t, jobs[i].scenario, jobs[i].strategy, jobs[i].seed)
			mu.Lock()
			done++
			left := time.Duration(float64(time.Since(start)) / float64(done) * float64(len(jobs)-done))
			fmt.Fprintf(os.Stderr, "\r%d of %d, about %v left: %-60s", done, len(jobs), left.Round(time.Second), jobs[i].scenario.String()+", "+jobs[i].strategy.Name)
			mu.Unlock()
		}
	}
	var all sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), len(jobs)) {
		all.Go(func() { t.Run("worker", work) })
	}
	all.Wait()
	fmt.Fprintf(os.Stderr, "\r%d runs in %v%-60s\n", len(jobs), time.Since(start).Round(time.Second), "")
	return results
}

// group is what all seeds of a scenario and a strategy came to.
type group struct {
	job
	results []storm.Result
}

// groups collects the results by scenario and strategy, in their order.
func groups(jobs []job, results []storm.Result) (all []group) {
	for i, j := range jobs {
		if n := len(all); n == 0 || all[n-1].scenario.String() != j.scenario.String() || all[n-1].strategy.Name != j.strategy.Name {
			all = append(all, group{job: j})
		}
		all[len(all)-1].results = append(all[len(all)-1].results, results[i])
	}
	return all
}

func report(jobs []job, results []storm.Result) {
	last := ""
	for _, g := range groups(jobs, results) {
		s := g.scenario
		if s.String() != last {
			last = s.String()
			fmt.Printf("\n%s: %s\n\n", s, s.About)
			if s.Refuse {
				fmt.Println("| strategy | attempts per call |\n|---|---|")
			} else {
				fmt.Println("| strategy | recovery, s: least, median, most | attempts per call, in the fault and 30 s after | good before, % | good in the fault, % | good in 30 s after, % | most attempts in 1 s |\n|---|---|---|---|---|---|---|")
			}
		}
		of := func(f func(storm.Result) float64) []float64 {
			var all []float64
			for _, r := range g.results {
				all = append(all, f(r))
			}
			slices.Sort(all)
			return all
		}
		mid := func(all []float64) float64 { return all[len(all)/2] }
		if s.Refuse {
			all := of(func(r storm.Result) float64 { return r.Amplification(0, len(r)) })
			fmt.Printf("| %s | %.2f |\n", g.strategy.Name, mid(all))
			continue
		}
		from, to := int(s.Fault[0]/time.Second), s.FaultEnd()
		recovery := of(func(r storm.Result) float64 { return float64(r.Recovery(to)) })
		amp := of(func(r storm.Result) float64 { return r.Amplification(from, to+30) })
		fmt.Printf("| %s | %s, %s, %s | %.2f–%.2f | %.1f | %.1f | %.1f | %d |\n", g.strategy.Name,
			seconds(recovery[0]), seconds(mid(recovery)), seconds(recovery[len(recovery)-1]), amp[0], amp[len(amp)-1],
			100*mid(of(func(r storm.Result) float64 { return r.Share(5, from-1) })), 100*mid(of(func(r storm.Result) float64 { return r.Share(from, to) })),
			100*mid(of(func(r storm.Result) float64 { return r.Share(to, to+30) })), int(slices.Max(of(func(r storm.Result) float64 { return float64(r.Peak()) }))))
	}
}

func seconds(n float64) string {
	if n == storm.Never {
		return "never"
	}
	return fmt.Sprint(n)
}

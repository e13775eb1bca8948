// Command ratios runs benchmarks in interleaved rounds and prints, for each sub-benchmark, the minimum of the rounds and its
// ratio to the reference of its benchmark. On a shared machine the minimum is what the code costs; a single time is not.
//
//	go run ./bench/ratios                             the policies and the HTTP client
//	go run ./bench/ratios -bench Stack ./bench/policies
//	go run ./bench/ratios -gate                       also compares with the limits in gate.go and exits with 1 when one is exceeded
package main

import (
	"bufio"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

func main() {
	rounds := flag.Int("rounds", 5, "how often each benchmark runs")
	bench := flag.String("bench", ".", "which benchmarks, as of go test")
	benchtime := flag.String("benchtime", "300ms", "how long each runs in a round, as of go test")
	gate := flag.Bool("gate", false, "fail when a limit is exceeded")
	flag.Parse()
	packages := flag.Args()
	if len(packages) == 0 {
		packages = []string{"./bench/policies", "./bench/http"}
	}
	r := results{}
	if err := r.run(packages, *rounds, *bench, *benchtime); err != nil {
		fmt.Fprintln(os.Stderr, "ratios:", err)
		os.Exit(1)
	}
	r.print()
	if *gate && !r.check(limits) {
		os.Exit(1)
	}
}

// result is the minimum of one sub-benchmark over the rounds.
type result struct {
	order             int // in which it was first seen
	ns, bytes, allocs float64
}

// results are by benchmark and sub-benchmark.
type results map[string]map[string]*result

// run builds each package's benchmarks once and runs them all in each round, so that a slow minute of the machine falls on all of them.
func (r results) run(packages []string, rounds int, bench, benchtime string) error {
	dir, err := os.MkdirTemp("", "ratios")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	for i, p := range packages {
		build := exec.Command("go", "test", "-c", "-o", filepath.Join(dir, strconv.Itoa(i)), p)
		build.Stderr = os.Stderr
		if err := build.Run(); err != nil {
			return fmt.Errorf("build %s: %w", p, err)
		}
	}
	for round := range rounds {
		fmt.Fprintf(os.Stderr, "round %d of %d\n", round+1, rounds)
		for i, p := range packages {
			cmd := exec.Command(filepath.Join(dir, strconv.Itoa(i)), "-test.run=^$", "-test.bench="+bench, "-test.benchtime="+benchtime)
			out, err := cmd.CombinedOutput()
			if err != nil {
				return fmt.Errorf("%s: %w\n%s", p, err, out)
			}
			r.read(string(out))
		}
	}
	if len(r) == 0 {
		return fmt.Errorf("no benchmark in %v matches %q", packages, bench)
	}
	return nil
}

// read takes in lines such as "BenchmarkStack/backstay-2  1000  632 ns/op  640 B/op  19 allocs/op".
func (r results) read(out string) {
	lines := bufio.NewScanner(strings.NewReader(out))
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) < 4 || !strings.HasPrefix(f[0], "Benchmark") {
			continue
		}
		name := strings.TrimPrefix(f[0], "Benchmark")
		if i := strings.LastIndex(name, "-"); i > 0 { // the number of processors
			if _, err := strconv.Atoi(name[i+1:]); err == nil {
				name = name[:i]
			}
		}
		bench, sub, _ := strings.Cut(name, "/")
		values := map[string]float64{}
		for i := 2; i+1 < len(f); i += 2 {
			if v, err := strconv.ParseFloat(f[i], 64); err == nil {
				values[f[i+1]] = v
			}
		}
		subs := r[bench]
		if subs == nil {
			subs = map[string]*result{}
			r[bench] = subs
		}
		got := subs[sub]
		if got == nil {
			subs[sub] = &result{order: len(subs), ns: values["ns/op"], bytes: values["B/op"], allocs: values["allocs/op"]}
			continue
		}
		got.ns = min(got.ns, values["ns/op"])
		got.bytes = min(got.bytes, values["B/op"])
		got.allocs = min(got.allocs, values["allocs/op"])
	}
}

// reference is what the others are compared with: the bare call, else the first sub-benchmark.
func reference(subs map[string]*result) string {
	first := ""
	for name, s := range subs {
		if s.order == 0 {
			first = name
		}
	}
	if _, ok := subs["bare"]; ok {
		return "bare"
	}
	return first
}

func (r results) print() {
	fmt.Println("| benchmark | who | ns | bytes | allocs | time to reference | time to failsafe |")
	fmt.Println("|---|---|---:|---:|---:|---:|---:|")
	for _, bench := range slices.Sorted(maps.Keys(r)) {
		subs := r[bench]
		ref, fs := subs[reference(subs)], subs["failsafe"]
		names := slices.SortedFunc(maps.Keys(subs), func(a, b string) int { return subs[a].order - subs[b].order })
		for _, name := range names {
			s := subs[name]
			toFailsafe := "–"
			if fs != nil {
				toFailsafe = fmt.Sprintf("%.2f×", s.ns/fs.ns)
			}
			fmt.Printf("| %s | %s | %.4g | %.0f | %.0f | %.2f× | %s |\n", bench, name, s.ns, s.bytes, s.allocs, s.ns/ref.ns, toFailsafe)
		}
	}
}

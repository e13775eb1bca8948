package main

import "fmt"

// limit is a bound on a sub-benchmark, in relation to another one of the same benchmark and the same run.
type limit struct {
	bench, who, to string
	time           float64 // most times the other's time; 0: any
	allocs         float64 // most allocations; negative: any
	moreAllocs     float64 // most allocations beyond the other's; negative: any
}

// limits is what the project promises of its overhead; docs/benchmarks.md has the figures.
var limits = []limit{
	{"StackNoTimeout", "backstay", "failsafe", 0.5, 3, -1},
	{"Stack", "backstay", "failsafe", 0.6, 12, -1},
	{"Breaker", "backstay", "gobreaker", 1.6, -1, -1},
	{"HTTPGet", "backstay", "bare", 1.12, -1, 18},
	{"HTTPPost1MB", "backstay", "bare", 1 / 0.95, -1, -1},
	{"Keyed", "backstay", "single", 2, -1, -1},
}

// check reports whether r is within all limits whose benchmarks ran, and prints each.
func (r results) check(limits []limit) bool {
	passed, failed, absent := 0, 0, 0
	for _, l := range limits {
		got, ref := r[l.bench][l.who], r[l.bench][l.to]
		if got == nil || ref == nil {
			absent++
			continue
		}
		ok := (l.time == 0 || got.ns <= l.time*ref.ns) &&
			(l.allocs < 0 || got.allocs <= l.allocs) &&
			(l.moreAllocs < 0 || got.allocs <= ref.allocs+l.moreAllocs)
		verdict := "ok"
		if ok {
			passed++
		} else {
			failed++
			verdict = "OVER THE LIMIT"
		}
		fmt.Printf("%s: %s takes %.2f× the time of %s (at most %.2f×) and %.0f allocations, %s\n",
			l.bench, l.who, got.ns/ref.ns, l.to, l.time, got.allocs, verdict)
	}
	fmt.Printf("%d passed, %d failed, %d skipped\n", passed, failed, absent)
	return failed == 0
}

package main

import "testing"

func TestRead(t *testing.T) {
	r := results{}
	r.read("goos: linux\nBenchmarkStack/bare-2  \t 100 \t 700 ns/op\t 10 B/op\t 8 allocs/op\nBenchmarkStack/backstay-2 100 500.5 ns/op 20.00 MB/s 30 B/op 9 allocs/op\n")
	r.read("BenchmarkStack/bare-2 100 800 ns/op 10 B/op 8 allocs/op\nBenchmarkStack/backstay-2 100 400 ns/op 30 B/op 9 allocs/op\n")
	if got := r["Stack"]["bare"].ns; got != 700 {
		t.Errorf("got %v ns for the bare one, want the minimum, 700", got)
	}
	if got := r["Stack"]["backstay"]; got.ns != 400 || got.bytes != 30 || got.allocs != 9 {
		t.Errorf("got %+v, want 400 ns, 30 bytes and 9 allocations", *got)
	}
	for allocs, want := range map[float64]bool{9: true, 8: false} {
		if got := r.check([]limit{{"Stack", "backstay", "bare", 0.6, allocs, -1}}); got != want {
			t.Errorf("got %v for a limit of %v allocations, want %v", got, allocs, want)
		}
	}
	if r.check([]limit{{"Stack", "backstay", "bare", 0.5, -1, -1}}) {
		t.Error("got true for a limit of half the time, want false: it takes 0.57 times")
	}
}

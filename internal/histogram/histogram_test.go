package histogram_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/backstay-go/backstay/internal/histogram"
)

// The quantiles that hedges use must be within 5 % of the exact ones on a million samples, whatever the shape of the distribution.
func TestQuantiles(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for name, draw := range map[string]func() float64{
		"uniform":     rng.Float64,
		"exponential": rng.ExpFloat64,
		"lognormal":   func() float64 { return math.Exp(1.5 * rng.NormFloat64()) },
		"pareto":      func() float64 { return math.Pow(1-rng.Float64(), -1/1.1) },
		"two humps": func() float64 {
			if rng.Float64() < 0.03 {
				return 100 + 5*rng.NormFloat64()
			}
			return 5 + rng.NormFloat64()
		},
		"constant": func() float64 { return 7 },
	} {
		h := histogram.New(time.Hour)
		exact := make([]time.Duration, 1_000_000)
		for i := range exact {
			exact[i] = min(time.Duration(math.Abs(draw())*float64(5*time.Millisecond)), histogram.Longest)
			h.Record(0, exact[i])
		}
		slices.Sort(exact)
		for _, q := range []float64{0.5, 0.9, 0.95, 0.99, 0.999} {
			got, n := h.Quantile(0, q)
			want := exact[int(math.Ceil(q*float64(len(exact))))-1]
			if diff := math.Abs(float64(got-want)) / float64(want); diff > 0.05 || n != len(exact) {
				t.Errorf("%s: quantile %v of %d: got %v, want %v within 5 %% (off by %.1f %%)", name, q, n, got, want, 100*diff)
			}
		}
	}
}

func TestForgets(t *testing.T) {
	h := histogram.New(time.Second)
	h.Record(0, time.Millisecond)
	for _, c := range []struct {
		now  time.Duration
		want int
	}{{900 * time.Millisecond, 1}, {1900 * time.Millisecond, 1}, {2100 * time.Millisecond, 1}, {4 * time.Second, 0}} {
		if _, got := h.Quantile(c.now, 0.5); got != c.want {
			t.Errorf("at %v: got %d records, want %d", c.now, got, c.want)
		}
	}
	h.Record(4*time.Second, time.Millisecond)
	if _, n := h.Quantile(time.Hour, 0.5); n != 0 {
		t.Errorf("after an hour without records: got %d, want 0", n)
	}
}

func TestExtremes(t *testing.T) {
	h := histogram.New(time.Second)
	if d, n := h.Quantile(0, 0.5); d != 0 || n != 0 {
		t.Errorf("empty: got %v of %d, want 0 of 0", d, n)
	}
	for _, d := range []time.Duration{-1, math.MinInt64} {
		h.Record(0, d)
	}
	if got, _ := h.Quantile(0, 1); got > 2*time.Microsecond {
		t.Errorf("negative durations: got %v, want about 0", got)
	}
	h.Record(0, math.MaxInt64)
	if got, _ := h.Quantile(0, 1); got < histogram.Longest*9/10 {
		t.Errorf("the longest duration: got %v, want about %v", got, histogram.Longest)
	}
	for _, q := range []float64{-1, 0, 2, math.NaN()} {
		_, _ = h.Quantile(0, q) // must not panic
	}
}

func FuzzQuantile(f *testing.F) {
	f.Add(int64(time.Millisecond), int64(time.Second))
	f.Add(int64(0), int64(math.MaxInt64))
	f.Fuzz(func(t *testing.T, a, b int64) {
		h := histogram.New(time.Second)
		h.Record(0, time.Duration(a))
		h.Record(0, time.Duration(b))
		clamp := func(v int64) float64 { return float64(min(max(time.Duration(v), 0), histogram.Longest)) }
		low, high := min(clamp(a), clamp(b)), max(clamp(a), clamp(b))
		for _, c := range []struct{ q, want float64 }{{0.5, low}, {1, high}} {
			got, _ := h.Quantile(0, c.q)
			if math.Abs(float64(got)-c.want) > 0.05*c.want+2048 {
				t.Errorf("quantile %v of %v and %v: got %v, want about %v", c.q, a, b, got, time.Duration(c.want))
			}
		}
	})
}

func TestConcurrent(t *testing.T) {
	h := histogram.New(time.Hour)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for i := range 10_000 {
				h.Record(0, time.Duration(i)*time.Microsecond)
			}
		})
	}
	all.Go(func() {
		for range 100 {
			_, _ = h.Quantile(0, 0.95)
		}
	})
	all.Wait()
	if _, n := h.Quantile(0, 0.5); n != 80_000 {
		t.Errorf("got %d records, want 80,000", n)
	}
}

func BenchmarkRecord(b *testing.B) {
	h := histogram.New(time.Second)
	b.ReportAllocs()
	d := time.Duration(0)
	for b.Loop() {
		d += 997
		h.Record(0, d&0xfffffff)
	}
}

func BenchmarkRecordParallel(b *testing.B) {
	h := histogram.New(time.Second)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		d := time.Duration(0)
		for pb.Next() {
			d += 997
			h.Record(0, d&0xfffffff)
		}
	})
}

func BenchmarkQuantile(b *testing.B) {
	h := histogram.New(time.Second)
	h.Record(0, time.Millisecond)
	b.ReportAllocs()
	for b.Loop() {
		_, _ = h.Quantile(0, 0.95)
	}
}

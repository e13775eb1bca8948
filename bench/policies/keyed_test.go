package policies

import (
	"runtime"
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/breaker"
)

// goroutines is how many call at the same time.
const goroutines = 16

// BenchmarkKeyed is a breaker for each of 1,024 keys, called by 16 goroutines, beside a single breaker called by as many.
func BenchmarkKeyed(b *testing.B) {
	keys := make([]backstay.CallOption, 1024)
	for i := range keys {
		keys[i] = backstay.WithKey("host-" + strconv.Itoa(i))
	}
	b.Run("single", func(b *testing.B) {
		parallel(b, backstay.Chain(breaker.New(breaker.Config{})), keys)
	})
	b.Run("backstay", func(b *testing.B) {
		parallel(b, backstay.Chain(backstay.NewKeyed(backstay.KeyedConfig{}, func(string) *breaker.Breaker {
			return breaker.New(breaker.Config{})
		})), keys)
	})
}

// parallel calls through p, each goroutine going round the keys from a place of its own.
func parallel(b *testing.B, p *backstay.Pipeline, keys []backstay.CallOption) {
	b.Helper()
	b.ReportAllocs()
	b.SetParallelism(max(1, goroutines/runtime.GOMAXPROCS(0)))
	ctx := b.Context()
	var start atomic.Int64
	b.RunParallel(func(pb *testing.PB) {
		for i := int(start.Add(61)); pb.Next(); i++ {
			if v, err := backstay.Do(ctx, p, call, keys[i%len(keys)]); v != one || err != nil {
				b.Errorf("got %v and error %v, want the item", v, err)
				return
			}
		}
	})
}

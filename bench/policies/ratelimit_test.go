package policies

import (
	"testing"
	"time"

	"github.com/failsafe-go/failsafe-go/ratelimiter"
	"golang.org/x/time/rate"

	"github.com/backstay-go/backstay/ratelimit"
)

// BenchmarkRateLimit is a limit that is never reached.
func BenchmarkRateLimit(b *testing.B) {
	const plenty = 1 << 30
	b.Run("bare", direct)
	b.Run("backstay", func(b *testing.B) { backstayDo(b, ratelimit.New(ratelimit.Config{Rate: plenty})) })
	b.Run("failsafe", func(b *testing.B) { failsafeDo(b, ratelimiter.NewBursty[*item](plenty, time.Second)) })
	b.Run("xtime", func(b *testing.B) {
		l := rate.NewLimiter(plenty, plenty)
		b.ReportAllocs()
		ctx := b.Context()
		for b.Loop() {
			if !l.Allow() {
				b.Fatal("no token")
			}
			if v, err := call(ctx); v != one || err != nil {
				b.Fatalf("got %v and error %v, want the item", v, err)
			}
		}
	})
}

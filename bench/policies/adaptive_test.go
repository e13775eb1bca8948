package policies

import (
	"context"
	"testing"

	"github.com/failsafe-go/failsafe-go/adaptivelimiter"
	"github.com/failsafe-go/failsafe-go/adaptivethrottler"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/adaptive"
)

// BenchmarkAdaptive is an adaptive limit that is never reached.
func BenchmarkAdaptive(b *testing.B) {
	b.Run("bare", direct)
	b.Run("backstay", func(b *testing.B) { backstayDo(b, adaptive.New(adaptive.Config{})) })
	b.Run("failsafe", func(b *testing.B) { failsafeDo(b, adaptivelimiter.NewWithDefaults[*item]()) })
}

// BenchmarkAdaptiveParallel is one permit taken and given back, from all processors at once.
func BenchmarkAdaptiveParallel(b *testing.B) {
	b.Run("backstay", func(b *testing.B) {
		inside(b, adaptive.New(adaptive.Config{}), answer, func(ctx context.Context, call *backstay.Call, h backstay.Handler) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if out := h(ctx, call); out.Err != nil {
						b.Errorf("got error %v", out.Err)
					}
				}
			})
		})
	})
	b.Run("failsafe", func(b *testing.B) {
		l := adaptivelimiter.NewWithDefaults[*item]()
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if p, ok := l.TryAcquirePermit(); ok {
					p.Record()
				} else {
					b.Error("no permit")
				}
			}
		})
	})
}

// BenchmarkThrottle is a call of a dependency that accepts them all.
func BenchmarkThrottle(b *testing.B) {
	b.Run("bare", direct)
	b.Run("backstay", func(b *testing.B) { backstayDo(b, adaptive.NewThrottle(adaptive.ThrottleConfig{})) })
	b.Run("failsafe", func(b *testing.B) { failsafeDo(b, adaptivethrottler.NewWithDefaults[*item]()) })
}

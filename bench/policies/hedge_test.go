package policies

import (
	"testing"
	"time"

	"github.com/failsafe-go/failsafe-go/hedgepolicy"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/hedge"
)

// BenchmarkHedge is a repeatable call that returns long before a further attempt is due; `unsaid` is one of which nobody has said that it may
// be repeated, which passes.
func BenchmarkHedge(b *testing.B) {
	b.Run("bare", direct)
	b.Run("backstay", func(b *testing.B) {
		p := backstay.Chain(hedge.New(hedge.Config{Delay: time.Second}))
		b.ReportAllocs()
		ctx := b.Context()
		for b.Loop() {
			if v, err := backstay.Do(ctx, p, call, backstay.Idempotent()); v != one || err != nil {
				b.Fatalf("got %v and error %v, want the item", v, err)
			}
		}
	})
	b.Run("unsaid", func(b *testing.B) { backstayDo(b, hedge.New(hedge.Config{Delay: time.Second})) })
	b.Run("failsafe", func(b *testing.B) { failsafeDo(b, hedgepolicy.NewWithDelay[*item](time.Second)) })
}

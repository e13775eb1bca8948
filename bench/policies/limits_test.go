package policies

import (
	"context"
	"testing"
	"time"

	fsbulkhead "github.com/failsafe-go/failsafe-go/bulkhead"
	fstimeout "github.com/failsafe-go/failsafe-go/timeout"
	"golang.org/x/sync/semaphore"

	"github.com/backstay-go/backstay/bulkhead"
	"github.com/backstay-go/backstay/timeout"
)

// BenchmarkBulkhead is a limit of 1,000 calls at once that is never reached.
func BenchmarkBulkhead(b *testing.B) {
	b.Run("bare", direct)
	b.Run("backstay", func(b *testing.B) { backstayDo(b, bulkhead.New(bulkhead.Config{})) })
	b.Run("failsafe", func(b *testing.B) { failsafeDo(b, fsbulkhead.New[*item](1000)) })
	b.Run("xsync", func(b *testing.B) {
		s := semaphore.NewWeighted(1000)
		b.ReportAllocs()
		ctx := b.Context()
		for b.Loop() {
			if err := s.Acquire(ctx, 1); err != nil {
				b.Fatal(err)
			}
			if v, err := call(ctx); v != one || err != nil {
				b.Fatalf("got %v and error %v, want the item", v, err)
			}
			s.Release(1)
		}
	})
}

// BenchmarkTimeout is a limit of 10 s that is never reached.
func BenchmarkTimeout(b *testing.B) {
	b.Run("bare", func(b *testing.B) {
		b.ReportAllocs()
		ctx := b.Context()
		for b.Loop() {
			ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
			if v, err := call(ctx); v != one || err != nil {
				b.Fatalf("got %v and error %v, want the item", v, err)
			}
			cancel()
		}
	})
	b.Run("backstay", func(b *testing.B) { backstayDo(b, timeout.New(10*time.Second)) })
	b.Run("failsafe", func(b *testing.B) { failsafeDo(b, fstimeout.New[*item](10*time.Second)) })
}

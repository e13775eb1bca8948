package breaker_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/breaker"
)

func TestPermitReportsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		b := breaker.New(plain(2))
		p := acquire(t, b)
		p.DoneErr(ctx, errDown)
		p.DoneErr(ctx, errDown)
		p.Done(ctx, backstay.Outcome{Err: errDown})
		p.Cancel(ctx)
		if got := b.Snapshot(); got.Calls != 1 || got.Held != 0 {
			t.Fatalf("got %d calls and %d permits held, want 1 and 0", got.Calls, got.Held)
		}
		wantState(t, b, breaker.Closed)

		p = acquire(t, b)
		p.Cancel(ctx)
		p.DoneErr(ctx, errDown)
		wantState(t, b, breaker.Closed)
		if got := b.Snapshot().Calls; got != 1 {
			t.Fatalf("got %d calls, want 1: a cancelled permit counts nothing", got)
		}
	})
}

func TestPermitOfAProbeReportsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		c := plain(1)
		c.Successes, c.Tolerated = 2, 1
		b := due(c)
		p := acquire(t, b)
		p.DoneErr(ctx, nil)
		p.DoneErr(ctx, nil)
		p.DoneErr(ctx, errDown)
		wantState(t, b, breaker.HalfOpen)
		if got := b.Snapshot(); got.Succeeded != 1 || got.Failed != 0 || got.Stale != 0 {
			t.Fatalf("got %d succeeded, %d failed, %d stale, want 1, 0, 0", got.Succeeded, got.Failed, got.Stale)
		}
	})
}

func TestPermitIsJudgedByTheCallersContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(plain(1))
		p := acquire(t, b)
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		p.DoneErr(ctx, errDown)
		wantState(t, b, breaker.Closed)

		p = acquire(t, b)
		ctx, cancel = context.WithTimeout(context.Background(), 6*time.Second)
		defer cancel()
		<-ctx.Done()
		p.DoneErr(ctx, ctx.Err())
		wantState(t, b, breaker.Open)
	})
}

func TestAcquireIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(plain(1))
		b.Trip()
		p, err := b.Acquire(context.Background())
		var r *backstay.Rejected
		if p != nil || !errors.Is(err, breaker.ErrOpen) || !errors.As(err, &r) || r.RetryAfter != time.Second {
			t.Fatalf("got %v and error %v, want no permit and a refusal for 1s", p, err)
		}
		if got := b.Snapshot(); got.Rejected != 1 || got.Held != 0 {
			t.Fatalf("got %d rejected and %d held, want 1 and 0", got.Rejected, got.Held)
		}
	})
}

// What is made inside a call is told with the call's name.
func TestAcquireInsideACall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &log{}
		b := breaker.New(plain(1))
		b.Trip()
		_ = backstay.Run(context.Background(), backstay.Chain().Observe(l), func(ctx context.Context) error {
			_, err := b.Acquire(ctx)
			return err
		}, backstay.Named("op"))
		if got := l.kinds(backstay.EventReject); len(got) != 1 || got[0].Call != "op" {
			t.Fatalf("got %+v, want one refusal inside op", got)
		}
	})
}

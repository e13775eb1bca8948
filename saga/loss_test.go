package saga_test

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backstay-go/backstay/saga"
	"github.com/backstay-go/backstay/saga/sagamem"
)

// TestCancelDuringUndo: a cancel that comes while an undo runs is noted and does not end the undo's context.
func TestCancelDuringUndo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := saga.Must(saga.Define("d", 1, func(b *saga.Builder[int]) {
			saga.Step(b, "a", noop).Compensate(func(c *saga.Ctx, _ int, _ saga.Result[int]) error {
				select {
				case <-c.Done():
					t.Errorf("the undo's context ended: %v", context.Cause(c))
				case <-time.After(10 * time.Second):
				}
				return nil
			})
			saga.Step(b, "slow", func(c *saga.Ctx, _ int) (int, error) { <-c.Done(); return 0, c.Err() }).NothingToUndo("it waits")
		}))
		e := run(t, sagamem.New(), saga.Register(d))
		id := start(t, d, e, "k", 1)
		synctest.Wait()
		by := saga.By{Actor: "ann"}
		for range 2 { // the second one finds it compensating
			if err := e.Cancel(t.Context(), id, by); err != nil {
				t.Errorf("Cancel: got %v, want nil", err)
			}
			time.Sleep(time.Second)
		}
		if err := e.Wait(t.Context(), id); !errors.Is(err, saga.ErrCancelled) {
			t.Errorf("got %v, want ErrCancelled", err)
		}
		log, _ := e.History(t.Context(), id, 0, 0)
		if !slices.ContainsFunc(log, func(e saga.Entry) bool { return e.Event == saga.EventNoted && e.Actor == "ann" }) {
			t.Error("the second request is not recorded")
		}
		e.end(t)
	})
}

// TestAttemptsSurvive: an owner that is lost during an attempt has used it up; the last one used up
// compensates, or parks if it is the pivot's.
func TestAttemptsSurvive(t *testing.T) {
	for _, pivot := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			var attempts []int
			d := saga.Must(saga.Define("d", 1, func(b *saga.Builder[int]) {
				draft := saga.Step(b, "a", func(c *saga.Ctx, _ int) (int, error) {
					attempts = append(attempts, c.Attempt())
					<-c.Done() // for as long as the process lives
					return 0, c.Err()
				}, saga.Attempts(3), saga.Timeout(time.Hour))
				if pivot {
					draft.Pivot()
				} else {
					draft.Compensate(nothing)
				}
			}))
			store := sagamem.New()
			id := start(t, d, store, "k", 1)
			for range 4 {
				e := run(t, store, saga.Register(d), saga.Config{Grace: -1})
				time.Sleep(2 * time.Second)
				e.end(t)
			}
			want := saga.Compensated
			if pivot {
				want = saga.ParkedFwd
			}
			if in, _ := store.Get(t.Context(), id); in.State != want || !slices.Equal(attempts, []int{1, 2, 3}) {
				t.Errorf("got state %s after attempts %v, want %s after 1, 2 and 3", in.State, attempts, want)
			}
		})
	}
}

// deaf is a store whose lease cannot be renewed.
type deaf struct {
	*sagamem.Store
	beats atomic.Int32
}

func (d *deaf) Beat(ctx context.Context, b saga.Beat) (saga.Pulse, error) {
	if d.beats.Add(1) == 1 || b.TTL == 0 {
		return d.Store.Beat(ctx, b)
	}
	return saga.Pulse{}, errors.New("no connection")
}

// TestLeaseUnrenewed: bodies end before the lease does when it cannot be renewed.
func TestLeaseUnrenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ended atomic.Int64
		begun := time.Now()
		d := saga.Must(saga.Define("d", 1, func(b *saga.Builder[int]) {
			saga.Step(b, "a", func(c *saga.Ctx, _ int) (int, error) {
				<-c.Done()
				ended.Store(int64(time.Since(begun)))
				if !errors.Is(context.Cause(c), saga.ErrFenced) {
					t.Errorf("got cause %v, want ErrFenced", context.Cause(c))
				}
				return 0, c.Err()
			}, saga.Timeout(time.Hour)).Compensate(nothing)
		}))
		e := run(t, &deaf{Store: sagamem.New()}, saga.Register(d), saga.Config{Lease: 30 * time.Second})
		start(t, d, e, "k", 1)
		time.Sleep(time.Minute)
		if got := time.Duration(ended.Load()); got == 0 || got >= 30*time.Second {
			t.Errorf("the body ended after %v, want before the lease of 30s", got)
		}
		e.end(t)
	})
}

// hazy is a store whose transactions commit and whose answer is lost for good.
type hazy struct {
	*sagamem.Store
	lost atomic.Bool
}

func (h *hazy) InTx(ctx context.Context, at saga.Fence, body func(saga.Tx) (saga.Checkpoint, error)) (saga.Committed, error) {
	res, err := h.Store.InTx(ctx, at, body)
	if err == nil && !h.lost.Swap(true) {
		return saga.Committed{}, saga.ErrUnknown
	}
	return res, err
}

// TestTxUnknown: after a commit whose outcome cannot be learned, the engine reads the log and goes on; it repeats nothing
// that was done.
func TestTxUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		d := saga.Must(saga.Define("d", 1, func(b *saga.Builder[int]) {
			sagamem.TxStep(b, "a", func(_ *saga.Ctx, tx *sagamem.Tx, _ int) (int, error) { calls++; tx.Put("k", "v"); return 1, nil }).Compensate(nothing)
			saga.Step(b, "b", noop).Compensate(nothing)
		}))
		e := run(t, &hazy{Store: sagamem.New()}, saga.Register(d))
		if err := e.Wait(t.Context(), start(t, d, e, "k", 1)); err != nil || calls != 1 {
			t.Errorf("got %v after %d calls, want nil after 1", err, calls)
		}
		e.end(t)
	})
}

// torn is a store that rolls the first transaction back although its body succeeded, as a database does on a serialization failure.
type torn struct {
	*sagamem.Store
	once atomic.Bool
}

func (s *torn) InTx(ctx context.Context, at saga.Fence, body func(saga.Tx) (saga.Checkpoint, error)) (saga.Committed, error) {
	return s.Store.InTx(ctx, at, func(tx saga.Tx) (saga.Checkpoint, error) {
		cp, err := body(tx)
		if err == nil && !s.once.Swap(true) {
			err = saga.ErrRolledBack
		}
		return cp, err
	})
}

// TestTxRolledBack: a transaction that the database undoes is repeated, at no attempt's cost, from where the saga was.
func TestTxRolledBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var attempts []int
		d := saga.Must(saga.Define("d", 1, func(b *saga.Builder[int]) {
			sagamem.TxStep(b, "a", func(c *saga.Ctx, tx *sagamem.Tx, _ int) (int, error) {
				attempts = append(attempts, c.Attempt())
				tx.Put("k", "v")
				return 1, nil
			}, saga.Attempts(1)).Compensate(nothing)
			saga.Step(b, "b", noop).Compensate(nothing)
		}))
		store := &torn{Store: sagamem.New()}
		e := run(t, store, saga.Register(d))
		id := start(t, d, e, "k", 1)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := e.Wait(ctx, id); err != nil || !slices.Equal(attempts, []int{1, 1}) {
			t.Errorf("got %v after attempts %v, want nil after 1 and 1", err, attempts)
		}
		log, _ := e.History(t.Context(), id, 0, 0)
		if len(log) != 3 {
			t.Errorf("got %d entries, want start and two ends", len(log))
		}
		e.end(t)
	})
}

package saga_test

import (
	"context"
	"errors"
	"fmt"
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

// TestDoubtSurvives: an attempt whose owner was lost may have had effect, and stays in doubt for every owner that follows, also when the
// attempts after it surely had none. The step is undone; a pivot parks.
func TestDoubtSurvives(t *testing.T) {
	for _, c := range []struct {
		name     string
		lost     int // owners lost in the body
		attempts int
		pivot    bool
		want     saga.State
	}{
		{"a deadline during the backoff", 1, 100, false, saga.Compensated},
		{"two owners lost", 2, 100, false, saga.Compensated},
		{"the last attempt", 1, 3, false, saga.Compensated},
		{"a pivot", 1, 3, true, saga.ParkedFwd},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				stands, attempts := false, 0
				d := saga.Must(saga.Define("d", 1, func(b *saga.Builder[int]) {
					draft := saga.Step(b, "a", func(sc *saga.Ctx, _ int) (int, error) {
						if attempts++; attempts <= c.lost { // it takes effect, and its owner does not live to say so
							stands = true
							<-sc.Done()
						}
						return 0, saga.NoEffect(errors.New("the breaker is open"))
					}, saga.Attempts(c.attempts), saga.Timeout(time.Hour), saga.Backoff(time.Minute, time.Minute))
					if c.pivot {
						draft.Pivot()
					} else {
						draft.Compensate(func(*saga.Ctx, int, saga.Result[int]) error { stands = false; return nil })
					}
				}))
				store := sagamem.New()
				id := start(t, d, store, "k", 1, saga.Deadline(20*time.Minute))
				for range 2 { // owners that are lost
					e := run(t, store, saga.Register(d), saga.Config{Grace: -1})
					time.Sleep(2 * time.Second)
					e.end(t)
				}
				e := run(t, store, saga.Register(d))
				_ = e.Wait(t.Context(), id)
				e.end(t)
				if in, _ := store.Get(t.Context(), id); in.State != c.want || stands != c.pivot {
					t.Errorf("got state %s after %d attempts, effect stands: %v; want %s, %v", in.State, attempts, stands, c.want, c.pivot)
				}
			})
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

// slow is a store whose first lease begins at once and is answered late; it cannot be renewed.
type slow struct {
	*sagamem.Store
	joined atomic.Bool
}

func (s *slow) Beat(ctx context.Context, b saga.Beat) (saga.Pulse, error) {
	if b.TTL == 0 {
		return s.Store.Beat(ctx, b)
	}
	if s.joined.Swap(true) {
		return saga.Pulse{}, errors.New("no connection")
	}
	p, err := s.Store.Beat(ctx, b)
	time.Sleep(12 * time.Second)
	return p, err
}

// TestLeaseAnsweredLate: a lease counts from when it was asked for, not from when the answer came.
func TestLeaseAnsweredLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ended atomic.Int64
		begun := time.Now()
		d := saga.Must(saga.Define("d", 1, func(b *saga.Builder[int]) {
			saga.Step(b, "a", func(c *saga.Ctx, _ int) (int, error) {
				<-c.Done()
				ended.Store(int64(time.Since(begun)))
				return 0, c.Err()
			}, saga.Timeout(time.Hour)).Compensate(nothing)
		}))
		e := run(t, &slow{Store: sagamem.New()}, saga.Register(d), saga.Config{Lease: 30 * time.Second})
		time.Sleep(12 * time.Second)
		synctest.Wait()
		start(t, d, e, "k", 1)
		time.Sleep(time.Minute)
		if got := time.Duration(ended.Load()); got == 0 || got >= 30*time.Second {
			t.Errorf("the body ended %v after the lease began, want before its 30s are over", got)
		}
		e.end(t)
	})
}

// TestHealthOfNobody: an engine without definitions calls live instances unclaimable, and finished ones not.
func TestHealthOfNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := saga.Must(saga.Define("d", 1, func(b *saga.Builder[int]) { saga.Step(b, "a", noop).Compensate(nothing) }))
		store := sagamem.New()
		e := run(t, store, saga.Register(d))
		if err := e.Wait(t.Context(), start(t, d, e, "k", 1)); err != nil {
			t.Fatal(err)
		}
		e.end(t)
		nobody := saga.New(store)
		if err := nobody.Health(t.Context()); err != nil {
			t.Errorf("got %v, want nil: all have ended", err)
		}
		start(t, d, store, "live", 1)
		if err := nobody.Health(t.Context()); !errors.Is(err, saga.ErrUnclaimable) {
			t.Errorf("got %v, want ErrUnclaimable", err)
		}
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

// TestTxRolledBackForEver: a transaction that is rolled back every time uses up the attempts of its step, of an action and of an undo.
func TestTxRolledBackForEver(t *testing.T) {
	for _, undo := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			calls := 0
			deadlock := func() error { calls++; return fmt.Errorf("%w: deadlock detected", saga.ErrRolledBack) }
			d := saga.Must(saga.Define("d", 1, func(b *saga.Builder[int]) {
				sagamem.TxStep(b, "a", func(*saga.Ctx, *sagamem.Tx, int) (int, error) {
					if !undo {
						return 0, deadlock()
					}
					return 1, nil
				}, saga.Attempts(3)).CompensateTx(func(*saga.Ctx, *sagamem.Tx, int, saga.Result[int]) error {
					if !undo {
						t.Error("undone, though it was rolled back")
					}
					return deadlock()
				}, saga.Attempts(3))
				saga.Step(b, "b", func(*saga.Ctx, int) (int, error) { return 0, saga.Fail(errors.New("no")) }).NothingToUndo("it does nothing")
			}))
			want := saga.Compensated
			if undo {
				want = saga.ParkedUndo
			}
			store := sagamem.New()
			e := run(t, store, saga.Register(d))
			id := start(t, d, e, "k", 1)
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
			defer cancel()
			if err := e.Wait(ctx, id); err == nil || ctx.Err() != nil {
				t.Errorf("got %v, want the end of it", err)
			}
			if in, _ := store.Get(t.Context(), id); in.State != want || calls != 3*11 {
				t.Errorf("got state %s after %d calls, want %s after 33: 10 repetitions of each attempt", in.State, calls, want)
			}
			e.end(t)
		})
	}
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

// stuck is a store whose starts hang, on a node that is declared dead.
type stuck struct {
	*sagamem.Store
	beats atomic.Int32
}

func (s *stuck) Start(ctx context.Context, _ []saga.NewInstance) ([]saga.Started, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func (s *stuck) Beat(ctx context.Context, b saga.Beat) (saga.Pulse, error) {
	p, err := s.Store.Beat(ctx, b)
	p.Lost = s.beats.Add(1) == 2
	return p, err
}

// TestStartCutOff: starts that are under way when the lease is lost, alone and in a queue, hear that nobody knows whether they were made.
func TestStartCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := saga.Must(saga.Define("d", 1, func(b *saga.Builder[int]) { saga.Step(b, "a", noop).Compensate(nothing) }))
		e := run(t, &stuck{Store: sagamem.New()}, saga.Register(d), saga.Config{Lease: 30 * time.Second})
		errs := make(chan error)
		for i := range 3 {
			go func() {
				_, err := d.Start(t.Context(), e, fmt.Sprint(i), 1)
				errs <- err
			}()
		}
		for range 3 {
			if err := <-errs; !errors.Is(err, saga.ErrUnknown) || errors.Is(err, saga.ErrFenced) {
				t.Errorf("got %v, want ErrUnknown", err)
			}
		}
		e.end(t)
	})
}

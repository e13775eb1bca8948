package saga_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backstay-go/backstay/saga"
	"github.com/backstay-go/backstay/saga/sagamem"
)

var ann = saga.By{Actor: "ann", Reason: "by hand"}

// settled waits on virtual time until the instance is in state s.
func settled(t *testing.T, e *running, id string, s saga.State) {
	t.Helper()
	for range 1000 {
		synctest.Wait()
		in, err := e.Get(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if in.State == s {
			return
		}
		time.Sleep(time.Second)
	}
	in, _ := e.Get(t.Context(), id)
	t.Fatalf("got state %s, want %s", in.State, s)
}

// TestMarkUndone: an undo carried out by hand is not run again, and the remaining ones follow.
func TestMarkUndone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var undone []string
		d := saga.Must(saga.Define("d", 1, func(b *saga.Builder[int]) {
			for _, n := range []string{"a", "b", "c"} {
				saga.Step(b, n, noop).Compensate(func(*saga.Ctx, int, saga.Result[int]) error {
					undone = append(undone, n)
					if n == "b" {
						return saga.Fail(errors.New("never"))
					}
					return nil
				})
			}
			saga.Step(b, "p", func(*saga.Ctx, int) (int, error) { return 0, saga.Fail(errors.New("no")) }).Pivot()
		}))
		e := run(t, sagamem.New(), saga.Register(d))
		id := start(t, d, e, "k", 1)
		settled(t, e, id, saga.ParkedUndo)
		if err := e.Operator().MarkUndone(t.Context(), id, ann); err != nil {
			t.Fatal(err)
		}
		settled(t, e, id, saga.Compensated)
		if got := fmt.Sprint(undone); got != "[c b a]" {
			t.Errorf("got undos %s, want [c b a]", got)
		}
		e.end(t)
	})
}

// TestParkedBranches: with a step parked in each of two branches a verb takes the first, and the saga stays parked
// until both are dealt with.
func TestParkedBranches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := saga.Must(saga.Define("d", 1, func(b *saga.Builder[int]) {
			b.Parallel("both", func(p *saga.Branches[int]) {
				for _, n := range []string{"x", "y"} {
					p.Branch(n, func(b *saga.Builder[int]) {
						saga.Step(b, "s", func(*saga.Ctx, int) (int, error) { return 0, saga.Park(errors.New("look")) }).Compensate(nothing)
					})
				}
			})
		}))
		e := run(t, sagamem.New(), saga.Register(d))
		id := start(t, d, e, "k", 1)
		for range 2 {
			settled(t, e, id, saga.ParkedFwd)
			if err := e.Operator().SkipWith(t.Context(), id, 1, ann); err != nil {
				t.Fatal(err)
			}
		}
		settled(t, e, id, saga.Completed)
		e.end(t)
	})
}

// TestWaitAfterPivot: a wait that times out after the pivot parks, since there is no way back; Retry waits again.
func TestWaitAfterPivot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := saga.Must(saga.Define("d", 1, func(b *saga.Builder[int]) {
			saga.Step(b, "p", noop).Pivot()
			saga.Wait[int](b, "w", "go", saga.Within(time.Hour))
		}))
		e := run(t, sagamem.New(), saga.Register(d))
		id := start(t, d, e, "k", 1)
		if err := e.Wait(t.Context(), id); err == nil {
			t.Fatal("got nil, want it parked")
		}
		settled(t, e, id, saga.ParkedFwd)
		if err := e.Operator().Retry(t.Context(), id, ann); err != nil {
			t.Fatal(err)
		}
		time.Sleep(30 * time.Minute)
		settled(t, e, id, saga.Waiting)
		if err := e.Signal(t.Context(), id, "go", 1, "1"); err != nil {
			t.Fatal(err)
		}
		settled(t, e, id, saga.Completed)
		e.end(t)
	})
}

// TestCancelParked: a parked saga takes a cancel up once an operator lets it go on.
func TestCancelParked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int32
		d := saga.Must(saga.Define("d", 1, func(b *saga.Builder[int]) {
			saga.Step(b, "a", func(*saga.Ctx, int) (int, error) {
				if calls.Add(1) == 1 {
					return 0, saga.Park(errors.New("look"))
				}
				return 1, nil
			}).Compensate(nothing)
			saga.Step(b, "p", func(*saga.Ctx, int) (int, error) { t.Error("the pivot ran"); return 1, nil }).Pivot()
		}))
		e := run(t, sagamem.New(), saga.Register(d))
		id := start(t, d, e, "k", 1)
		settled(t, e, id, saga.ParkedFwd)
		if err := e.Cancel(t.Context(), id, ann); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		settled(t, e, id, saga.ParkedFwd)
		if err := e.Operator().Retry(t.Context(), id, ann); err != nil {
			t.Fatal(err)
		}
		if err := e.Wait(t.Context(), id); !errors.Is(err, saga.ErrCancelled) {
			settled(t, e, id, saga.Compensated)
			t.Errorf("got %v, want ErrCancelled", err)
		}
		e.end(t)
	})
}

// TestAtOnce: elements run side by side up to the number given, and all that have begun are undone.
func TestAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var now, most, acted, undone atomic.Int32
		d := saga.Must(saga.Define("d", 1, func(b *saga.Builder[int]) {
			saga.Each(b, "all", func(_ *saga.Ctx, n int) ([]int, error) { return make([]int, n), nil }, func(b *saga.Builder[int]) {
				saga.Step(b, "s", func(c *saga.Ctx, _ int) (int, error) {
					most.Store(max(most.Load(), now.Add(1)))
					defer now.Add(-1)
					acted.Add(1)
					if c.Step() == "all[7]/s" { // before its neighbours have made room for others
						time.Sleep(time.Second / 2)
						return 0, saga.Fail(errors.New("no"))
					}
					time.Sleep(time.Second)
					return 1, nil
				}).Compensate(func(*saga.Ctx, int, saga.Result[int]) error { undone.Add(1); return nil })
			}, saga.AtOnce(4))
		}))
		err := sagamem.Run(t.Context(), d, 20)
		if err == nil || most.Load() != 4 || acted.Load() != 8 || undone.Load() != 8 {
			t.Errorf("got %v, %d at once, %d begun, %d undone, want a failure, 4, 8, 8", err, most.Load(), acted.Load(), undone.Load())
		}
	})
}

// renamed is JSON by another name.
type renamed struct{ saga.JSON }

func (renamed) Name() string { return "renamed" }

// unkept is a store that keeps no shapes, so that it cannot refuse a changed definition.
type unkept struct {
	saga.Store
	saga.Reader
	saga.Mailbox
}

// TestUnreadable: an instance whose log or codec the registered definition cannot follow parks whole, with nothing lost: an operator may try it again, which
// goes well once the right definition is back, or resolve it, and nothing else.
func TestUnreadable(t *testing.T) {
	define := func(step string, opts ...saga.DefineOption) *saga.Definition[int] {
		return saga.Must(saga.Define("d", 1, func(b *saga.Builder[int]) {
			saga.Step(b, step, noop).Compensate(nothing)
			saga.Step(b, "b", noop).Compensate(nothing)
		}, opts...))
	}
	right := define("a")
	for _, c := range []struct {
		name  string
		wrong *saga.Definition[int]
		cause error
	}{
		{"another step", define("x"), saga.ErrDefinition},
		{"another codec", define("a", saga.WithCodec(renamed{})), saga.ErrCodec},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				mem := sagamem.New()
				store := unkept{mem, mem, mem}
				ids := []string{start(t, right, store, "retried", 1), start(t, right, store, "resolved", 1)}
				by := saga.By{Actor: "ann", Reason: "it is back"}
				e := run(t, store, saga.Register(c.wrong))
				for _, id := range ids {
					if err := e.Wait(ctx, id); !errors.Is(err, c.cause) {
						t.Errorf("got %v, want %v", err, c.cause)
					}
					if in, _ := e.Get(t.Context(), id); in.State != saga.ParkedFwd {
						t.Errorf("got state %s, want parked", in.State)
					}
					if err := e.Operator().SkipWith(t.Context(), id, 1, by); !errors.Is(err, saga.ErrState) {
						t.Errorf("SkipWith: got %v, want ErrState", err)
					}
				}
				if err := e.Operator().Resolve(t.Context(), ids[1], by); err != nil {
					t.Errorf("Resolve: %v", err)
				}
				e.end(t)
				e = run(t, store, saga.Register(right))
				if err := e.Operator().Retry(t.Context(), ids[0], by); err != nil {
					t.Errorf("Retry: %v", err)
				}
				if err := e.Wait(ctx, ids[0]); err != nil {
					t.Errorf("after Retry: %v", err)
				}
				e.end(t)
				if in, _ := mem.Get(t.Context(), ids[1]); in.State != saga.Resolved {
					t.Errorf("got state %s, want resolved", in.State)
				}
			})
		})
	}
}

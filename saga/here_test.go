package saga_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backstay-go/backstay/saga"
	"github.com/backstay-go/backstay/saga/sagamem"
)

// A lone body runs on the goroutine that drives the instance. What comes meanwhile must not wait for its end.

// TestHeardDuringBody: a cancel and a passed deadline reach a body that runs alone at once, and the engine waits for the
// body after that.
func TestHeardDuringBody(t *testing.T) {
	for _, c := range []struct {
		name  string
		after time.Duration // when it comes
		cause error
		do    func(t *testing.T, e *running, id string)
		opts  []saga.StartOption
	}{
		{"cancel", 3 * time.Second, saga.ErrCancelled, func(t *testing.T, e *running, id string) {
			time.Sleep(3 * time.Second)
			if err := e.Cancel(t.Context(), id, saga.By{Actor: "me"}); err != nil {
				t.Error(err)
			}
		}, nil},
		{"deadline", 4 * time.Second, saga.ErrDeadline, func(*testing.T, *running, string) {},
			[]saga.StartOption{saga.Deadline(4 * time.Second)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var cause error
				var at, ended time.Time
				d := saga.Must(saga.Define("d", 1, func(b *saga.Builder[int]) {
					saga.Step(b, "a", func(c *saga.Ctx, _ int) (int, error) {
						<-c.Done()
						cause, at = context.Cause(c), time.Now()
						time.Sleep(time.Second) // it takes its time
						ended = time.Now()
						return 0, c.Err()
					}, saga.Attempts(1)).Compensate(func(*saga.Ctx, int, saga.Result[int]) error { return nil })
				}))
				e := run(t, sagamem.New(), saga.Register(d), saga.Config{Poll: time.Hour, Lease: time.Hour})
				begun := time.Now()
				id := start(t, d, e, "k", 1, c.opts...)
				c.do(t, e, id)
				var failed *saga.Error
				if err := e.Wait(t.Context(), id); !errors.As(err, &failed) || failed.State != saga.Compensated || !errors.Is(err, c.cause) {
					t.Errorf("got %v, want compensated because of %v", err, c.cause)
				}
				if !errors.Is(cause, c.cause) || at.Sub(begun) != c.after {
					t.Errorf("the body heard %v after %v, want %v after %v", cause, at.Sub(begun), c.cause, c.after)
				}
				if got := ended.Sub(begun); got != c.after+time.Second {
					t.Errorf("the body ended after %v, want %v", got, c.after+time.Second)
				}
				e.end(t)
			})
		})
	}
}

// TestGoexit: a body that calls runtime.Goexit has failed, takes no part of the engine with it, and the next attempt runs.
func TestGoexit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := saga.Must(saga.Define("d", 1, func(b *saga.Builder[int]) {
			saga.Step(b, "a", func(c *saga.Ctx, _ int) (int, error) {
				if c.Attempt() < 3 {
					runtime.Goexit()
				}
				return 7, nil
			}).Compensate(nothing)
			saga.Step(b, "b", func(*saga.Ctx, int) (int, error) { runtime.Goexit(); return 0, nil }, saga.Attempts(2)).Compensate(nothing)
		}))
		e := run(t, sagamem.New(), saga.Register(d))
		id := start(t, d, e, "k", 1)
		var failed *saga.Error
		if err := e.Wait(t.Context(), id); !errors.As(err, &failed) || failed.Step != "b" || !strings.Contains(err.Error(), "Goexit") {
			t.Errorf("got %v, want b's Goexit as the failure", err)
		}
		e.end(t)
	})
}

// commitHook is a store that calls before ahead of each commit.
type commitHook struct {
	*sagamem.Store
	before func(batch []saga.Checkpoint)
}

func (s *commitHook) Commit(ctx context.Context, batch []saga.Checkpoint) ([]saga.Committed, error) {
	s.before(batch)
	return s.Store.Commit(ctx, batch)
}

// TestHeardBeforeBody: a cancel that comes while the intent of a lone body is being written reaches that body.
func TestHeardBeforeBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var cause error
		d := saga.Must(saga.Define("d", 1, func(b *saga.Builder[int]) {
			saga.Step(b, "a", func(*saga.Ctx, int) (int, error) { return 1, nil }).Compensate(nothing)
			saga.Step(b, "b", func(c *saga.Ctx, _ int) (int, error) {
				<-c.Done()
				cause = context.Cause(c)
				return 0, c.Err()
			}, saga.Attempts(1)).Compensate(nothing)
		}))
		store := &commitHook{Store: sagamem.New()}
		e := run(t, store, saga.Register(d), saga.Config{Poll: time.Hour, Lease: time.Hour})
		once := false
		store.before = func(batch []saga.Checkpoint) {
			if !once {
				once = true
				if err := e.Cancel(t.Context(), batch[0].ID, saga.By{Actor: "me"}); err != nil {
					t.Error(err)
				}
			}
		}
		begun := time.Now()
		id := start(t, d, e, "k", 1)
		if err := e.Wait(t.Context(), id); !errors.Is(err, saga.ErrCancelled) {
			t.Errorf("got %v, want ErrCancelled", err)
		}
		if got := time.Since(begun); got > time.Second || !errors.Is(cause, saga.ErrCancelled) {
			t.Errorf("the body heard %v after %v, want ErrCancelled at once", cause, got)
		}
		e.end(t)
	})
}

// TestDeadlineDuringBody: the deadline passes while the only body is at work on the driver's goroutine. However that body then ends, the step is
// undone unless it surely had no effect, and the undo is told what came of it.
func TestDeadlineDuringBody(t *testing.T) {
	busy := errors.New("busy")
	for _, c := range []struct {
		name  string
		first error // of an attempt before, if any
		end   func(*saga.Ctx) (int, error)
		want  string // what the undo is told; empty: not undone
	}{
		{"well", nil, func(*saga.Ctx) (int, error) { return 7, nil }, "7 true"},
		{"well, after one in doubt", busy, func(*saga.Ctx) (int, error) { return 7, nil }, "7 true"},
		{"by its context", nil, func(c *saga.Ctx) (int, error) { return 0, context.Cause(c) }, "0 false"},
		{"with a no", nil, func(*saga.Ctx) (int, error) { return 0, saga.Fail(busy) }, "0 false"},
		{"without effect", nil, func(*saga.Ctx) (int, error) { return 0, saga.NoEffect(busy) }, ""},
		{"without effect, after one without", saga.NoEffect(busy), func(*saga.Ctx) (int, error) { return 0, saga.NoEffect(busy) }, ""},
		{"without effect, after one in doubt", busy, func(*saga.Ctx) (int, error) { return 0, saga.NoEffect(busy) }, "0 false"},
		{"asking for an operator", nil, func(*saga.Ctx) (int, error) { return 0, saga.Park(busy) }, "0 false"},
		{"in a panic", nil, func(*saga.Ctx) (int, error) { panic("lost") }, "0 false"},
		{"with its goroutine", nil, func(*saga.Ctx) (int, error) { runtime.Goexit(); return 0, nil }, "0 false"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				told := ""
				d := saga.Must(saga.Define("d", 1, func(b *saga.Builder[int]) {
					saga.Step(b, "a", func(sc *saga.Ctx, _ int) (int, error) {
						if sc.Attempt() == 1 && c.first != nil {
							return 0, c.first
						}
						<-sc.Done()
						if !errors.Is(context.Cause(sc), saga.ErrDeadline) {
							t.Errorf("the body's context ended with %v, want ErrDeadline", context.Cause(sc))
						}
						time.Sleep(time.Second)
						return c.end(sc)
					}, saga.Timeout(time.Hour)).Compensate(func(_ *saga.Ctx, _ int, res saga.Result[int]) error {
						v, known := res.Value()
						told = fmt.Sprint(v, known)
						return nil
					})
				}))
				e := run(t, sagamem.New(), saga.Register(d))
				id := start(t, d, e, "k", 1, saga.Deadline(time.Minute))
				if err := e.Wait(t.Context(), id); !errors.Is(err, saga.ErrDeadline) {
					t.Errorf("got %v, want ErrDeadline", err)
				}
				if told != c.want {
					t.Errorf("the undo was told %q, want %q", told, c.want)
				}
				e.end(t)
			})
		})
	}
}

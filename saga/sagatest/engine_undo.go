package sagatest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/saga"
)

var undoCases = []engineCase{
	{"all steps succeed", func(l *lab) {
		d := define("order", 1, func(b *saga.Builder[int]) {
			for _, n := range []string{"a", "b", "c", "d"} {
				act(l, b, n, nil)
			}
		})
		p := l.run(saga.Register(d))
		id := begin(l, d, p, "k", 1)
		l.is(l.wait(p, id), nil)
		l.over(p)
		l.state(d, id, saga.Completed)
		l.order("+a +b +c +d")
		intents, results := 0, 0
		for _, e := range l.history(id) {
			intents += len(e.Next)
			if e.Event == saga.EventDone {
				results++
			}
		}
		if intents != 4 || results != 4 {
			l.Fatalf("got %d intents and %d results, want 4 and 4", intents, results)
		}
	}},
	{"a no undoes in reverse, the failed step included", func(l *lab) {
		var mu sync.Mutex
		var known []string
		d := define("order", 1, func(b *saga.Builder[int]) {
			for _, n := range []string{"a", "b", "c", "d"} {
				draft(l, b, n, func(*saga.Ctx) error {
					if n == "c" {
						return saga.Fail(errNo)
					}
					return nil
				}).Compensate(func(c *saga.Ctx, _ int, res saga.Result[string]) error {
					v, ok := res.Value()
					mu.Lock()
					known = append(known, fmt.Sprintf("%s %v", c.Step(), ok && v != ""))
					mu.Unlock()
					return l.w.Undo(c)
				})
			}
		})
		p := l.run(saga.Register(d))
		id := begin(l, d, p, "k", 1)
		err := l.wait(p, id)
		l.over(p)
		l.is(err, errNo)
		l.state(d, id, saga.Compensated)
		l.order("+a +b +c -c -b -a")
		if want := []string{"c false", "b true", "a true"}; !slices.Equal(known, want) {
			l.Fatalf("got results %v, want %v", known, want)
		}
		var e *saga.Error
		if !errors.As(err, &e) || e.Step != "c" || !slices.Equal(e.Undone, []string{"c", "b", "a"}) {
			l.Fatalf("got %+v", e)
		}
	}},
	{"no effect: the failed step is not undone", func(l *lab) {
		for i, refusal := range []error{
			saga.NoEffect(saga.Fail(errNo)),
			saga.Fail(&backstay.Rejected{Policy: "breaker", Reason: "open"}),
		} {
			l.w = World{}
			d := define(fmt.Sprint("order", i), 1, func(b *saga.Builder[int]) {
				act(l, b, "a", nil)
				saga.Step(b, "b", func(*saga.Ctx, int) (int, error) { return 0, refusal }).
					Compensate(func(*saga.Ctx, int, saga.Result[int]) error { l.Error("undone"); return nil })
			})
			p := l.run(saga.Register(d))
			id := begin(l, d, p, "k", 1)
			l.is(l.wait(p, id), refusal)
			l.over(p)
			l.state(d, id, saga.Compensated)
			l.order("+a -a")
		}
	}},
	{"attempts in doubt are undone even after a clean last one", func(l *lab) {
		d := define("order", 1, func(b *saga.Builder[int]) {
			act(l, b, "a", func(c *saga.Ctx) error {
				if c.Attempt() == 1 {
					return errNo // may have had effect
				}
				return saga.NoEffect(saga.Fail(errNo))
			}, saga.Backoff(time.Millisecond, time.Millisecond))
		})
		p := l.run(saga.Register(d))
		id := begin(l, d, p, "k", 1)
		l.wait(p, id)
		l.over(p)
		l.state(d, id, saga.Compensated)
		l.order("+a -a")
	}},
	{"Each: exactly the begun elements are undone, in reverse, by their own keys", func(l *lab) {
		d := define("order", 1, func(b *saga.Builder[int]) {
			act(l, b, "first", nil)
			saga.Each(b, "ship", func(_ *saga.Ctx, n int) ([]int, error) {
				all := make([]int, n)
				for i := range all {
					all[i] = i
				}
				return all, nil
			}, func(b *saga.Builder[int]) {
				saga.Step(b, "pack", func(c *saga.Ctx, i int) (string, error) {
					if c.Step() != fmt.Sprintf("ship[%d]/pack", i) || !strings.HasSuffix(c.Key(), c.Step()) {
						l.Errorf("element %d has path %q and key %q", i, c.Step(), c.Key())
					}
					if i == 31 {
						return "", saga.Fail(errNo)
					}
					return l.w.Act(c)
				}).Compensate(func(c *saga.Ctx, _ int, _ saga.Result[string]) error { return l.w.Undo(c) })
			})
		})
		p := l.run(saga.Register(d))
		id := begin(l, d, p, "k", 50)
		l.is(l.wait(p, id), errNo)
		l.over(p)
		l.state(d, id, saga.Compensated)
		want := []string{"+first"}
		for i := range 31 {
			want = append(want, fmt.Sprintf("+ship[%d]/pack", i))
		}
		for i := 30; i >= 0; i-- {
			want = append(want, fmt.Sprintf("-ship[%d]/pack", i))
		}
		l.order(strings.Join(append(want, "-first"), " "))
	}},
	{"an undo that fails for good parks: Stop keeps the rest, ContinueOthers does not", func(l *lab) {
		for _, others := range []bool{false, true} {
			l.w = World{}
			bad := errors.New("the refund is closed")
			opts := []saga.StepOption{saga.Attempts(5), saga.Backoff(time.Millisecond, 2*time.Millisecond)}
			if others {
				opts = append(opts, saga.ContinueOthers())
			}
			var mu sync.Mutex
			mended, tries, alerts := false, 0, 0
			d := define(fmt.Sprint("order", others), 1, func(b *saga.Builder[int]) {
				act(l, b, "a", nil)
				draft(l, b, "b", nil).Compensate(func(c *saga.Ctx, _ int, _ saga.Result[string]) error {
					mu.Lock()
					defer mu.Unlock()
					if tries++; !mended {
						return bad
					}
					return l.w.Undo(c)
				}, opts...)
				saga.Step(b, "c", func(*saga.Ctx, int) (int, error) { return 0, saga.NoEffect(saga.Fail(errNo)) }).NothingToUndo("nothing")
			})
			cfg := l.quick()
			cfg.Observer = watch(func(e backstay.Event) {
				mu.Lock()
				defer mu.Unlock()
				if e.Kind == backstay.EventState && e.To == string(saga.ParkedUndo) {
					alerts++
				}
			})
			p := l.run(cfg, saga.Register(d))
			id := begin(l, d, p, "k", 1)
			err := l.wait(p, id)
			l.is(err, errNo)
			var e *saga.Error
			if !errors.As(err, &e) || !errors.Is(e.Parked, bad) || e.State != saga.ParkedUndo {
				l.Fatalf("got %+v", e)
			}
			l.state(d, id, saga.ParkedUndo)
			mu.Lock()
			if tries != 5 || alerts != 1 {
				l.Fatalf("got %d attempts and %d alerts, want 5 and 1", tries, alerts)
			}
			mended = true
			mu.Unlock()
			if others {
				l.order("+a +b -a")
			} else {
				l.order("+a +b")
			}
			by := saga.By{Actor: "ann", Reason: "reopened the refund"}
			l.is(p.Operator().SkipWith(l.Context(), id, 1, by), saga.ErrState)
			l.is(p.Operator().Retry(l.Context(), id, by), nil)
			l.in(id, saga.Compensated)
			l.over(p)
			l.state(d, id, saga.Compensated)
			if n := l.events(id, func(e saga.Entry) bool {
				return e.Event == saga.EventOperator && e.Actor == "ann" && d.Text(e) == by.Reason
			}); n != 1 {
				l.Fatalf("got %d entries with who and why, want 1", n)
			}
		}
	}},
	{"undos run although the saga was cancelled, and a parallel one waits for its siblings", func(l *lab) {
		begun := make(chan struct{})
		d := define("order", 1, func(b *saga.Builder[int]) {
			act(l, b, "a", nil)
			b.Parallel("both", func(p *saga.Branches[int]) {
				p.Branch("x", func(b *saga.Builder[int]) {
					act(l, b, "slow", func(c *saga.Ctx) error {
						close(begun)
						<-c.Done()
						if err := cause(c); !errors.Is(err, saga.ErrCancelled) {
							l.Errorf("the body's context ended with %v, want ErrCancelled", err)
						}
						return cause(c)
					})
				})
				p.Branch("y", func(b *saga.Builder[int]) { act(l, b, "quick", nil) })
			})
		})
		p := l.run(saga.Register(d))
		id := begin(l, d, p, "k", 1)
		<-begun
		l.is(p.Cancel(l.Context(), id, saga.By{Actor: "ann", Reason: "changed her mind"}), nil)
		l.is(l.wait(p, id), saga.ErrCancelled)
		l.over(p)
		l.state(d, id, saga.Compensated)
		if net := l.w.Net(); len(net) != 0 {
			l.Fatalf("got effects %v left", net)
		}
	}},
}

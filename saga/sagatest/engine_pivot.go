package sagatest

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/saga"
)

func cause(ctx context.Context) error { return context.Cause(ctx) }

func watch(f func(backstay.Event)) backstay.Observer {
	return backstay.ObserverFunc(func(_ context.Context, e backstay.Event) { f(e) })
}

// sale is a definition with a pivot whose body is f.
func sale(l *lab, f func(c *saga.Ctx) error, opts ...saga.StepOption) *saga.Definition[int] {
	return define("sale", 1, func(b *saga.Builder[int]) {
		act(l, b, "reserve", nil)
		charge := draft(l, b, "charge", f, opts...).Pivot()
		saga.Step(b, "confirm", func(c *saga.Ctx, _ int) (string, error) {
			if charge.Get(c) == "" {
				return "", saga.Fail(errors.New("no result of the pivot"))
			}
			return l.w.Act(c)
		}, saga.Needs(charge)).Retriable()
	})
}

var ann = saga.By{Actor: "ann", Reason: "looked it up"}

var pivotCases = []engineCase{
	{"a pivot that says no compensates, and is not undone", func(l *lab) {
		d := sale(l, func(*saga.Ctx) error { return saga.Fail(errNo) })
		p := l.run(saga.Register(d))
		id := begin(l, d, p, "k", 1)
		l.is(l.wait(p, id), errNo)
		l.over(p)
		l.state(d, id, saga.Compensated)
		l.order("+reserve +charge -reserve")
	}},
	{"a pivot in doubt parks; MarkNotDone compensates", func(l *lab) {
		d := sale(l, func(c *saga.Ctx) error { <-c.Done(); return c.Err() }, saga.Timeout(l.d(time.Minute)), saga.Attempts(2))
		p := l.run(saga.Register(d))
		id := begin(l, d, p, "k", 1)
		err := l.wait(p, id)
		l.is(err, context.DeadlineExceeded)
		l.state(d, id, saga.ParkedFwd)
		op := p.Operator()
		l.is(op.CompensateNow(l.Context(), id, ann), saga.ErrState)
		l.is(op.SkipWith(l.Context(), id, "v", ann), saga.ErrState)
		l.is(op.MarkUndone(l.Context(), id, ann), saga.ErrState)
		l.is(op.MarkNotDone(l.Context(), id, ann), nil)
		l.in(id, saga.Compensated)
		l.over(p)
		l.state(d, id, saga.Compensated)
		l.order("+reserve +charge -reserve")
	}},
	{"a pivot in doubt parks; MarkDone goes on with the value given", func(l *lab) {
		d := sale(l, func(*saga.Ctx) error { return errNo }, saga.Attempts(1))
		p := l.run(saga.Register(d))
		id := begin(l, d, p, "k", 1)
		l.wait(p, id)
		l.state(d, id, saga.ParkedFwd)
		l.is(p.Operator().MarkDone(l.Context(), id, "from the bank's list", ann), nil)
		l.in(id, saga.Completed)
		l.over(p)
		l.state(d, id, saga.Completed)
	}},
	{"after the pivot a failure parks; retry goes on, nothing is undone", func(l *lab) {
		var mended atomic.Bool
		d := define("sale", 1, func(b *saga.Builder[int]) {
			act(l, b, "reserve", nil)
			draft(l, b, "charge", nil).Pivot()
			draft(l, b, "confirm", func(*saga.Ctx) error {
				if mended.Load() {
					return nil
				}
				return saga.Fail(errNo)
			}).Retriable()
		})
		p := l.run(saga.Register(d))
		id := begin(l, d, p, "k", 1)
		l.wait(p, id)
		l.state(d, id, saga.ParkedFwd)
		mended.Store(true)
		l.is(p.Operator().CompensateNow(l.Context(), id, ann), saga.ErrAfterPivot)
		l.is(p.Operator().Retry(l.Context(), id, ann), nil)
		l.in(id, saga.Completed)
		l.over(p)
		l.state(d, id, saga.Completed)
		l.order("+reserve +charge +confirm")
	}},
	{"cancel after the pivot is refused and recorded", func(l *lab) {
		begun, let := make(chan struct{}), make(chan struct{})
		d := define("sale", 1, func(b *saga.Builder[int]) {
			act(l, b, "reserve", nil)
			draft(l, b, "charge", nil).Pivot()
			draft(l, b, "confirm", func(*saga.Ctx) error { close(begun); <-let; return nil }).Retriable()
		})
		p := l.run(saga.Register(d))
		id := begin(l, d, p, "k", 1)
		<-begun
		l.is(p.Cancel(l.Context(), id, ann), saga.ErrAfterPivot)
		l.until("the refusal is recorded", func() bool {
			return l.events(id, func(e saga.Entry) bool { return e.Event == saga.EventRefused && e.Actor == "ann" }) == 1
		})
		close(let)
		l.is(l.wait(p, id), nil)
		l.over(p)
		l.state(d, id, saga.Completed)
		l.is(p.Cancel(l.Context(), id, ann), saga.ErrTerminal)
	}},
	{"cancel while the pivot runs: its answer decides", func(l *lab) {
		for _, says := range []error{nil, saga.Fail(errNo)} {
			l.w = World{}
			l.store = l.kit.Open(l.T)
			begun, let := make(chan struct{}), make(chan struct{})
			d := sale(l, func(*saga.Ctx) error { close(begun); <-let; return says })
			p := l.run(saga.Register(d))
			id := begin(l, d, p, "k", 1)
			<-begun
			l.is(p.Cancel(l.Context(), id, ann), nil)
			l.until("the request is recorded", func() bool {
				return l.events(id, func(e saga.Entry) bool { return e.Event == saga.EventNoted }) == 1
			})
			close(let)
			err := l.wait(p, id)
			l.over(p)
			if says == nil {
				l.is(err, nil)
				l.state(d, id, saga.Completed)
				if l.events(id, func(e saga.Entry) bool { return e.Event == saga.EventRefused }) != 1 {
					l.Fatal("the refusal is not recorded")
				}
			} else {
				l.is(err, errNo)
				l.state(d, id, saga.Compensated)
			}
		}
	}},
	{"a deadline before the pivot compensates, after it is refused and recorded", func(l *lab) {
		for _, after := range []bool{false, true} {
			l.w = World{}
			l.store = l.kit.Open(l.T)
			d := define("sale", 1, func(b *saga.Builder[int]) {
				act(l, b, "reserve", nil)
				if after {
					draft(l, b, "charge", nil).Pivot()
				}
				saga.Wait[string](b, "approval", "approve")
				if !after {
					draft(l, b, "charge", nil).Pivot()
				}
			})
			p := l.run(saga.Register(d))
			deadline := 10 * time.Minute
			if !l.kit.Virtual {
				deadline = 2 * time.Second // the steps before the wait are to be over by then, on a machine at its limit too
			}
			id := begin(l, d, p, "k", 1, saga.Deadline(deadline))
			if after {
				l.until("the refusal is recorded", func() bool {
					return l.events(id, func(e saga.Entry) bool { return e.Event == saga.EventRefused && e.Verb == "deadline" }) == 1
				})
				l.is(p.Signal(l.Context(), id, "approve", "yes", "1"), nil)
				l.is(l.wait(p, id), nil)
				l.over(p)
				l.state(d, id, saga.Completed)
				continue
			}
			l.is(l.wait(p, id), saga.ErrDeadline)
			l.over(p)
			l.state(d, id, saga.Compensated)
			l.order("+reserve -reserve")
		}
	}},
	{"a wait that times out compensates, or goes on if it may", func(l *lab) {
		for _, goOn := range []bool{false, true} {
			l.w = World{}
			l.store = l.kit.Open(l.T)
			opts := []saga.StepOption{saga.Within(l.d(time.Hour))}
			if goOn {
				opts = append(opts, saga.OrGoOn())
			}
			d := define("sale", 1, func(b *saga.Builder[int]) {
				act(l, b, "reserve", nil)
				yes := saga.Wait[string](b, "approval", "approve", opts...)
				draft(l, b, "charge", func(c *saga.Ctx) error {
					if v, ok := yes.Lookup(c); ok || v != "" {
						l.Errorf("got %q, %v from a wait that timed out", v, ok)
					}
					return nil
				}, saga.Needs(yes)).Pivot()
			})
			p := l.run(saga.Register(d))
			id := begin(l, d, p, "k", 1)
			err := l.wait(p, id)
			l.over(p)
			if goOn {
				l.is(err, nil)
				l.state(d, id, saga.Completed)
			} else {
				l.is(err, saga.ErrWaitTimeout)
				l.state(d, id, saga.Compensated)
			}
		}
	}},
}

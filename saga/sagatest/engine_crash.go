package sagatest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/backstay-go/backstay/saga"
)

// on gives a plan that meets the checkpoint that records the end of step.
func on(step string, what fault) func([]saga.Checkpoint) fault {
	return func(cps []saga.Checkpoint) fault {
		for _, cp := range cps {
			for _, e := range cp.Log {
				if e.Step == step && e.Event == saga.EventDone {
					return what
				}
			}
		}
		return sound
	}
}

// txSteps is a definition with a transactional step between two others.
func txSteps(l *lab, body func(c *saga.Ctx) error) *saga.Definition[int] {
	return define("pay", 1, func(b *saga.Builder[int]) {
		act(l, b, "a", nil)
		saga.BindTx(b, l.kit.TxKind, "book", func(c *saga.Ctx, tx any, _ int) (string, error) {
			if err := l.kit.Write(c, tx, c.ActionKey(), "booked"); err != nil {
				return "", err
			}
			if body != nil {
				return "out", body(c)
			}
			return "out", nil
		}, saga.Backoff(time.Millisecond, time.Millisecond)).CompensateTx(func(c *saga.Ctx, tx any, _ int, res saga.Result[string]) error {
			if v, ok := res.Value(); !ok || v != "out" {
				return saga.Fail(fmt.Errorf("got result %q, %v", v, ok))
			}
			return l.kit.Write(c, tx, c.ActionKey(), "refunded")
		})
		draft(l, b, "z", func(*saga.Ctx) error {
			if l.failLast.Load() {
				return saga.NoEffect(saga.Fail(errNo))
			}
			return nil
		}).Pivot()
	})
}

var crashCases = []engineCase{
	{"a crash between effect and checkpoint: recovered with one effect and the stored result", func(l *lab) {
		d := define("order", 1, func(b *saga.Builder[int]) {
			act(l, b, "a", nil)
			second := act(l, b, "b", nil)
			saga.Step(b, "c", func(c *saga.Ctx, _ int) (string, error) { return second.Get(c), nil }, saga.Needs(second)).NothingToUndo("a copy")
		})
		first := spawn(l.Context(), l.store, on("b", dieBefore), l.quick(), saga.Register(d))
		id := begin(l, d, l.store, "k", 1)
		<-first.conn.died
		second := l.run(saga.Register(d))
		l.is(l.wait(second, id), nil)
		first.crash()
		l.over(second)
		l.state(d, id, saga.Completed)
		l.order("+a +b")
		if n := l.events(id, func(e saga.Entry) bool { return e.Event == saga.EventRecovered }); n != 1 {
			l.Fatalf("got %d recoveries in the log, want 1", n)
		}
	}},
	{"TxStep: effect and record are both there or both not, whatever crashes", func(l *lab) {
		if l.kit.Write == nil {
			l.Skip("the kit has no Write")
		}
		for _, what := range []fault{dieBefore, dieAfter, loseAnswer} {
			l.w, l.store = World{}, l.kit.Open(l.T)
			var calls atomic.Int32
			d := txSteps(l, func(*saga.Ctx) error { calls.Add(1); return nil })
			first := spawn(l.Context(), l.store, on("book", what), l.quick(), saga.Register(d))
			id := begin(l, d, l.store, "k", 1)
			if what == loseAnswer {
				l.is(l.wait(first, id), nil)
			} else {
				<-first.conn.died
				value := l.kit.Value(l.T, l.store, id+"/book")
				logged := l.events(id, func(e saga.Entry) bool { return e.Event == saga.EventDone && e.Step == "book" })
				if (value == "booked") != (logged == 1) || (logged == 1) != (what == dieAfter) {
					l.Fatalf("after crash %d: got row %q and %d records", what, value, logged)
				}
				second := l.run(saga.Register(d))
				l.is(l.wait(second, id), nil)
				l.over(second)
			}
			first.crash()
			l.state(d, id, saga.Completed)
			if got := l.kit.Value(l.T, l.store, id+"/book"); got != "booked" {
				l.Fatalf("got row %q", got)
			}
			if want := int32(1); what != dieBefore && calls.Load() != want {
				l.Fatalf("got %d calls of the body, want %d", calls.Load(), want)
			}
		}
	}},
	{"TxStep: a failed attempt leaves nothing, an undo in a transaction takes it back", func(l *lab) {
		if l.kit.Write == nil {
			l.Skip("the kit has no Write")
		}
		l.failLast.Store(true)
		d := txSteps(l, func(c *saga.Ctx) error {
			if c.Attempt() == 1 {
				return errNo
			}
			return nil
		})
		p := l.run(saga.Register(d))
		id := begin(l, d, p, "k", 1)
		l.is(l.wait(p, id), errNo)
		l.over(p)
		l.state(d, id, saga.Compensated)
		if got := l.kit.Value(l.T, l.store, id+"/book"); got != "refunded" {
			l.Fatalf("got row %q, want refunded", got)
		}
	}},
	{"a paused owner is fenced: it writes nothing, and its body's context says so", func(l *lab) {
		begun, let := make(chan struct{}), make(chan struct{})
		var once sync.Once
		var why atomic.Value
		d := define("order", 1, func(b *saga.Builder[int]) {
			act(l, b, "a", func(c *saga.Ctx) error {
				first := false
				once.Do(func() { first = true })
				if first {
					close(begun)
					<-let // the process hangs, its context notwithstanding
					why.Store(cause(c))
				}
				return nil
			}, saga.Timeout(time.Hour), saga.Attempts(5))
			act(l, b, "b", nil)
		})
		zombie := l.run(saga.Register(d))
		id := begin(l, d, l.store, "k", 1)
		<-begun
		zombie.conn.pause()
		second := l.run(saga.Register(d))
		l.is(l.wait(second, id), nil)
		zombie.conn.resume()
		close(let)
		l.until("the zombie's body has ended", func() bool { return why.Load() != nil })
		l.over(second, zombie)
		if err, _ := why.Load().(error); !errors.Is(err, saga.ErrFenced) {
			l.Fatalf("the zombie's context ended with %v, want ErrFenced", err)
		}
		if zombie.conn.wrote != 0 {
			l.Fatalf("the zombie wrote %d checkpoints", zombie.conn.wrote)
		}
		l.state(d, id, saga.Completed)
		l.order("+a +b")
	}},
	{"two engines share a thousand sagas: each is claimed once, within two polls, and ends", func(l *lab) {
		d := define("order", 1, func(b *saga.Builder[int]) { act(l, b, "a", nil) })
		const total = 1000
		ids := make([]string, total)
		for i := range ids {
			ids[i] = begin(l, d, l.store, fmt.Sprint("k", i), 1)
		}
		cfg := l.quick()
		cfg.Lease = time.Minute // no takeover here
		cfg.Batch = 50          // a twentieth
		began := time.Now()
		one, two := l.run(cfg, saga.Register(d)), l.run(cfg, saga.Register(d))
		for i, id := range ids {
			l.is(l.wait([]*process{one, two}[i%2], id), nil)
		}
		l.over(one, two)
		for _, id := range ids {
			for _, e := range l.history(id)[1:] {
				if e.Epoch != 1 {
					l.Fatalf("instance %s was claimed more than once", id)
				}
				if late := e.At.Sub(began); l.kit.Virtual && late > 2*cfg.Poll {
					l.Fatalf("instance %s had its turn %v after the engines came, over two polls of %v", id, late, cfg.Poll)
				}
			}
		}
		if n := len(l.w.Order()); n != total {
			l.Fatalf("got %d effects, want %d", n, total)
		}
	}},
	{"a start in a transaction exists exactly if it commits, and then runs although the starter is gone", func(l *lab) {
		if l.kit.Begin == nil {
			l.Skip("the kit has no Begin")
		}
		d := define("order", 1, func(b *saga.Builder[int]) { act(l, b, "a", nil) })
		p := l.run(saga.Register(d))
		to, _, rollback := l.kit.Begin(l.T, l.store)
		begin(l, d, to, "lost", 1)
		l.is(rollback(), nil)
		to, commit, _ := l.kit.Begin(l.T, l.store)
		id := begin(l, d, to, "kept", 1)
		again := begin(l, d, to, "kept", 1)
		if again != id {
			l.Fatalf("the same key twice in a transaction: got %s and %s", id, again)
		}
		l.is(commit(), nil)
		l.is(l.wait(p, id), nil)
		l.over(p)
		_, err := l.reader().Find(l.Context(), "", "order", "lost")
		l.is(err, saga.ErrNotFound)
	}},
	{"the same key and input concurrently: one instance, equal handles; another input: ErrConflict", func(l *lab) {
		d := define("order", 1, func(b *saga.Builder[int]) { act(l, b, "a", nil) })
		p := l.run(saga.Register(d))
		ids := make([]string, 16)
		var wg sync.WaitGroup
		for i := range ids {
			wg.Go(func() {
				h, err := d.Start(l.Context(), p, "k", 1)
				if err != nil {
					l.Errorf("Start: %v", err)
				}
				ids[i] = h.ID
			})
		}
		wg.Wait()
		_, err := d.Start(l.Context(), p, "k", 2)
		l.is(err, saga.ErrConflict)
		l.is(l.wait(p, ids[0]), nil)
		h, err := d.Start(l.Context(), p, "k", 1)
		l.is(err, nil)
		l.over(p)
		ids = slices.Compact(append(ids, h.ID))
		if len(ids) != 1 || !h.Existing {
			l.Fatalf("got instances %v, want one", ids)
		}
		l.order("+a")
	}},
	{"a retriable step fails for an hour across restarts: attempts are kept, backoff is capped, it ends well", func(l *lab) {
		limit := l.d(time.Minute)
		var mu sync.Mutex
		var attempts []int
		mended := false
		d := define("order", 1, func(b *saga.Builder[int]) {
			draft(l, b, "charge", nil).Pivot()
			saga.Step(b, "confirm", func(c *saga.Ctx, _ int) (string, error) {
				mu.Lock()
				defer mu.Unlock()
				attempts = append(attempts, c.Attempt())
				if !mended {
					return "", errNo
				}
				return l.w.Act(c)
			}, saga.Backoff(limit/60, limit)).Retriable()
		})
		id := begin(l, d, l.store, "k", 1)
		for range 3 {
			p := l.run(saga.Register(d))
			ctx, cancel := context.WithTimeout(l.Context(), l.d(20*time.Minute))
			_ = p.Wait(ctx, id)
			cancel()
			l.over(p)
		}
		mu.Lock()
		mended = true
		mu.Unlock()
		p := l.run(saga.Register(d))
		l.is(l.wait(p, id), nil)
		l.over(p)
		l.state(d, id, saga.Completed)
		for i := range attempts[1:] {
			if attempts[i+1] <= attempts[i] {
				l.Fatalf("attempts went from %d to %d", attempts[i], attempts[i+1])
			}
		}
		for _, e := range l.history(id) {
			if e.Delay > limit {
				l.Fatalf("got a backoff of %v, over the cap of %v", e.Delay, limit)
			}
		}
		if l.kit.Virtual && len(attempts) < 60 {
			l.Fatalf("got %d attempts in an hour, want at least one a minute", len(attempts))
		}
	}},
}

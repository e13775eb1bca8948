package saga_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/saga"
	"github.com/backstay-go/backstay/saga/sagamem"
	"golang.org/x/time/rate"
)

// running is an engine at work in a bubble.
type running struct {
	*saga.Engine
	stop context.CancelFunc
	done chan error
}

func run(t *testing.T, s saga.Store, opts ...saga.Option) *running {
	r := &running{Engine: saga.New(s, opts...), done: make(chan error, 1)}
	ctx, stop := context.WithCancel(t.Context())
	r.stop = stop
	go func() { r.done <- r.Run(ctx) }()
	synctest.Wait()
	return r
}

func (r *running) end(t *testing.T) {
	t.Helper()
	r.stop()
	if err := <-r.done; err != nil {
		t.Errorf("Run: got %v, want nil", err)
	}
}

func start[I any](t *testing.T, d *saga.Definition[I], to saga.Starter, key string, in I, opts ...saga.StartOption) string {
	t.Helper()
	h, err := d.Start(t.Context(), to, key, in, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return h.ID
}

// TestGrace: when Run's context ends, running bodies may end, nothing new begins, and the next engine goes on at once
// without repeating what was done.
func TestGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var order []string
		d := saga.Must(saga.Define("d", 1, func(b *saga.Builder[int]) {
			for _, n := range []string{"a", "b"} {
				saga.Step(b, n, func(c *saga.Ctx, _ int) (int, error) {
					time.Sleep(5 * time.Second)
					order = append(order, fmt.Sprint(n, c.Attempt()))
					return 1, nil
				}).Compensate(nothing)
			}
		}))
		store := sagamem.New()
		e := run(t, store, saga.Register(d))
		id := start(t, d, e, "k", 1)
		time.Sleep(time.Second)
		begun := time.Now()
		e.end(t)
		if got := time.Since(begun); got != 4*time.Second {
			t.Errorf("Run ended after %v, want 4s: when the body has ended", got)
		}
		begun = time.Now()
		e = run(t, store, saga.Register(d))
		if err := e.Wait(t.Context(), id); err != nil {
			t.Error(err)
		}
		if got := time.Since(begun); got > 6*time.Second {
			t.Errorf("the hand-over took %v", got)
		}
		e.end(t)
		if want := []string{"a1", "b1"}; !slices.Equal(order, want) {
			t.Errorf("got bodies %v, want %v", order, want)
		}
	})
}

// TestGraceOver: a body that outlasts the grace sees ErrStopped, and the next engine repeats it at once.
func TestGraceOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var causes []error
		d := saga.Must(saga.Define("d", 1, func(b *saga.Builder[int]) {
			saga.Step(b, "a", func(c *saga.Ctx, _ int) (int, error) {
				if c.Attempt() > 1 {
					return 1, nil
				}
				<-c.Done()
				causes = append(causes, context.Cause(c))
				return 0, c.Err()
			}).Compensate(nothing)
		}))
		store := sagamem.New()
		e := run(t, store, saga.Register(d), saga.Config{Grace: 2 * time.Second})
		id := start(t, d, e, "k", 1)
		synctest.Wait()
		begun := time.Now()
		e.end(t)
		if got := time.Since(begun); got != 2*time.Second {
			t.Errorf("Run ended after %v, want the grace of 2s", got)
		}
		if len(causes) != 1 || !errors.Is(causes[0], saga.ErrStopped) {
			t.Errorf("got causes %v, want ErrStopped", causes)
		}
		e = run(t, store, saga.Register(d))
		if err := e.Wait(t.Context(), id); err != nil {
			t.Error(err)
		}
		e.end(t)
	})
}

// TestInFlight: what there is no room for waits in the store, and comes up when there is.
func TestInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var now, most atomic.Int32
		d := saga.Must(saga.Define("d", 1, func(b *saga.Builder[int]) {
			saga.Step(b, "a", func(*saga.Ctx, int) (int, error) {
				n := now.Add(1)
				defer now.Add(-1)
				for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
				}
				time.Sleep(time.Second)
				return 1, nil
			}).Compensate(nothing)
		}))
		e := run(t, sagamem.New(), saga.Register(d), saga.Config{InFlight: 3, Poll: time.Hour})
		var ids []string
		for i := range 10 {
			ids = append(ids, start(t, d, e, fmt.Sprint(i), 1))
		}
		begun := time.Now()
		for _, id := range ids {
			if err := e.Wait(t.Context(), id); err != nil {
				t.Error(err)
			}
		}
		if got := most.Load(); got != 3 {
			t.Errorf("got %d at a time, want 3", got)
		}
		if got := time.Since(begun); got > 10*time.Second {
			t.Errorf("took %v: room was not used", got)
		}
		e.end(t)
	})
}

// TestLimits: Limit spaces the attempts of a step, AtMost bounds them.
func TestLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var times []time.Duration
		begun := time.Now()
		d := saga.Must(saga.Define("d", 1, func(b *saga.Builder[int]) {
			saga.Step(b, "charge", func(*saga.Ctx, int) (int, error) {
				mu.Lock()
				defer mu.Unlock()
				times = append(times, time.Since(begun))
				return 1, nil
			}, saga.Timeout(time.Millisecond)).Compensate(nothing)
		}))
		e := run(t, sagamem.New(), saga.Register(d), saga.Limit("d/charge", rate.NewLimiter(1, 1)), saga.AtMost("charge", 1))
		var ids []string
		for i := range 4 {
			ids = append(ids, start(t, d, e, fmt.Sprint(i), 1))
		}
		for _, id := range ids {
			if err := e.Wait(t.Context(), id); err != nil {
				t.Error(err)
			}
		}
		e.end(t)
		for i, at := range times {
			if at.Round(time.Second) != time.Duration(i)*time.Second {
				t.Errorf("attempt %d began after %v, want one a second", i, at)
			}
		}
	})
}

// TestKeyTTL: no attempt is made once the other side may have forgotten the key; the step parks in doubt.
func TestKeyTTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		attempts := 0
		d := saga.Must(saga.Define("d", 1, func(b *saga.Builder[int]) {
			saga.Step(b, "p", noop).Pivot()
			saga.Step(b, "a", func(*saga.Ctx, int) (int, error) { attempts++; return 0, errors.New("timeout") },
				saga.KeyTTL(time.Hour), saga.Backoff(25*time.Minute, 25*time.Minute)).Retriable()
		}))
		store := sagamem.New()
		e := run(t, store, saga.Register(d))
		id := start(t, d, e, "k", 1)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Hour)
		defer cancel()
		err := e.Wait(ctx, id)
		in, _ := e.Get(t.Context(), id)
		if err == nil || in.State != saga.ParkedFwd || attempts < 3 {
			t.Errorf("got %v, state %s after %d attempts, want it parked after 3 or more", err, in.State, attempts)
		}
		log, _ := e.History(t.Context(), id, 0, 0)
		if d := log[len(log)-1].At.Sub(log[0].At); d > time.Hour {
			t.Errorf("it parked after %v, want within the hour", d)
		}
		e.end(t)
	})
}

// TestCancelSiblings: with the option a failure ends the other branches' bodies; without it they run to their end.
func TestCancelSiblings(t *testing.T) {
	for _, cancel := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			var opts []saga.StepOption
			if cancel {
				opts = append(opts, saga.CancelSiblings())
			}
			var ended, undone time.Duration
			known := false
			begun := time.Now()
			d := saga.Must(saga.Define("d", 1, func(b *saga.Builder[int]) {
				b.Parallel("both", func(p *saga.Branches[int]) {
					p.Branch("slow", func(b *saga.Builder[int]) {
						saga.Step(b, "s", func(c *saga.Ctx, _ int) (int, error) {
							defer func() { ended = time.Since(begun) }()
							select {
							case <-time.After(10 * time.Second):
								return 1, nil
							case <-c.Done():
								return 0, c.Err()
							}
						}).Compensate(func(_ *saga.Ctx, _ int, res saga.Result[int]) error { _, known = res.Value(); return nil })
					})
					p.Branch("bad", func(b *saga.Builder[int]) {
						saga.Step(b, "quick", noop).Compensate(func(*saga.Ctx, int, saga.Result[int]) error { undone = time.Since(begun); return nil })
						saga.Step(b, "f", func(*saga.Ctx, int) (int, error) {
							time.Sleep(time.Second)
							return 0, saga.Fail(errors.New("no"))
						}).NothingToUndo("it failed")
					})
				}, opts...)
			}))
			if err := sagamem.Run(t.Context(), d, 1); err == nil {
				t.Error("got nil, want the failure")
			}
			want := 10 * time.Second
			if cancel {
				want = time.Second
			}
			if ended != want || undone != want || known == cancel {
				t.Errorf("cancel %v: the sibling ended after %v with result known %v, want %v and %v; the first undo came after %v", cancel, ended, known, want, !cancel, undone)
			}
		})
	}
}

// TestUndeclared: a result read without Needs parks with ErrDefinition.
func TestUndeclared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := saga.Must(saga.Define("d", 1, func(b *saga.Builder[int]) {
			a := saga.Step(b, "a", noop).Compensate(nothing)
			saga.Step(b, "b", func(c *saga.Ctx, _ int) (int, error) { return a.Get(c), nil }).Compensate(nothing)
		}))
		err := sagamem.Run(t.Context(), d, 1)
		var e *saga.Error
		if !errors.Is(err, saga.ErrDefinition) || !errors.As(err, &e) || e.State != saga.ParkedFwd {
			t.Errorf("got %v, want it parked with ErrDefinition", err)
		}
	})
}

// TestTxKind: an engine refuses a transactional step that its store cannot run.
func TestTxKind(t *testing.T) {
	d := saga.Must(saga.Define("d", 1, func(b *saga.Builder[int]) {
		saga.BindTx(b, "pgx", "a", func(*saga.Ctx, any, int) (int, error) { return 1, nil }).Compensate(nothing)
	}))
	err := saga.New(sagamem.New(), saga.Register(d)).Run(t.Context())
	if !errors.Is(err, saga.ErrDefinition) || !strings.Contains(err.Error(), `"a"`) {
		t.Errorf("got %v, want ErrDefinition naming the step", err)
	}
}

// TestSkew: the store's clock decides; a worker ten minutes ahead or behind takes no lease early and
// keeps deadlines and delays.
func TestSkew(t *testing.T) {
	for _, skew := range []time.Duration{10 * time.Minute, -10 * time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			store := &sagamem.Store{Skew: skew}
			d := saga.Must(saga.Define("d", 1, func(b *saga.Builder[int]) {
				saga.Step(b, "a", func(c *saga.Ctx, _ int) (int, error) {
					time.Sleep(3 * time.Minute) // over many leases
					return 1, c.Err()
				}, saga.Timeout(time.Hour), saga.Attempts(1)).Compensate(nothing)
				b.Delay("d", 7*time.Minute)
			}))
			one, two := run(t, store, saga.Register(d)), run(t, store, saga.Register(d))
			begun := time.Now()
			id := start(t, d, one, "k", 1, saga.Deadline(11*time.Minute))
			if err := two.Wait(t.Context(), id); err != nil {
				t.Errorf("skew %v: %v", skew, err)
			}
			if got := time.Since(begun); got < 10*time.Minute || got > 10*time.Minute+5*time.Second {
				t.Errorf("skew %v: took %v, want 10m", skew, got)
			}
			one.end(t)
			two.end(t)
		})
	}
}

// TestEvents: one event for each change of state, in order.
func TestEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var states []string
		observe := backstay.ObserverFunc(func(_ context.Context, e backstay.Event) {
			mu.Lock()
			defer mu.Unlock()
			if e.Kind == backstay.EventState {
				states = append(states, e.From+"→"+e.To)
			}
			panic("watching must not break a saga")
		})
		d := saga.Must(saga.Define("d", 1, func(b *saga.Builder[int]) {
			saga.Step(b, "a", noop).Compensate(nothing)
			saga.Wait[int](b, "w", "go", saga.Within(time.Hour))
			saga.Step(b, "b", noop).Compensate(nothing)
		}))
		err := sagamem.Run(t.Context(), d, 1, saga.Config{Observer: observe})
		if !errors.Is(err, saga.ErrWaitTimeout) {
			t.Errorf("got %v, want ErrWaitTimeout", err)
		}
		want := "ready→running running→waiting waiting→compensating compensating→compensated"
		if got := strings.Join(states, " "); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	})
}

// TestConfig: durations are strings, unknown fields are refused, faults are joined.
func TestConfig(t *testing.T) {
	var c saga.Config
	if err := json.Unmarshal([]byte(`{"lease":"3s","inFlight":5}`), &c); err != nil || c.Lease != 3*time.Second || c.InFlight != 5 {
		t.Errorf("got %+v, %v", c, err)
	}
	if err := json.Unmarshal([]byte(`{"leese":"3s"}`), &c); err == nil {
		t.Error("an unknown field was taken")
	}
	err := saga.Config{Lease: 1, InFlight: -1}.Validate()
	if err == nil || !strings.Contains(err.Error(), "Lease") || !strings.Contains(err.Error(), "InFlight") {
		t.Errorf("got %v, want both faults", err)
	}
}

// TestTypes: a value of another type than the step's or the wait's is refused, not found out later.
func TestTypes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := saga.Must(saga.Define("d", 1, func(b *saga.Builder[int]) {
			saga.Wait[int](b, "w", "go")
			saga.Step(b, "a", func(*saga.Ctx, int) (int, error) { return 0, saga.Park(errors.New("look")) }).Compensate(nothing)
		}))
		e := run(t, sagamem.New(), saga.Register(d))
		id := start(t, d, e, "k", 1)
		if err := e.Signal(t.Context(), id, "go", "text", "1"); !errors.Is(err, saga.ErrCodec) {
			t.Errorf("got %v for a signal of another type, want ErrCodec", err)
		}
		if err := e.Signal(t.Context(), id, "go", 7, "2"); err != nil {
			t.Error(err)
		}
		_ = e.Wait(t.Context(), id)
		by := saga.By{Actor: "ann"}
		if err := e.Operator().SkipWith(t.Context(), id, "text", by); !errors.Is(err, saga.ErrCodec) {
			t.Errorf("got %v for a value of another type, want ErrCodec", err)
		}
		if err := e.Operator().SkipWith(t.Context(), id, 7, by); err != nil {
			t.Error(err)
		}
		e.end(t)
	})
}

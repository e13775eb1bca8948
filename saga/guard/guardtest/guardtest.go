// Package guardtest checks that a guard's runner keeps its promises. An author
// of a runner over another database calls [TestRunner] from a test.
package guardtest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/backstay-go/backstay/saga/guard"
)

// A World is what a case works on: a runner over an empty table, and a ledger
// of effects in the same database.
type World struct {
	Runner guard.Runner
	// Effect writes one line of the ledger in the transaction of ctx. For a
	// runner without transactions it may be nil; then the cases count calls.
	Effect func(ctx context.Context, line string) error
	// Effects returns the committed lines, in any order.
	Effects func(ctx context.Context) ([]string, error)
}

// TestRunner runs all cases, each in a world that open makes for it.
func TestRunner(t *testing.T, open func(t *testing.T) World) {
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			w := open(t)
			x := &world{World: w, t: t}
			c.run(x)
			if t.Failed() {
				t.Log(c.why)
			}
		})
	}
}

type testCase struct {
	name string
	why  string // the rule, for whoever breaks it
	run  func(*world)
}

var cases = []testCase{
	{"ActionOnce", "A repeated action returns the first one's stored result and has no second effect.", actionOnce},
	{"FailedActionLeavesNothing", "An action that fails is rolled back with its row: it may run again.", failedAction},
	{"PanicLeavesNothing", "A panic rolls back and lets go of connection and key.", panicLeavesNothing},
	{"UndoGetsTheResult", "The undo is given what the action returned, byte for byte.", undoGetsResult},
	{"UndoOnce", "A repeated undo has no second effect.", undoOnce},
	{"FailedUndoRunsAgain", "An undo that fails is rolled back and may run again; it is still given the action's result.", failedUndo},
	{"EmptyUndoPoisons", "An undo that comes first does nothing, and the late action is refused, for ever.", emptyUndo},
	{"SkippedCallsCommit", "Calls that run nothing must end their transaction too, or the pool runs dry.", skippedCalls},
	{"ActionsAtOnce", "Of many equal actions at once one has an effect; the others get its result or ErrRunning.", actionsAtOnce},
	{"ActionAgainstUndo", "Action and undo at once: at the end either both took effect or neither.", actionAgainstUndo},
	{"KeysDoNotMix", "Keys are compared byte by byte: case, spaces and prefixes tell them apart.", keysDoNotMix},
	{"BadKeys", "A key that the table cannot hold is refused before anything runs.", badKeys},
	{"LargeResult", "A result up to MaxResult is stored whole; a larger one rolls back.", largeResult},
}

type world struct {
	World
	t     *testing.T
	mu    sync.Mutex
	lines []string
}

// effect is the business of a guarded function.
func (w *world) effect(ctx context.Context, line string) error {
	if w.Effect != nil {
		return w.Effect(ctx, line)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lines = append(w.lines, line)
	return nil
}

func (w *world) wantEffects(want ...string) {
	w.t.Helper()
	got := w.lines
	if w.Effects != nil {
		var err error
		if got, err = w.Effects(context.WithoutCancel(w.t.Context())); err != nil {
			w.t.Fatal(err)
		}
	}
	got = slices.Sorted(slices.Values(got))
	slices.Sort(want)
	if !slices.Equal(got, want) {
		w.t.Errorf("effects: got %q, want %q", got, want)
	}
}

func (w *world) do(key string, op guard.Op, result string) (guard.Answer, error) {
	return w.Runner.Run(w.t.Context(), guard.Call{Key: key, Op: op, Epoch: 3}, func(ctx context.Context, _ []byte) ([]byte, error) {
		return []byte(result), w.effect(ctx, string(op)+" "+key)
	})
}

func (w *world) want(key string, op guard.Op, result string, how guard.How, wantErr error) {
	w.t.Helper()
	a, err := w.do(key, op, result)
	if !errors.Is(err, wantErr) {
		w.t.Fatalf("%s %q: got error %v, want %v", op, key, err, wantErr)
	}
	if a.How != how {
		w.t.Fatalf("%s %q: got how %d, want %d", op, key, a.How, how)
	}
}

func actionOnce(w *world) {
	w.want("s/a", guard.OpAction, "first", guard.Ran, nil)
	a, err := w.do("s/a", guard.OpAction, "second")
	if err != nil || a.How != guard.Replayed || string(a.Result) != "first" {
		w.t.Errorf("second call: got %q, %d, %v, want the first's result replayed", a.Result, a.How, err)
	}
	w.wantEffects("action s/a")
}

func failedAction(w *world) {
	boom := errors.New("boom")
	_, err := w.Runner.Run(w.t.Context(), guard.Call{Key: "s/a"}, func(ctx context.Context, _ []byte) ([]byte, error) {
		if w.Effect != nil { // must be rolled back
			if err := w.effect(ctx, "lost"); err != nil {
				return nil, err
			}
		}
		return nil, boom
	})
	if !errors.Is(err, boom) {
		w.t.Errorf("got error %v, want the function's own", err)
	}
	w.want("s/a", guard.OpAction, "x", guard.Ran, nil)
	w.wantEffects("action s/a")
}

func panicLeavesNothing(w *world) {
	for range 30 { // more than a pool holds
		func() {
			defer func() {
				if recover() == nil {
					w.t.Fatal("the panic did not come through")
				}
			}()
			w.Runner.Run(w.t.Context(), guard.Call{Key: "s/a"}, func(ctx context.Context, _ []byte) ([]byte, error) {
				if w.Effect != nil {
					w.effect(ctx, "lost")
				}
				panic("boom")
			})
		}()
	}
	w.want("s/a", guard.OpAction, "x", guard.Ran, nil)
	w.wantEffects("action s/a")
}

func undoGetsResult(w *world) {
	result := "\x00\xff any byte \n"
	w.want("s/a", guard.OpAction, result, guard.Ran, nil)
	var got []byte
	_, err := w.Runner.Run(w.t.Context(), guard.Call{Key: "s/a", Op: guard.OpCompensate}, func(_ context.Context, prior []byte) ([]byte, error) {
		got = slices.Clone(prior)
		return nil, nil
	})
	if err != nil || string(got) != result {
		w.t.Errorf("undo: got %q, %v, want %q, nil", got, err, result)
	}
}

func undoOnce(w *world) {
	w.want("s/a", guard.OpAction, "x", guard.Ran, nil)
	w.want("s/a", guard.OpCompensate, "y", guard.Ran, nil)
	w.want("s/a", guard.OpCompensate, "z", guard.Replayed, nil)
	w.want("s/a", guard.OpAction, "x", guard.Replayed, nil)
	w.wantEffects("action s/a", "compensate s/a")
}

func failedUndo(w *world) {
	w.want("s/a", guard.OpAction, "x", guard.Ran, nil)
	boom := errors.New("boom")
	for range 2 {
		_, err := w.Runner.Run(w.t.Context(), guard.Call{Key: "s/a", Op: guard.OpCompensate}, func(_ context.Context, prior []byte) ([]byte, error) {
			if string(prior) != "x" {
				w.t.Errorf("undo was given %q, want %q", prior, "x")
			}
			return nil, boom
		})
		if !errors.Is(err, boom) {
			w.t.Errorf("got error %v, want the function's own", err)
		}
	}
	w.want("s/a", guard.OpCompensate, "", guard.Ran, nil)
	w.wantEffects("action s/a", "compensate s/a")
}

func emptyUndo(w *world) {
	w.want("s/a", guard.OpCompensate, "", guard.Nothing, nil)
	w.want("s/a", guard.OpAction, "", 0, guard.ErrPoisoned)
	w.want("s/a", guard.OpCompensate, "", guard.Nothing, nil)
	w.want("s/a", guard.OpAction, "", 0, guard.ErrPoisoned)
	w.want("s/b", guard.OpAction, "", guard.Ran, nil)
	w.wantEffects("action s/b")
}

func skippedCalls(w *world) {
	w.want("s/a", guard.OpCompensate, "", guard.Nothing, nil)
	w.want("s/b", guard.OpAction, "", guard.Ran, nil)
	for range 60 {
		w.want("s/a", guard.OpCompensate, "", guard.Nothing, nil)
		w.want("s/a", guard.OpAction, "", 0, guard.ErrPoisoned)
		w.want("s/b", guard.OpAction, "", guard.Replayed, nil)
	}
}

func actionsAtOnce(w *world) {
	for round := range 5 {
		key := fmt.Sprintf("s/%d", round)
		var ran atomic.Int32
		var wg sync.WaitGroup
		for range 12 {
			wg.Go(func() {
				a, err := w.do(key, guard.OpAction, "x")
				switch {
				case err == nil && a.How == guard.Ran:
					ran.Add(1)
				case err == nil && string(a.Result) == "x", errors.Is(err, guard.ErrRunning):
				default:
					w.t.Errorf("got %q, %d, %v, want the result or ErrRunning", a.Result, a.How, err)
				}
			})
		}
		wg.Wait()
		if ran.Load() != 1 {
			w.t.Errorf("calls that ran: got %d, want 1", ran.Load())
		}
	}
	w.wantEffects("action s/0", "action s/1", "action s/2", "action s/3", "action s/4")
}

func actionAgainstUndo(w *world) {
	var want []string
	for round := range 20 {
		key := fmt.Sprintf("s/%d", round)
		var wg sync.WaitGroup
		var ran atomic.Bool
		for _, op := range []guard.Op{guard.OpAction, guard.OpCompensate} {
			wg.Go(func() {
				for { // as an orchestrator would, until there is an answer
					a, err := w.do(key, op, "x")
					if errors.Is(err, guard.ErrRunning) {
						continue
					}
					if op == guard.OpAction && a.How == guard.Ran {
						ran.Store(true)
					}
					if err != nil && !(op == guard.OpAction && errors.Is(err, guard.ErrPoisoned)) {
						w.t.Errorf("%s: got error %v, want nil", op, err)
					}
					return
				}
			})
		}
		wg.Wait()
		if ran.Load() {
			want = append(want, "action "+key, "compensate "+key)
		}
	}
	w.wantEffects(want...)
}

func keysDoNotMix(w *world) {
	keys := []string{"s/a", "S/a", "s/a ", "s/ä", "s/a\u0308", "s/", "s/a/b", strings.Repeat("k", guard.MaxKey)}
	var want []string
	for _, k := range keys {
		w.want(k, guard.OpAction, "", guard.Ran, nil)
		want = append(want, "action "+k)
	}
	w.wantEffects(want...)
}

func badKeys(w *world) {
	for _, k := range []string{"", "a\x00b", "\xff", strings.Repeat("k", guard.MaxKey+1)} {
		w.want(k, guard.OpAction, "", 0, guard.ErrKey)
	}
	w.want("s/a", "other", "", 0, guard.ErrKey)
	w.wantEffects()
}

func largeResult(w *world) {
	large := strings.Repeat("x", guard.MaxResult)
	w.want("s/a", guard.OpAction, large, guard.Ran, nil)
	if a, err := w.do("s/a", guard.OpAction, ""); err != nil || string(a.Result) != large {
		w.t.Errorf("replay: got %d bytes, %v, want %d, nil", len(a.Result), err, len(large))
	}
	if w.Effect == nil { // without transactions the effect would stay
		return
	}
	w.want("s/b", guard.OpAction, large+"x", 0, guard.ErrTooLarge)
	w.wantEffects("action s/a")
}

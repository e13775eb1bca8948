package sagatest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/saga"
)

// Trial is a user's definition under test: how to run it, and what the world must look like after.
type Trial[I any] struct {
	// New makes the definition with participants of its own, which start empty, and the check of
	// them. It is called for each run. check gets the state in which the instance came to rest and
	// reports what is wrong with the world then: nothing left after Compensated, everything there after
	// Completed. A step's effects must be idempotent by its key, as in production.
	New func() (def *saga.Definition[I], check func(saga.State) error)
	// Input is the input of every run.
	Input I
	// Drive, if set, is called once the instance is started, to send the signals that it waits for. It may return
	// ErrTerminal: a run that is made to fail may have ended by then.
	Drive func(ctx context.Context, e *saga.Engine, id string) error
}

// Run runs the trial every way that this package knows, on the memory store and on virtual time: CrashEverywhere, Repeat,
// FailAt, UndoThenAction, Shuffle with 20 seeds. In all of them no body may begin, action or undo, before the log says that it may have.
func Run[I any](t *testing.T, trial Trial[I]) {
	t.Run("CrashEverywhere", func(t *testing.T) { CrashEverywhere(t, trial) })
	t.Run("Repeat", func(t *testing.T) { Repeat(t, trial) })
	t.Run("FailAt", func(t *testing.T) { FailAt(t, trial) })
	t.Run("UndoThenAction", func(t *testing.T) { UndoThenAction(t, trial) })
	t.Run("Shuffle", func(t *testing.T) { Shuffle(t, trial, 20) })
}

// CrashEverywhere runs the saga once for each boundary and kind of crash: the process dies before
// checkpoint n is written (the body's effect has happened, its result is lost), after it (written,
// and the next body not begun), lives and is not told how the write ended, or freezes before it and goes
// on as a zombie after another has finished the saga, when it must write nothing. Each time another process
// takes over once the lease is over, and the saga comes to rest with its log in order and the world as
// check wants it. All that is done twice: going forward, and with a saga that fails at its pivot, or
// else at its last step, and compensates.
func CrashEverywhere[I any](t *testing.T, trial Trial[I]) {
	kinds := []struct {
		name string
		kind fault
	}{{"before", dieBefore}, {"after", dieAfter}, {"unknown", loseAnswer}, {"frozen at", freeze}}
	def, _ := trial.New()
	nodes := def.Shape().Nodes
	last := append(steps(nodes), stepsEnding(nodes, "pivot")...)
	ways := []struct {
		name   string
		around around
	}{{"forward", nil}, {"compensating", failing(last[len(last)-1], "clean no")}}
	for _, way := range ways {
		for _, k := range kinds {
			for n, reached := 1, true; reached && !t.Failed(); n++ {
				t.Run(fmt.Sprintf("%s, %s checkpoint %d", way.name, k.name, n), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) { reached = crashAt(t, trial, n, k.kind, way.around) })
				})
			}
		}
	}
}

// crashAt reports whether there was a checkpoint n.
func crashAt[I any](t *testing.T, trial Trial[I], n int, kind fault, f around) bool {
	seen := 0
	plan := func(cps []saga.Checkpoint) fault {
		for range cps {
			if seen++; seen == n {
				return kind
			}
		}
		return sound
	}
	trial.run(t, plan, f)
	return seen >= n
}

// Repeat calls every body twice, choices and undos included: a body that is not idempotent by its key
// shows in the world.
func Repeat[I any](t *testing.T, trial Trial[I]) {
	synctest.Test(t, func(t *testing.T) {
		trial.run(t, nil, func(_ *saga.Ctx, body func() backstay.Outcome) backstay.Outcome {
			if first := body(); first.Err != nil {
				return first
			}
			return body()
		})
	})
}

// errInjected is the failure that FailAt puts in.
var errInjected = errors.New("sagatest: injected failure")

// FailAt runs the saga three times for each step of the graph: the step says a clean no without
// being called; it takes effect and says no; it takes effect and
// every attempt ends in doubt (the first twenty, for a step that is repeated for ever).
func FailAt[I any](t *testing.T, trial Trial[I]) {
	def, _ := trial.New()
	for _, path := range steps(def.Shape().Nodes) {
		for _, how := range []string{"clean no", "no after the effect", "in doubt"} {
			t.Run(path+" "+how, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					trial.run(t, nil, failing(path, how))
				})
			})
		}
	}
}

// failing makes a step fail.
func failing(path, how string) around {
	return func(c *saga.Ctx, body func() backstay.Outcome) backstay.Outcome {
		if c.Op() != saga.Action || static(c.Step()) != path || c.Attempt() > 20 {
			return body() // also a retriable step in the end
		}
		switch how {
		case "clean no":
			return backstay.Outcome{Err: saga.NoEffect(saga.Fail(errInjected))}
		case "no after the effect":
			body()
			return backstay.Outcome{Err: saga.Fail(errInjected)}
		default:
			body()
			return backstay.Outcome{Err: errInjected}
		}
	}
}

// around is what stands around every body; nil: nothing.
type around func(c *saga.Ctx, body func() backstay.Outcome) backstay.Outcome

// option makes an engine's policy of it.
func (f around) option() saga.Option {
	return saga.Around(backstay.PolicyFunc(func(next backstay.Handler) backstay.Handler {
		return func(ctx context.Context, call *backstay.Call) backstay.Outcome {
			c, _ := saga.FromContext(ctx)
			return f(c, func() backstay.Outcome {
				again := call.Next(ctx, nil)
				return next(again, again)
			})
		}
	}))
}

// UndoThenAction delays, for each compensatable step, the action's request until its undo has been carried
// out: the late action must have no effect (saga/guard sees to that).
func UndoThenAction[I any](t *testing.T, trial Trial[I]) {
	def, _ := trial.New()
	shape := def.Shape()
	for _, path := range stepsEnding(shape.Nodes, "compensate") {
		t.Run(path, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var mu sync.Mutex
				var late []func()
				r := trial.begin(t, nil, func(c *saga.Ctx, body func() backstay.Outcome) backstay.Outcome {
					if c.Op() != saga.Action || static(c.Step()) != path {
						return body()
					}
					mu.Lock()
					defer mu.Unlock()
					late = append(late, func() { body() })
					return backstay.Outcome{Err: errInjected}
				})
				state := r.rest()
				for _, f := range late {
					f()
				}
				r.judge(state)
			})
		})
	}
}

// Shuffle runs the saga with bodies that take random times, once for each of the seeds 1 to n, so that branches
// end in many orders.
func Shuffle[I any](t *testing.T, trial Trial[I], n int) {
	for seed := range n {
		t.Run(fmt.Sprintf("seed %d", seed+1), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var mu sync.Mutex
				random := rand.New(rand.NewPCG(uint64(seed+1), 0))
				trial.run(t, nil, func(_ *saga.Ctx, body func() backstay.Outcome) backstay.Outcome {
					mu.Lock()
					before, after := time.Duration(random.IntN(1000)), time.Duration(random.IntN(1000))
					mu.Unlock()
					time.Sleep(before * time.Millisecond) // virtual
					defer time.Sleep(after * time.Millisecond)
					return body()
				})
			})
		})
	}
}

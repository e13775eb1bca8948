// Package guard makes a participant of a saga run each action and each undo
// at most once, in whatever order they arrive.
//
// An orchestrator calls at least once: it repeats an action whose answer was
// lost, and it undoes an action of which it does not know whether it took
// effect. So a participant meets duplicates, undos of actions that never
// happened, and actions that arrive after their undo. The guard keeps one row
// for each (key, op) in the participant's own transaction, so that row and
// effect are committed together:
//
//	                          | action runs first   | undo arrives first
//	the action (again)        | the stored result   | ErrPoisoned, no effect
//	the undo                  | runs, once          | nothing to undo, recorded
//	the undo again            | the stored result   | nothing to undo
//
// The key is that of the saga's step, "<instance id>/<step>", which the
// orchestrator sends with the call; never a business key, which may be used
// again. Action and undo of a step share the key and differ in the op.
//
// There are three ways in, from the nearest to the furthest:
//
//   - [Action] and [Compensate] in a transaction that the caller has open,
//     through [SQL] (or sagapgx.Guard for a pgx.Tx);
//   - [DB.Run], which opens the transaction, retries it after a deadlock and
//     answers [ErrRunning] while another call with the same key is running;
//   - [HTTP], server middleware over a [Runner], and
//     grpcclient/grpcguard, the same as a gRPC interceptor.
//
// A participant whose effects are not in the database of the guard's table
// gains less: the row may be committed and the effect lost, or the other way
// round. Then only an idempotent effect is safe.
//
// The table must exist: see [Migrate].
package guard

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

var (
	// ErrPoisoned reports an action that arrived after its undo. It was not
	// run and never will be under this key. Do not repeat it.
	ErrPoisoned = errors.New("guard: the action was undone before it arrived")

	// ErrRunning reports that a call with the same key is running now. This
	// one was not run; repeat it a little later to get the other's result.
	ErrRunning = errors.New("guard: a call with this key is still running")

	// ErrKey reports a key or op that the guard does not take. Nothing was
	// run; repeating it is no use.
	ErrKey = errors.New("guard: bad key")

	// ErrTooLarge reports a result over MaxResult. The transaction must be
	// rolled back, so the call had no effect; repeating it is no use.
	ErrTooLarge = errors.New("guard: the result is too large to store")

	// ErrReplayed is returned by [Action] with the option [ReportReplay]
	// beside the stored result. The action has had its effect.
	ErrReplayed = errors.New("guard: the result is that of an earlier call")
)

// MaxResult is the size of a stored result in bytes, 1 MiB: results sit in
// the row and are read whole with every duplicate.
const MaxResult = 1 << 20

// MaxKey is the length of a key in bytes, the longest that the primary key
// holds in all three databases.
const MaxKey = 255

// An Op says what is done under a key.
type Op string

const (
	OpAction     Op = "action"     // the forward effect
	OpCompensate Op = "compensate" // its undo
)

// undoSuffix ends the idempotency key of a saga's undo (saga.UndoSuffix), which
// must differ from its action's for servers without a guard. Here the two
// share a key, so that an undo finds its action.
const undoSuffix = "/undo"

// A Call is what the orchestrator asks for.
type Call struct {
	Key   string // 1 to MaxKey bytes of valid UTF-8 without NUL; of an undo with or without "/undo" at its end
	Op    Op     // empty: OpAction
	Epoch int64  // which owner of the saga asked; kept in the row for whoever looks into a case, not checked
}

// Validate returns an error that wraps ErrKey unless c can be guarded.
func (c Call) Validate() error {
	switch {
	case c.Key == "":
		return fmt.Errorf("%w: empty", ErrKey)
	case len(c.Key) > MaxKey:
		return fmt.Errorf("%w: %d bytes, at most %d", ErrKey, len(c.Key), MaxKey)
	case strings.IndexByte(c.Key, 0) >= 0 || !utf8.ValidString(c.Key):
		return fmt.Errorf("%w: not text", ErrKey)
	case c.Op != "" && c.Op != OpAction && c.Op != OpCompensate:
		return fmt.Errorf("%w: op %q", ErrKey, c.Op)
	}
	return nil
}

// How says how an answer came about.
type How uint8

const (
	Ran      How = iota + 1 // the function ran, now
	Replayed                // it ran earlier; this is its stored result
	Nothing                 // an undo whose action never happened: nothing to undo
)

// An Answer is the end of a guarded call.
type Answer struct {
	Result []byte // what the function returned; nil when How is Nothing
	How    How
}

// A Func is the guarded effect. prior is the stored result of the action when
// an undo runs, and nil for an action.
type Func func(ctx context.Context, prior []byte) ([]byte, error)

// Run makes call c at most once, with its rows in log. When it returns an
// error the transaction behind log must be rolled back; when it returns nil it
// must be committed, also if fn did not run: the record that an undo came
// first is what stops the late action.
func Run(ctx context.Context, log Log, c Call, fn Func) (Answer, error) {
	if err := c.Validate(); err != nil {
		return Answer{}, err
	}
	if c.Op == OpCompensate {
		c.Key = strings.TrimSuffix(c.Key, undoSuffix)
		return compensate(ctx, log, c, fn)
	}
	row, fresh, err := log.Claim(ctx, Row{Key: c.Key, Op: OpAction, By: OpAction, Epoch: c.Epoch})
	switch {
	case err != nil:
		return Answer{}, err
	case fresh:
		return run(ctx, log, c.Key, OpAction, nil, fn)
	case row.By != OpAction:
		return Answer{}, ErrPoisoned
	case !row.Done:
		return Answer{}, ErrRunning
	}
	return Answer{Result: row.Result, How: Replayed}, nil
}

// compensate takes the action's row first. Whoever gets it decides: an action
// that comes later finds it taken and is refused.
func compensate(ctx context.Context, log Log, c Call, fn Func) (Answer, error) {
	action, fresh, err := log.Claim(ctx, Row{Key: c.Key, Op: OpAction, By: OpCompensate, Epoch: c.Epoch})
	switch {
	case err != nil:
		return Answer{}, err
	case fresh:
		return Answer{How: Nothing}, log.Finish(ctx, c.Key, OpAction, nil)
	case action.By != OpAction:
		return Answer{How: Nothing}, nil
	case !action.Done:
		return Answer{}, ErrRunning
	}
	row, fresh, err := log.Claim(ctx, Row{Key: c.Key, Op: OpCompensate, By: OpCompensate, Epoch: c.Epoch})
	switch {
	case err != nil:
		return Answer{}, err
	case fresh:
		return run(ctx, log, c.Key, OpCompensate, action.Result, fn)
	case !row.Done:
		return Answer{}, ErrRunning
	}
	return Answer{Result: row.Result, How: Replayed}, nil
}

// run calls fn for a row that was just claimed. If fn fails the row goes
// again, so that a caller who commits in spite of the error leaves no claim
// behind that would pass for a done effect.
func run(ctx context.Context, log Log, key string, op Op, prior []byte, fn Func) (Answer, error) {
	finished := false
	defer func() {
		if !finished { // fn failed, panicked or called runtime.Goexit
			_ = log.Forget(context.WithoutCancel(ctx), key, op)
		}
	}()
	result, err := fn(ctx, prior)
	if err == nil && len(result) > MaxResult {
		err = fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, len(result), MaxResult)
	}
	if err == nil {
		err = log.Finish(ctx, key, op, result)
	}
	if err != nil {
		return Answer{}, err
	}
	finished = true
	return Answer{Result: result, How: Ran}, nil
}

package saga_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/saga"
	"github.com/backstay-go/backstay/saga/sagamem"
)

// exhausted is a retry's error after several attempts.
type exhausted struct{ err error }

func (e *exhausted) Error() string  { return "exhausted: " + e.err.Error() }
func (e *exhausted) Unwrap() error  { return e.err }
func (e *exhausted) Attempted() int { return 3 }

// TestNoEffectInferred: a refusal by one of our policies and a failed dial count as no effect, so that the
// step is not undone; unless something before them may have had effect.
func TestNoEffectInferred(t *testing.T) {
	open := &backstay.Rejected{Policy: "breaker", Name: "card", Reason: "open"}
	dial := &net.OpError{Op: "dial", Err: errors.New("connection refused")}
	read := &net.OpError{Op: "read", Err: errors.New("connection reset")}
	for _, c := range []struct {
		name   string
		err    error
		takes  int
		undone bool
	}{
		{"a refusal", open, 1, false},
		{"a wrapped refusal", fmt.Errorf("charge: %w", open), 0, false},
		{"a failed dial", fmt.Errorf("post: %w", dial), 1, false},
		{"a broken connection", read, 1, true},
		{"a dial after other attempts", &exhausted{dial}, 1, true},
		{"a refusal after another request", open, 2, true},
		{"a refusal joined with another failure", errors.Join(open, read), 1, true},
		{"two refusals", errors.Join(open, open), 1, false},
		{"a promise", saga.NoEffect(read), 2, false},
		{"a promise with a no", saga.Fail(saga.NoEffect(read)), 1, false},
		{"a no", saga.Fail(read), 1, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				undone := false
				d := saga.Must(saga.Define("d", 1, func(b *saga.Builder[int]) {
					saga.Step(b, "charge", func(sc *saga.Ctx, _ int) (int, error) {
						ctx := context.Context(sc)
						for i := range c.takes {
							if i > 0 {
								ctx = sc.Part(fmt.Sprint(i))
							}
							if _, err := backstay.TakeOperation(ctx); err != nil {
								t.Error(err)
							}
						}
						return 0, c.err
					}, saga.Attempts(1)).Compensate(func(*saga.Ctx, int, saga.Result[int]) error { undone = true; return nil })
				}))
				if err := sagamem.Run(t.Context(), d, 1); !errors.Is(err, c.err) {
					t.Errorf("got %v, want it to be %v", err, c.err)
				}
				if undone != c.undone {
					t.Errorf("got undone %v, want %v", undone, c.undone)
				}
			})
		})
	}
}

// TestKeys: an action and its undo have keys that differ, the same in every attempt; the first request takes the key, a second
// fails unless it is a part.
func TestKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen []string
		note := func(ctx context.Context, want error) {
			op, err := backstay.TakeOperation(ctx)
			if !errors.Is(err, want) {
				t.Errorf("got error %v, want %v", err, want)
			}
			if err == nil {
				seen = append(seen, op.Op+" "+op.Key[37:])
			}
			if err == nil && op.Epoch != 1 {
				t.Errorf("got epoch %d, want 1", op.Epoch)
			}
		}
		d := saga.Must(saga.Define("d", 1, func(b *saga.Builder[int]) {
			saga.Step(b, "a", func(c *saga.Ctx, _ int) (int, error) {
				inner, cancel := context.WithTimeout(c, time.Minute)
				defer cancel()
				note(inner, nil)
				note(c, saga.ErrKeyReused)
				note(c.Part("fee"), nil)
				if c.Attempt() == 1 {
					return 0, errors.New("once more")
				}
				return 0, saga.Fail(errors.New("no"))
			}).Compensate(func(c *saga.Ctx, _ int, _ saga.Result[int]) error {
				note(c, nil)
				if c.Key() != c.ActionKey()+saga.UndoSuffix {
					t.Errorf("got key %q for the undo of %q", c.Key(), c.ActionKey())
				}
				return nil
			})
		}))
		_ = sagamem.Run(t.Context(), d, 1)
		want := []string{"action a", "action a.fee", "action a", "action a.fee", "compensate a/undo"}
		if !slices.Equal(seen, want) {
			t.Errorf("got %q, want %q", seen, want)
		}
	})
}

// TestThrough: a step's policy sees its attempts, and what it refuses leaves no trace.
func TestThrough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var names []string
		watch := backstay.PolicyFunc(func(next backstay.Handler) backstay.Handler {
			return func(ctx context.Context, call *backstay.Call) backstay.Outcome {
				names = append(names, call.Name())
				return next(ctx, call)
			}
		})
		d := saga.Must(saga.Define("d", 1, func(b *saga.Builder[int]) {
			saga.Step(b, "a", noop, saga.Through(watch)).Compensate(nothing)
			saga.Step(b, "b", noop).NothingToUndo("nothing")
		}))
		if err := sagamem.Run(t.Context(), d, 1, saga.Around(watch)); err != nil {
			t.Fatal(err)
		}
		if want := []string{"d/a", "d/a", "d/b"}; !slices.Equal(names, want) {
			t.Errorf("got %q, want %q", names, want)
		}
	})
}

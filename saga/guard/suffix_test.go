package guard_test

import (
	"context"
	"errors"
	"testing"

	"github.com/backstay-go/backstay/saga/guard"
)

// TestUndoKey: a saga's undo carries its action's key with a suffix, and still finds the action.
func TestUndoKey(t *testing.T) {
	run := &guard.Memory{}
	fn := func(context.Context, []byte) ([]byte, error) { return nil, nil }
	if a, err := run.Run(t.Context(), guard.Call{Key: "s/a/undo", Op: guard.OpCompensate}, fn); err != nil || a.How != guard.Nothing {
		t.Fatalf("got %+v, %v, want nothing to undo", a, err)
	}
	if _, err := run.Run(t.Context(), guard.Call{Key: "s/a"}, fn); !errors.Is(err, guard.ErrPoisoned) {
		t.Fatalf("got %v for the late action, want ErrPoisoned", err)
	}
}

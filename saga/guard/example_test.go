package guard_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/backstay-go/backstay/saga/guard"
)

// An undo arrives before its action: nothing is undone, and the action that
// comes late is refused.
func ExampleMemory() {
	ctx, run := context.Background(), &guard.Memory{}
	reserve := func(context.Context, []byte) ([]byte, error) { fmt.Println("reserved"); return nil, nil }
	release := func(context.Context, []byte) ([]byte, error) { fmt.Println("released"); return nil, nil }

	a, err := run.Run(ctx, guard.Call{Key: "saga-1/reserve", Op: guard.OpCompensate}, release)
	fmt.Println(a.How == guard.Nothing, err)
	_, err = run.Run(ctx, guard.Call{Key: "saga-1/reserve", Op: guard.OpAction}, reserve)
	fmt.Println(errors.Is(err, guard.ErrPoisoned))
	// Output:
	// true <nil>
	// true
}

// A repeated action has one effect, and every call gets its result.
func ExampleMemory_Run() {
	ctx, run := context.Background(), &guard.Memory{}
	charges := 0
	charge := func(context.Context, []byte) ([]byte, error) {
		charges++
		return fmt.Appendf(nil, "charge-%d", charges), nil
	}
	for range 3 {
		a, err := run.Run(ctx, guard.Call{Key: "saga-1/charge"}, charge)
		fmt.Println(string(a.Result), err)
	}
	// Output:
	// charge-1 <nil>
	// charge-1 <nil>
	// charge-1 <nil>
}

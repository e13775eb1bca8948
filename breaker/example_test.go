package breaker_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/breaker"
)

func ExampleNew() {
	inventory := breaker.New(breaker.Config{Name: "inventory", Consecutive: 3, Spread: -1, OpenFor: time.Minute})
	pipeline := backstay.Chain(inventory)
	ctx := context.Background()

	down := func(context.Context) (string, error) { return "", errors.New("connection refused") }
	for range 4 {
		_, err := backstay.Do(ctx, pipeline, down)
		if r, ok := errors.AsType[*backstay.Rejected](err); ok { // the text adds how long: breaker "inventory": open, retry in 59.9s
			fmt.Println(r.Name, r.Reason, errors.Is(err, breaker.ErrOpen))
			continue
		}
		fmt.Println(err)
	}
	fmt.Println(inventory.State())
	// Output:
	// connection refused
	// connection refused
	// connection refused
	// inventory open true
	// open
}

// A message is no function call: its ending is reported when it is known.
func ExampleBreaker_Acquire() {
	ctx := context.Background()
	broker := breaker.New(breaker.Config{Name: "broker"})

	permit, err := broker.Acquire(ctx)
	if err != nil {
		fmt.Println("not now:", err)
		return
	}
	defer permit.Cancel(ctx) // does nothing once Done has been called

	permit.DoneErr(ctx, nil)
	fmt.Println(broker.Snapshot().Calls)
	// Output: 1
}

// A breaker for each host. Those of idle hosts are forgotten, those that are open last.
func Example_perKey() {
	hosts := backstay.NewKeyed(backstay.KeyedConfig{}, func(host string) *breaker.Breaker {
		return breaker.New(breaker.Config{Name: host, Consecutive: 1, Spread: -1, OpenFor: time.Minute})
	})
	pipeline := backstay.Chain(hosts)
	ctx := context.Background()

	_ = backstay.Run(ctx, pipeline, func(context.Context) error { return errors.New("down") }, backstay.WithKey("a.example"))
	for _, host := range []string{"a.example", "b.example"} {
		err := backstay.Run(ctx, pipeline, func(context.Context) error { return nil }, backstay.WithKey(host))
		fmt.Println(host, errors.Is(err, breaker.ErrOpen))
	}
	// Output:
	// a.example true
	// b.example false
}

// A shadow shows what a breaker would have refused before it is given the say.
func Example_shadow() {
	b := breaker.New(breaker.Config{
		Mode: breaker.Shadow, Consecutive: 2, Spread: -1, OpenFor: time.Minute,
		Observer: backstay.ObserverFunc(func(_ context.Context, e backstay.Event) { fmt.Println(e.Kind, e.Reason) }),
	})
	for range 3 {
		_ = backstay.Run(context.Background(), backstay.Chain(b), func(context.Context) error { return errors.New("down") })
	}
	fmt.Println(b.Snapshot().Rejected, "would have been refused")
	// Output:
	// state failures in a row
	// shadow open
	// 1 would have been refused
}

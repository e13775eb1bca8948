package saga_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/backstay-go/backstay/saga"
	"github.com/backstay-go/backstay/saga/sagamem"
)

type Order struct{ Card, Item string }

// A saga of two steps whose second says no: the first is undone.
func Example() {
	declined := errors.New("card declined")
	placeOrder := saga.Must(saga.Define("place-order", 1, func(b *saga.Builder[Order]) {
		hold := saga.Step(b, "reserve", func(c *saga.Ctx, o Order) (string, error) {
			fmt.Println("reserve", o.Item)
			return "hold-7", nil
		}).Compensate(func(c *saga.Ctx, o Order, res saga.Result[string]) error {
			id, known := res.Value()
			fmt.Println("release", id, known)
			return nil
		})
		saga.Step(b, "charge", func(c *saga.Ctx, o Order) (string, error) {
			fmt.Println("charge for", hold.Get(c))
			return "", saga.Fail(declined)
		}, saga.Needs(hold)).Pivot()
	}))
	err := sagamem.Run(context.Background(), placeOrder, Order{"4000", "lamp"})
	fmt.Println(errors.Is(err, declined))
	// Output:
	// reserve lamp
	// charge for hold-7
	// release hold-7 true
	// true
}

func ExampleDefinition_Mermaid() {
	d := saga.Must(saga.Define("place-order", 1, func(b *saga.Builder[Order]) {
		saga.Step(b, "reserve", func(*saga.Ctx, Order) (int, error) { return 1, nil }).
			Compensate(func(*saga.Ctx, Order, saga.Result[int]) error { return nil })
		b.If("gift", func(_ *saga.Ctx, o Order) (bool, error) { return o.Item == "gift", nil }, func(b *saga.Builder[Order]) {
			saga.Step(b, "wrap", func(*saga.Ctx, Order) (int, error) { return 1, nil }).NothingToUndo("paper")
		}, nil)
		saga.Step(b, "charge", func(*saga.Ctx, Order) (int, error) { return 1, nil }).Pivot()
	}))
	fmt.Print(d.Mermaid())
	// Output:
	// flowchart TD
	//   n0((start))
	//   n1["reserve<br/>undo"]
	//   n0 --> n1
	//   n2{"gift"}
	//   n1 --> n2
	//   n3["wrap<br/>nothing to undo"]
	//   n2 -->|then| n3
	//   n4{{"charge<br/>pivot"}}
	//   n3 --> n4
	//   n2 -->|else| n4
	//   n5((done))
	//   n4 --> n5
}

package chaos_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/chaos"
)

func ExampleNew() {
	faults := chaos.New(chaos.Config{FaultRate: 1, Fault: errors.New("connection reset")})
	p := backstay.Chain(faults)
	call := func() error { return backstay.Run(context.Background(), p, func(context.Context) error { return nil }) }
	fmt.Println("off:", call())
	faults.Switch(true)
	fmt.Println("on:", call())
	fmt.Print(p)
	// Output:
	// off: <nil>
	// on: connection reset
	// chaos (ON, INJECTS 100% FAULTS)
	//   call
}

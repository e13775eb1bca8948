package ratelimit_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/ratelimit"
)

func ExampleNew() {
	p := backstay.Chain(ratelimit.New(ratelimit.Config{Name: "sms", Rate: 1, Burst: 2}))
	for range 3 {
		err := backstay.Run(context.Background(), p, func(context.Context) error { return nil })
		fmt.Println(errors.Is(err, ratelimit.ErrLimited))
	}
	// Output:
	// false
	// false
	// true
}

package fallback_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/fallback"
)

func down(context.Context) (string, error) { return "", errors.New("connection refused") }

func ExampleValue() {
	p := backstay.Chain(fallback.New(fallback.Value("unknown"), fallback.Config{}))
	fmt.Println(backstay.Do(context.Background(), p, down))
	// Output: unknown <nil>
}

func ExampleCall() {
	cached := func(_ context.Context, err error) (string, error) { return "yesterday's, since " + err.Error(), nil }
	p := backstay.Chain(fallback.New(fallback.Call(cached), fallback.Config{}))
	fmt.Println(backstay.Do(context.Background(), p, down))
	// Output: yesterday's, since connection refused <nil>
}

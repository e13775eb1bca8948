// Function protects a call of any function: a total timeout, a retry, a breaker and an attempt timeout around a dependency that fails twice,
// then hangs once, then works, and then is gone.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/breaker"
	"github.com/backstay-go/backstay/retry"
	"github.com/backstay-go/backstay/timeout"
)

// inventory stands for a client of another service.
type inventory struct {
	calls int
	gone  bool
}

var errUnavailable = errors.New("inventory: unavailable")

func (s *inventory) Stock(ctx context.Context, _ string) (int, error) {
	s.calls++
	switch {
	case s.gone, s.calls <= 2:
		return 0, errUnavailable
	case s.calls == 3: // hangs, but minds its context
		<-ctx.Done()
		return 0, ctx.Err()
	}
	return 42, nil
}

func main() {
	pipeline := backstay.Chain( // outermost first; built once, kept for good
		timeout.New(5*time.Second),
		retry.New(retry.Config{Attempts: 5, Delay: 20 * time.Millisecond}),
		breaker.New(breaker.Config{Name: "inventory", Consecutive: 8, Spread: -1}),
		timeout.New(100*time.Millisecond),
	)
	fmt.Print(pipeline)

	var service inventory
	stock := func(ctx context.Context) (int, error) { return service.Stock(ctx, "teapot") }

	n, err := backstay.Do(context.Background(), pipeline, stock)
	fmt.Printf("\nfails twice, hangs once, works: %d in stock, error %v, after %d attempts\n", n, err, service.calls)
	if n != 42 || err != nil {
		os.Exit(1)
	}

	service.gone = true
	for range 4 {
		before, start := service.calls, time.Now()
		_, err = backstay.Do(context.Background(), pipeline, stock)
		fmt.Printf("gone: %d attempts in %v: %v\n", service.calls-before, time.Since(start).Round(time.Millisecond), err)
	}
	if !errors.Is(err, breaker.ErrOpen) {
		fmt.Println("the breaker did not open")
		os.Exit(1)
	}
	fmt.Println("shown: one call survived two failures and a hang; after eight failures in a row the breaker answered without calling.")
}

package adaptive_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/adaptive"
)

func ExampleNew() {
	limits := backstay.NewKeyed(backstay.KeyedConfig{}, func(host string) *adaptive.Limit {
		return adaptive.New(adaptive.Config{Name: host})
	})
	p := backstay.Chain(limits)
	v, err := backstay.Do(context.Background(), p, func(ctx context.Context) (string, error) {
		return "42 in stock", nil
	}, backstay.WithKey("inventory"))
	fmt.Println(v, err)
	l, _ := limits.Lookup("inventory")
	fmt.Println("limit", l.Snapshot().Limit)
	// Output:
	// 42 in stock <nil>
	// limit 20
}

func ExampleNewThrottle() {
	p := backstay.Chain(adaptive.NewThrottle(adaptive.ThrottleConfig{Name: "search"}))
	refused := 0
	for range 1000 {
		err := backstay.Run(context.Background(), p, func(context.Context) error { return errors.New("unavailable") })
		if errors.Is(err, adaptive.ErrThrottled) {
			refused++
		}
	}
	fmt.Println("most are refused:", refused > 800, "but not all:", refused < 990)
	// Output: most are refused: true but not all: true
}

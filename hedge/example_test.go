package hedge_test

import (
	"context"
	"fmt"
	"time"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/hedge"
)

func ExampleNew() {
	replicas := []string{"slow-1", "fast-2"}
	p := backstay.Chain(hedge.New(hedge.Config{Delay: 5 * time.Millisecond}))
	v, err := backstay.Do(context.Background(), p, func(ctx context.Context) (string, error) {
		replica := replicas[(backstay.CallFrom(ctx).Attempt()-1)%len(replicas)]
		if replica == "slow-1" {
			<-ctx.Done() // a pause of its garbage collector; told when the other one has answered
			return "", ctx.Err()
		}
		return "answer of " + replica, nil
	}, backstay.Idempotent())
	fmt.Println(v, err)
	// Output: answer of fast-2 <nil>
}

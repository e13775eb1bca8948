package consumer_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/consumer"
)

// A message that fails is tried again in place; one that never succeeds goes to Dead.
func ExampleHandle() {
	config := consumer.Config{
		Attempts: 3,
		Wait:     time.Millisecond,
		Failed:   func(m *outbox.Message, attempt int, err error) { fmt.Println(m.ID, "attempt", attempt, err) },
		Dead: func(_ context.Context, m *outbox.Message, cause error) error {
			fmt.Println(m.ID, "is stored among the dead:", cause)
			return nil
		},
	}.WithDefaults()
	tries := 0
	flaky := func(context.Context, *outbox.Message) error {
		if tries++; tries == 1 {
			return errors.New("deadlock")
		}
		return nil
	}
	broken := func(context.Context, *outbox.Message) error { return outbox.Permanent(errors.New("not JSON")) }
	fmt.Println(consumer.Handle(context.Background(), config, flaky, &outbox.Message{ID: "a"}))
	fmt.Println(consumer.Handle(context.Background(), config, broken, &outbox.Message{ID: "b"}))
	// Output:
	// a attempt 1 deadlock
	// done
	// b attempt 1 outbox: refused for good: not JSON
	// b is stored among the dead: outbox: refused for good: not JSON
	// done
}

package outbox_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/outboxmem"
)

// A relay publishes what was committed, each key in order.
func ExampleNewRelay() {
	ctx := context.Background()
	box := outboxmem.New() // in a service: outboxsql.New or outboxpgx.New
	published := make(chan string, 2)
	relay := outbox.NewRelay(box.Source(), outbox.PublisherFunc(func(_ context.Context, batch []*outbox.Message, result []error) {
		for i, m := range batch {
			published <- fmt.Sprintf("%s %s: %s", m.Topic, m.Key, m.Payload)
			result[i] = nil // confirmed
		}
	}), outbox.RelayConfig{})
	ended := make(chan error, 1)
	go func() { ended <- relay.Run(ctx) }()

	_ = box.InTx(ctx, func(tx *outboxmem.Tx) error {
		return tx.Enqueue(ctx, outbox.Message{Topic: "orders", Key: "o-1", Payload: []byte("placed")},
			outbox.Message{Topic: "orders", Key: "o-1", Payload: []byte("paid")})
	})
	_ = box.InTx(ctx, func(tx *outboxmem.Tx) error {
		_ = tx.Enqueue(ctx, outbox.Message{Topic: "orders", Key: "o-2", Payload: []byte("placed")})
		return errors.New("out of stock") // rolled back, message and all
	})
	fmt.Println(<-published)
	fmt.Println(<-published)

	stop, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	fmt.Println(relay.Shutdown(stop), <-ended, box.Len(), "left")
	// Output:
	// orders o-1: placed
	// orders o-1: paid
	// <nil> <nil> 0 left
}

// A poison message and what follows it under its key wait among the dead letters, until somebody has seen to the cause.
func ExampleDeadFilter() {
	ctx := context.Background()
	box := outboxmem.New()
	parked := make(chan string, 2)
	relay := outbox.NewRelay(box.Source(), outbox.PublisherFunc(func(_ context.Context, batch []*outbox.Message, result []error) {
		for i := range batch {
			result[i] = outbox.Permanent(errors.New("no such field: colour"))
		}
	}), outbox.RelayConfig{OnParked: func(m *outbox.Message, reason string) { parked <- string(m.Payload) }})
	go relay.Run(ctx)
	defer relay.Shutdown(ctx)

	_ = box.Enqueue(ctx, outbox.Message{Topic: "t", Key: "k", Payload: []byte("first")}, outbox.Message{Topic: "t", Key: "k", Payload: []byte("second")})
	fmt.Println(<-parked, <-parked)
	dead, _ := box.DeadLetters(ctx, outbox.DeadFilter{Key: "k"})
	for _, d := range dead {
		fmt.Println(d.Reason)
	}
	// Output:
	// first second
	// outbox: refused for good: no such field: colour
	// an earlier message of the key is parked
}

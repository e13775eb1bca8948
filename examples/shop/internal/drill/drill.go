// Package drill breaks the shop: presets for its page, and a random schedule for tests.
package drill

import (
	"context"
	"time"

	"github.com/backstay-go/backstay/examples/shop/internal/fault"
)

// Plant is what can be broken.
type Plant interface {
	// Faults replaces what is wrong with a service.
	Faults(ctx context.Context, service string, s fault.Set) error
	// Broker switches the message broker.
	Broker(on bool) error
	// Relay lets the outbox's relay publish, or not.
	Relay(ctx context.Context, on bool) error
	// Poison puts an event into the outbox that cannot be published, or discards the dead letters.
	Poison(ctx context.Context, on bool) error
	// Kill ends a service's process.
	Kill(service string) error
}

// Preset is a fault, or several, behind one name.
type Preset struct {
	Name   string
	Title  string
	Watch  string // what to look at
	Killer bool   // it kills a process, and is over then
	Do     func(ctx context.Context, p Plant, on bool) error
}

// Presets are those of the page.
func Presets() []Preset {
	return []Preset{
		{
			Name: "payments-brown-out", Title: "Payments brown-out",
			Watch: "Payments gets slow and fails half of the time. Attempts per call rise and are capped by the budget, the breaker opens and says why, and orders are answered “accepted, payment pending” instead of hanging.",
			Do:    faulty("payments", fault.Set{Errors: 0.5, Latency: 700 * time.Millisecond}),
		},
		{
			Name: "retry-storm", Title: "Retry storm",
			Watch: "Inventory fails two calls of three. With protection the attempts per call stay near one; without, each call is made five times and the queue grows.",
			Do:    faulty("inventory", fault.Set{Errors: 0.66, Latency: 150 * time.Millisecond}),
		},
		{
			Name: "reply-lost", Title: "Reply lost after effect",
			Watch: "Payments does its work, and three answers of ten never arrive. The calls are repeated under the same key, and nobody pays twice.",
			Do:    faulty("payments", fault.Set{LoseReply: 0.3}),
		},
		{
			Name: "poison-event", Title: "Poison event",
			Watch: "An event that no broker takes is in the outbox. It goes to the dead letters; the others pass it.",
			Do:    func(ctx context.Context, p Plant, on bool) error { return p.Poison(ctx, on) },
		},
		{
			Name: "broker-down", Title: "Broker down",
			Watch: "The outbox's age rises by a second each second, and orders still succeed. Back on, it drains in order and nothing is handled twice.",
			Do:    func(_ context.Context, p Plant, on bool) error { return p.Broker(!on) },
		},
		{
			Name: "kill-orders", Title: "kill -9 orders", Killer: true,
			Watch: "The process that runs the sagas is gone. It is started again, takes its sagas up where they were, and the books balance.",
			Do: func(_ context.Context, p Plant, on bool) error {
				if !on {
					return nil
				}
				return p.Kill("orders")
			},
		},
	}
}

func faulty(service string, s fault.Set) func(context.Context, Plant, bool) error {
	return func(ctx context.Context, p Plant, on bool) error {
		if !on {
			s := fault.Set{}
			return p.Faults(ctx, service, s)
		}
		return p.Faults(ctx, service, s)
	}
}

// Find returns the preset of a name.
func Find(name string) (Preset, bool) {
	for _, p := range Presets() {
		if p.Name == name {
			return p, true
		}
	}
	return Preset{}, false
}

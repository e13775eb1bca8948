package outbox

import (
	"context"
	"fmt"
	"math/rand/v2"
)

// Enqueued is a message made ready to be written, for authors of stores.
type Enqueued struct {
	Message
	Part int
}

// Preparation is what a store does to messages before it writes them.
type Preparation struct {
	Limits     Limits
	Sealer     Sealer // nil: none
	Partitions int
}

// Prepare checks the messages, gives them ids, trace context and partitions, and seals them. The caller's messages stay as they are. The error
// names the first bad message; nothing is to be written then.
func (p Preparation) Prepare(ctx context.Context, messages []Message) ([]Enqueued, error) {
	out := make([]Enqueued, len(messages))
	spread := rand.IntN(p.Partitions)
	for i := range messages {
		m := &out[i]
		m.Message = messages[i]
		if m.ID == "" {
			m.ID = NewID()
		}
		if err := m.Validate(p.Limits); err != nil {
			return nil, err
		}
		Inject(ctx, &m.Message)
		if p.Sealer != nil {
			if err := p.Sealer.Seal(ctx, &m.Message); err != nil {
				return nil, fmt.Errorf("outbox: message %q: seal: %w", m.ID, err)
			}
		}
		if m.Key != "" {
			m.Part = PartitionOf(m.Key, p.Partitions)
		} else {
			m.Part = (spread + i) % p.Partitions
		}
	}
	return out, nil
}

// Package consumer is the receiving half of an outbox: it hands each message of a broker to a handler, and acknowledges the message
// only after the handler has returned, which is after its effect was committed.
//
// It is used through the broker packages (natspub.Consume, amqppub.Consume, kafkapub.Consume), which know how to fetch and to
// acknowledge; this package holds what they have in common: lanes, tries in place, and an orderly end.
//
// # What is promised
//
// At least once: a message whose handler returned nil and whose acknowledgement was lost comes again. A handler that commits its
// effect together with the message's id in an inbox ([outbox] Inbox.Handle) has its effect once. Messages of one key are handled one
// after another in the order of their arrival, as long as one consumer reads the queue, the stream or the partition; a message that
// fails is tried again in place, so that its successors wait for it. Handing it back to the broker would let them overtake.
//
// # Defaults
//
//	Lanes     1        messages handled at the same time
//	Attempts  0        tries in place; 0: until it succeeds or Run ends
//	Wait      100 ms   pause after the first failure, doubled each time, jittered down to half
//	MaxWait   10 s     cap of the pause
//	Timeout   30 s     for one try
//	Grace     10 s     for the message in hand when Run is told to end
//
// A panic of the handler is not recovered: the process ends, the message is not acknowledged and comes again.
package consumer

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/backstay-go/backstay/internal/configjson"
	"github.com/backstay-go/backstay/outbox"
)

// Handler makes the effect of one message. A nil return says that the effect is committed; the message is then acknowledged. An
// error says that nothing was committed, or that a repetition does no harm. An error that is [outbox.ErrPermanent] ends the tries.
//
// The context carries the trace of the enqueue as its remote parent ([outbox.Extract]); it ends with the timeout of the try, and after
// [Config].Grace when Run is told to end. The message must not be kept.
type Handler func(ctx context.Context, m *outbox.Message) error

// Config says how messages are handled. The zero value works.
type Config struct {
	// Lanes is how many messages are handled at the same time, 1 to 1024. Messages of one key stay in one lane; messages without
	// a key go to any. Default 1, which keeps the order of arrival among all messages.
	Lanes int `json:"lanes,omitempty"`

	// Attempts is the number of tries before a message is given up. Default 0: no end, since giving up loses the order of its key
	// and, without a place for dead messages, the message.
	Attempts int `json:"attempts,omitempty"`

	// Wait is the pause after the first failure; it doubles with each further one up to MaxWait, and is jittered down to
	// half. Defaults 100 ms and 10 s.
	Wait    time.Duration `json:"wait,omitempty"`
	MaxWait time.Duration `json:"maxWait,omitempty"`

	// Timeout bounds one try. Default 30 s; negative: none.
	Timeout time.Duration `json:"timeout,omitempty"`

	// Grace is how long the messages in hand may go on after the context of Run is over. Default 10 s; negative: none.
	Grace time.Duration `json:"grace,omitempty"`

	// Open decrypts payloads that an [outbox.Sealer] sealed at enqueue. [outbox.AES] binds a payload to its topic, which a consumer knows
	// only where the topic is the name of the subject, queue or Kafka topic. Default: payloads are handed on as they came.
	Open outbox.Opener `json:"-"`

	// Dead takes a message that was given up, with its last error, and stores it somewhere; when it returns nil the message is
	// acknowledged, otherwise the tries go on, since letting the message go would let its successors overtake it. Nil: the
	// message is rejected, which each broker package explains.
	Dead func(ctx context.Context, m *outbox.Message, cause error) error `json:"-"`

	// Failed is told of each failed try. It is called on the lane's goroutine and must not block.
	Failed func(m *outbox.Message, attempt int, err error) `json:"-"`
}

// MarshalJSON encodes the fields that are set, durations as strings ("1.5s"); functions are left out.
func (c Config) MarshalJSON() ([]byte, error) { return configjson.Marshal(c) }

// UnmarshalJSON decodes what MarshalJSON encodes. Fields that data does not name keep their values, unknown ones are an error.
func (c *Config) UnmarshalJSON(data []byte) error { return configjson.Unmarshal(data, c) }

// Validate reports every field that is out of range, joined.
func (c Config) Validate() error {
	var errs []error
	if c.Lanes < 0 || c.Lanes > 1024 {
		errs = append(errs, fmt.Errorf("consumer: Lanes is %d, want 0 to 1024", c.Lanes))
	}
	if c.Attempts < 0 {
		errs = append(errs, fmt.Errorf("consumer: Attempts is %d, want 0 (no end) or more", c.Attempts))
	}
	if c.Wait < 0 {
		errs = append(errs, fmt.Errorf("consumer: Wait is %v, want 0 or more", c.Wait))
	}
	if c.MaxWait < 0 {
		errs = append(errs, fmt.Errorf("consumer: MaxWait is %v, want 0 or more", c.MaxWait))
	}
	return errors.Join(errs...)
}

// WithDefaults returns c with each zero field replaced by its default.
func (c Config) WithDefaults() Config {
	set := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	if c.Lanes == 0 {
		c.Lanes = 1
	}
	set(&c.Wait, 100*time.Millisecond)
	set(&c.MaxWait, 10*time.Second)
	set(&c.Timeout, 30*time.Second)
	set(&c.Grace, 10*time.Second)
	c.MaxWait = max(c.MaxWait, c.Wait)
	return c
}

// Verdict is what became of a message.
type Verdict int

const (
	Left     Verdict = iota // not handled when Run was told to end: the broker shall deliver it again
	Done                    // handled, or stored among the dead: acknowledge it
	Rejected                // given up, and nowhere to put it
)

func (v Verdict) String() string {
	switch v {
	case Done:
		return "done"
	case Rejected:
		return "rejected"
	default:
		return "left"
	}
}

// Package kafkapub publishes the messages of an outbox to Kafka through franz-go, and consumes them with offsets committed after the
// effect.
//
// # What it needs from the broker and the client
//
// Kafka 0.11 or anything that speaks its protocol, with idempotent writes allowed. Topics exist, or the client allows their creation; topics with
// cleanup policy "compact" want messages with keys. The client is the caller's and is not closed: a plain kgo.NewClient, without a
// transactional id, that no other code produces through. These of its options matter:
//
//	kgo.RecordDeliveryTimeout   set it, to a minute or so: the default keeps records of a dead broker for ever
//	kgo.ProducerBatchMaxBytes   at most the topics' max.message.bytes; Check compares them
//	kgo.RecordPartitioner       the default, or another that puts a key always into one partition
//	kgo.DisableIdempotentWrite  not to be set; with it, runs of a key are not pipelined and every failure is an unknown outcome
//
// # Order
//
// The idempotent producer numbers the records of a partition, and the broker takes none out of turn: when a record fails, everything
// behind it in its partition fails too. So a whole run of one key travels in one pipeline, and KeepsKeyOrder is true. What fails before a number is
// given (too large, buffers full) is found here first, and holds back the rest of its key's run.
//
// # Outcomes
//
//	acknowledged by all in-sync replicas     success
//	larger than batch or topic allow         outbox.ErrTooLarge: not written
//	refused by the broker (INVALID_RECORD …) *kerr.Error, counts as an attempt: not written
//	no such topic, not authorised, no leader outbox.ErrUnavailable: not written
//	timed out before it could be sent        kgo.ErrRecordTimeout, outbox.ErrUnavailable: not written
//	behind a failed message of its key       ErrBehind, outbox.ErrUnavailable: not sent
//	still in the client when ctx ends        outbox.ErrUnknownOutcome
//
// A record is never cancelled: cancelling can report a failure for a record that the broker has (franz-go issue 1217). One that is still in the
// client when its Publish gives up stays there, and publishing the same message again waits for that one record.
//
// Kafka has no deduplication by message id across producers. A relay that dies between a broker's acknowledgement and its own record of
// it leaves a duplicate, for the consumer's inbox to recognise by the header message-id.
package kafkapub

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/cloudevents"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Config says how messages become records. The zero value works.
type Config struct {
	// Topics are those that the service publishes to. [Publisher.Check] asks the brokers for each. Default: none are checked.
	Topics []string `json:"topics,omitempty"`

	// Topic maps a message to its Kafka topic. Default: the message's topic as it is.
	Topic func(*outbox.Message) string `json:"-"`

	// Events writes messages as CloudEvents. Default: the message's id and content type in the headers message-id and content-type.
	Events *cloudevents.Codec `json:"-"`
}

// Validate reports every fault of the configuration, joined.
func (c Config) Validate() error {
	var errs []error
	for i, topic := range c.Topics {
		if topic == "" {
			errs = append(errs, fmt.Errorf("kafkapub: Topics[%d] is empty", i))
		}
	}
	return errors.Join(errs...)
}

// Publisher is an [outbox.Publisher], an [outbox.KeyOrderer] and an [outbox.Checker]. It is safe for concurrent use. It holds
// nothing that needs closing.
type Publisher struct {
	client  *kgo.Client
	config  Config
	ordered bool // the client writes idempotently
	limits  *limits

	mu      sync.Mutex
	pending map[string]*attempt // records in the client by message id; guarded by mu
}

var (
	_ outbox.Publisher  = (*Publisher)(nil)
	_ outbox.KeyOrderer = (*Publisher)(nil)
	_ outbox.Checker    = (*Publisher)(nil)
)

// attempt is one record between Produce and its promise.
type attempt struct {
	done chan struct{}
	err  error // written before done is closed
}

// New returns a publisher that produces through client. It does no I/O. It panics with [Config.Validate]'s error, and when client is nil.
// At most one Config may be given.
func New(client *kgo.Client, config ...Config) *Publisher {
	var c Config
	if len(config) > 0 {
		c = config[0]
	}
	if len(config) > 1 {
		panic(errors.New("kafkapub: more than one Config"))
	}
	if err := c.Validate(); err != nil {
		panic(err)
	}
	if client == nil {
		panic(errors.New("kafkapub: the client is nil"))
	}
	disabled, _ := client.OptValue(kgo.DisableIdempotentWrite).(bool)
	cancels, _ := client.OptValue(kgo.AllowIdempotentProduceCancellation).(bool)
	return &Publisher{
		client:  client,
		config:  c,
		ordered: !disabled && !cancels,
		limits:  limitsOf(client),
		pending: make(map[string]*attempt),
	}
}

// KeepsKeyOrder implements [outbox.KeyOrderer]: true unless the client gave up idempotent writes.
func (p *Publisher) KeepsKeyOrder() bool { return p.ordered }

// Publish implements [outbox.Publisher].
func (p *Publisher) Publish(ctx context.Context, batch []*outbox.Message, result []error) {
	attempts := p.produceAll(batch, result)
	suspects := false
	for i, a := range attempts {
		if a == nil {
			continue
		}
		result[i] = p.wait(ctx, a)
		suspects = suspects || refused(result[i])
	}
	if suspects {
		p.isolate(ctx, batch, result)
	}
}

// produceAll hands the batch to the client. Where it returns no attempt, the result is written.
func (p *Publisher) produceAll(batch []*outbox.Message, result []error) []*attempt {
	attempts := make([]*attempt, len(batch))
	var held heldKeys
	for i, m := range batch {
		if held.has(m.Key) {
			result[i] = behind
			continue
		}
		a, err := p.produce(m)
		if err != nil {
			result[i] = err
			held.add(m.Key)
			continue
		}
		attempts[i] = a
	}
	return attempts
}

// produce hands one message to the client, unless it is there already.
func (p *Publisher) produce(m *outbox.Message) (*attempt, error) {
	record, err := p.encode(m)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	if a := p.pending[m.ID]; a != nil {
		p.mu.Unlock()
		return a, nil
	}
	if len(p.pending) >= p.limits.records {
		p.mu.Unlock()
		return nil, outbox.Unavailable(ErrBuffered)
	}
	a := &attempt{done: make(chan struct{})}
	p.pending[m.ID] = a
	p.mu.Unlock()

	id := m.ID
	// Not with the caller's context: see the package's comment.
	p.client.TryProduce(context.Background(), record, func(_ *kgo.Record, err error) {
		p.mu.Lock()
		delete(p.pending, id)
		p.mu.Unlock()
		a.err = p.judge(err)
		close(a.done)
	})
	return a, nil
}

func (p *Publisher) wait(ctx context.Context, a *attempt) error {
	select {
	case <-a.done:
		return a.err
	default:
	}
	select {
	case <-a.done:
		return a.err
	case <-ctx.Done():
		return outbox.UnknownOutcome(fmt.Errorf("kafkapub: no acknowledgement in time: %w", context.Cause(ctx)))
	}
}

// isolate produces what a broker refused once more, one record at a time. A broker refuses a whole batch of records for the fault of one, and the client
// then fails the rest of the partition with the same error; only a message that is refused alone is at fault.
func (p *Publisher) isolate(ctx context.Context, batch []*outbox.Message, result []error) {
	var held heldKeys
	for i, m := range batch {
		switch {
		case result[i] == nil:
			continue
		case !refused(result[i]):
			held.add(m.Key)
			continue
		case held.has(m.Key):
			result[i] = behind
			continue
		case ctx.Err() != nil: // it was refused, so it is not written
			result[i] = outbox.Unavailable(result[i])
			held.add(m.Key)
			continue
		}
		a, err := p.produce(m)
		if err == nil {
			err = p.wait(ctx, a)
		}
		if result[i] = p.blame(ctx, m, err); err != nil {
			held.add(m.Key)
		}
	}
}

// heldKeys are the keys whose later messages must wait. Messages without a key hold back nobody.
type heldKeys map[string]bool

func (h heldKeys) has(key string) bool { return h[key] }

func (h *heldKeys) add(key string) {
	if key == "" {
		return
	}
	if *h == nil {
		*h = make(heldKeys)
	}
	(*h)[key] = true
}

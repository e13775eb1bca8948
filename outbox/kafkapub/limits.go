package kafkapub

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/backstay-go/backstay/outbox"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// limits are the sizes at which a record would fail alone, without holding back its successors.
type limits struct {
	records int                // in the client at once, from this publisher
	batch   func(string) int32 // bytes of a batch, by topic
	buffer  int64              // bytes in the client; 0: no limit

	mu     sync.Mutex
	topics map[string]int // max.message.bytes, as far as known; guarded by mu
}

func limitsOf(client *kgo.Client) *limits {
	l := &limits{records: 5000, topics: make(map[string]int)}
	// Half of the client's own limit: it counts records until their promises have run.
	if n, ok := client.OptValue(kgo.MaxBufferedRecords).(int64); ok && n > 1 {
		l.records = int(n / 2)
	}
	if n, ok := client.OptValue(kgo.MaxBufferedBytes).(int64); ok {
		l.buffer = n
	}
	if f, ok := client.OptValue(kgo.ProducerBatchMaxBytesFn).(func(string) int32); ok {
		l.batch = f
	}
	return l
}

// allowed is the largest record of a topic that can be written.
func (l *limits) allowed(topic string) int {
	n := 1_000_012 // the client's default
	if l.batch != nil {
		n = int(l.batch(topic))
	}
	if l.buffer > 0 {
		n = min(n, int(l.buffer))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if t, ok := l.topics[topic]; ok {
		n = min(n, t)
	}
	return n
}

func (l *limits) learn(topic string, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.topics[topic] = n
}

// weight is at least what the record takes in a batch of its own: 61 bytes of batch header, and varints at their longest.
func weight(r *kgo.Record) int {
	n := 61 + 40 + len(r.Key) + len(r.Value)
	for _, h := range r.Headers {
		n += 10 + len(h.Key) + len(h.Value)
	}
	return n
}

// blame judges a message that was produced alone. The batch it was in may still have held messages of a concurrent Publish, so
// that "too large" is believed only of a message that is.
func (p *Publisher) blame(ctx context.Context, m *outbox.Message, err error) error {
	if !errors.Is(err, kerr.MessageTooLarge) || !refused(err) {
		return err
	}
	record, encodeErr := p.encode(m)
	if encodeErr != nil {
		return encodeErr
	}
	configs, describeErr := p.describe(ctx, record.Topic)
	if describeErr != nil {
		return err
	}
	limit, ok := configs.maxBytes()
	if !ok {
		return err
	}
	p.limits.learn(record.Topic, limit)
	if weight(record) > limit {
		return outbox.TooLarge(err)
	}
	return outbox.Unavailable(err)
}

type topicConfigs map[string]string

func (c topicConfigs) maxBytes() (int, bool) {
	n, err := strconv.Atoi(c["max.message.bytes"])
	return n, err == nil && n > 0
}

func (p *Publisher) describe(ctx context.Context, topic string) (topicConfigs, error) {
	req := kmsg.NewPtrDescribeConfigsRequest()
	resource := kmsg.NewDescribeConfigsRequestResource()
	resource.ResourceType = kmsg.ConfigResourceTypeTopic
	resource.ResourceName = topic
	resource.ConfigNames = []string{"max.message.bytes", "cleanup.policy", "min.insync.replicas"}
	req.Resources = append(req.Resources, resource)
	resp, err := req.RequestWith(ctx, p.client)
	if err != nil {
		return nil, err
	}
	configs := topicConfigs{}
	for _, r := range resp.Resources {
		if err := kerr.ErrorForCode(r.ErrorCode); err != nil {
			return nil, err
		}
		for _, c := range r.Configs {
			if c.Value != nil {
				configs[c.Name] = *c.Value
			}
		}
	}
	return configs, nil
}

// Check implements [outbox.Checker]. It reports, joined: a transactional client; for each of [Config].Topics, a topic that does not
// exist and a batch limit of the client above the topic's, as [ErrTopic]. A cluster that does not answer, and a client that would keep
// records for ever, are marked [outbox.ErrUnavailable]. Kafka has no window of duplicates, so horizon is not looked at.
//
// The error is marked as a whole only when all of its parts are.
func (p *Publisher) Check(ctx context.Context, _ time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, checkWait)
	defer cancel()
	var faults, warnings []error
	if set, _ := p.client.OptValues(kgo.TransactionalID)[1].(bool); set {
		faults = append(faults, errors.New("kafkapub: the client is transactional"))
	}
	if d, ok := p.client.OptValue(kgo.RecordDeliveryTimeout).(time.Duration); ok && d == 0 {
		warnings = append(warnings, errors.New("kafkapub: the client has no kgo.RecordDeliveryTimeout"))
	}
	for _, topic := range p.config.Topics {
		if p.config.Topic != nil {
			topic = p.config.Topic(&outbox.Message{Topic: topic})
		}
		configs, err := p.describe(ctx, topic)
		var broker *kerr.Error
		switch {
		case errors.As(err, &broker) && !broker.Retriable || errors.Is(err, kerr.UnknownTopicOrPartition):
			faults = append(faults, fmt.Errorf("%w: %q: %w", ErrTopic, topic, err))
		case err != nil:
			warnings = append(warnings, fmt.Errorf("kafkapub: asking for topic %q: %w", topic, err))
		default:
			if limit, ok := configs.maxBytes(); ok {
				if ours := p.limits.allowed(topic); ours > limit {
					faults = append(faults, fmt.Errorf("%w: %q takes batches of %d bytes, the client makes up to %d (kgo.ProducerBatchMaxBytes)", ErrTopic, topic, limit, ours))
				}
				p.limits.learn(topic, limit)
			}
		}
	}
	if faults == nil {
		return outbox.Unavailable(errors.Join(warnings...))
	}
	return errors.Join(append(faults, warnings...)...)
}

const checkWait = 10 * time.Second

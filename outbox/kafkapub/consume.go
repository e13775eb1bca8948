package kafkapub

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/consumer"
	"github.com/twmb/franz-go/pkg/kgo"
)

// ErrRejected ends [Consume] when a message was given up and [consumer.Config].Dead is nil: Kafka has no place for
// rejected messages, and skipping one would lose it. Its offset is not committed.
var ErrRejected = errors.New("kafkapub: a message was given up and has nowhere to go")

// Consume hands the records of the client's group to h, and commits the offset of each after h has returned nil, that is, after its effect
// was committed. Records of a partition are handled one after another; c.Lanes bounds the partitions handled at once. It returns nil
// when ctx is over and the records in hand are settled, otherwise the error that ended it.
//
// The client needs kgo.ConsumerGroup, kgo.ConsumeTopics, kgo.DisableAutoCommit and kgo.BlockRebalanceOnPoll. A message that keeps failing
// is tried in place for a third of the rebalance timeout (60 s by default); then the rest of its partition is given back and fetched again, so that the
// group can rebalance. A record that cannot be decoded is treated as one whose handler gave up at once.
func Consume(ctx context.Context, client *kgo.Client, c consumer.Config, h consumer.Handler) error {
	if err := c.Validate(); err != nil {
		return err
	}
	auto, _ := client.OptValue(kgo.DisableAutoCommit).(bool)
	block, _ := client.OptValue(kgo.BlockRebalanceOnPoll).(bool)
	if !auto || !block {
		return errors.New("kafkapub: the client wants kgo.DisableAutoCommit and kgo.BlockRebalanceOnPoll")
	}
	round := 20 * time.Second
	if d, ok := client.OptValue(kgo.RebalanceTimeout).(time.Duration); ok {
		round = d / 3
	}
	g := &group{client: client, config: c.WithDefaults(), handler: h, round: round}
	for ctx.Err() == nil {
		if err := g.poll(ctx); err != nil {
			if ctx.Err() != nil && !errors.Is(err, ErrRejected) {
				return nil
			}
			return err
		}
	}
	return nil
}

type group struct {
	client  *kgo.Client
	config  consumer.Config
	handler consumer.Handler
	round   time.Duration
}

const pollRecords = 500

// poll fetches once, handles what came and commits it, before it lets the group rebalance.
func (g *group) poll(ctx context.Context) error {
	fetches := g.client.PollRecords(ctx, pollRecords)
	defer g.client.AllowRebalance()
	if fetches.IsClientClosed() {
		return kgo.ErrClientClosed
	}
	round, cancel := context.WithTimeout(ctx, g.round)
	defer cancel()

	var (
		wg      sync.WaitGroup
		mu      sync.Mutex
		done    []*kgo.Record                            // the last handled record of each partition
		rewind  = map[string]map[int32]kgo.EpochOffset{} // the first that was not
		trouble error
		slots   = make(chan struct{}, g.config.Lanes)
	)
	fetches.EachPartition(func(part kgo.FetchTopicPartition) {
		records := part.Records
		if len(records) == 0 {
			return // a partition's error is retried by the client
		}
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			n, err := g.handle(round, records)
			mu.Lock()
			defer mu.Unlock()
			if n > 0 {
				done = append(done, records[n-1])
			}
			if n < len(records) {
				if rewind[part.Topic] == nil {
					rewind[part.Topic] = map[int32]kgo.EpochOffset{}
				}
				rewind[part.Topic][part.Partition] = kgo.EpochOffset{Epoch: records[n].LeaderEpoch, Offset: records[n].Offset}
			}
			trouble = errors.Join(trouble, err)
		})
	})
	wg.Wait()
	if len(rewind) > 0 {
		g.client.SetOffsets(rewind)
	}
	return errors.Join(trouble, g.commit(ctx, done))
}

// handle returns how many records of a partition were settled, from the first.
func (g *group) handle(ctx context.Context, records []*kgo.Record) (int, error) {
	for i, r := range records {
		if ctx.Err() != nil {
			return i, nil
		}
		m, err := Decode(r)
		var verdict consumer.Verdict
		if err != nil {
			broken := &outbox.Message{ID: place(r), Topic: r.Topic, Key: string(r.Key), Payload: r.Value, Created: r.Timestamp}
			verdict = g.config.GiveUp(ctx, broken, err)
		} else {
			verdict = consumer.Handle(ctx, g.config, g.handler, m)
		}
		switch verdict {
		case consumer.Left:
			return i, nil
		case consumer.Rejected:
			return i, fmt.Errorf("%w: %s", ErrRejected, place(r))
		}
	}
	return len(records), nil
}

// commit outlives ctx: what was handled shall not be handled again only because the process ends.
func (g *group) commit(ctx context.Context, done []*kgo.Record) error {
	if len(done) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), commitWait)
	defer cancel()
	err := g.client.CommitRecords(ctx, done...)
	if err != nil && ctx.Err() == nil {
		// The group has moved on, or the coordinator has; the records come again and the inbox knows them.
		return nil
	}
	return err
}

const commitWait = 10 * time.Second

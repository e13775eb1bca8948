// Package redispub publishes the messages of an outbox to Redis Streams.
//
// # What it needs from the broker
//
// Redis 5 or later, or what speaks its protocol: one node, sentinels or a cluster. Streams are made at the first message, unless
// Config.Existing. A batch is one pipeline of XADD. An entry has the fields id, key, content-type and payload, and "h:" before the name of
// each header; [Decode] reads them back.
//
// Redis confirms a write when its memory holds it. A crash loses what the append-only file has not synced (a second's worth by default), and a
// failover loses what the replica had not received: delivery is at least once to the primary as it was then, and no more. Config.Replicas makes a
// message count as published only when as many replicas have acknowledged it (WAIT), which narrows the gap and does not close it.
//
// # Duplicates
//
// From Redis 8.6 on XADD recognises a repetition by (producer, id) if Config.Producer is set, so that a message published twice is stored
// once. A stream remembers 100 ids of a producer for 100 seconds unless told otherwise, far too little for a relay:
//
//	XCFGSET orders IDMP-DURATION 3600 IDMP-MAXSIZE 10000
//
// Before 8.6 a repetition is a second entry, for the consumer's inbox to recognise by the field id.
//
// # Outcomes
//
//	id of an entry                           success
//	Config.Existing and no such stream       ErrNoStream, outbox.ErrUnavailable: not stored
//	OOM, READONLY, LOADING, WRONGTYPE, …     outbox.ErrUnavailable: not stored
//	another error of the server              counts as an attempt: not stored
//	no connection                            outbox.ErrUnavailable: not sent
//	connection lost, deadline passed         outbox.ErrUnknownOutcome
//	too few replicas                         ErrReplicas, outbox.ErrUnknownOutcome: the primary has it
package redispub

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/backstay-go/backstay/outbox"
	"github.com/redis/go-redis/v9"
)

// Config says how messages become entries of streams. The zero value works.
type Config struct {
	// Stream maps a message to the key of its stream. Default: the topic.
	Stream func(*outbox.Message) string `json:"-"`

	// MaxLen trims streams to about that many entries (MAXLEN ~). Default 0: never. Trimmed entries are gone, read or not.
	MaxLen int64 `json:"maxLen,omitempty"`

	// Existing refuses to make a stream that does not exist (NOMKSTREAM, Redis 6.2).
	Existing bool `json:"existing,omitempty"`

	// Producer turns on deduplication by the server (IDMP, Redis 8.6). All relays of an outbox must give the same name. Default: off.
	Producer string `json:"producer,omitempty"`

	// Replicas is how many replicas must acknowledge a batch. Default 0. Not possible with a cluster, whose pipelines go
	// to several nodes.
	Replicas int `json:"replicas,omitempty"`

	// ReplicaWait is how long to wait for them. Default 1 s.
	ReplicaWait time.Duration `json:"replicaWait,omitempty"`

	// MaxMessage is the largest payload, in bytes. Default 512 MiB, the server's proto-max-bulk-len.
	MaxMessage int `json:"maxMessage,omitempty"`

	// Wait bounds one batch, apart from the context's deadline. Default 5 s.
	Wait time.Duration `json:"wait,omitempty"`

	// Streams are those that [Publisher.Check] looks at. Default: none.
	Streams []string `json:"streams,omitempty"`
}

// Validate reports every fault of the configuration, joined.
func (c Config) Validate() error {
	var errs []error
	nonNegative := func(name string, n int64) {
		if n < 0 {
			errs = append(errs, fmt.Errorf("redispub: %s is %d, want 0 or more", name, n))
		}
	}
	nonNegative("MaxLen", c.MaxLen)
	nonNegative("Replicas", int64(c.Replicas))
	nonNegative("ReplicaWait", int64(c.ReplicaWait))
	nonNegative("MaxMessage", int64(c.MaxMessage))
	nonNegative("Wait", int64(c.Wait))
	if c.Wait > 0 && c.Replicas > 0 && c.withDefaults().ReplicaWait >= c.Wait {
		errs = append(errs, fmt.Errorf("redispub: ReplicaWait %v is not below Wait %v", c.withDefaults().ReplicaWait, c.Wait))
	}
	return errors.Join(errs...)
}

func (c Config) withDefaults() Config {
	if c.ReplicaWait == 0 {
		c.ReplicaWait = time.Second
	}
	if c.MaxMessage == 0 {
		c.MaxMessage = 512 << 20
	}
	if c.Wait == 0 {
		c.Wait = 5 * time.Second
	}
	return c
}

// Publisher is an [outbox.Publisher] and an [outbox.Checker]. It is safe for concurrent use. It must be closed.
type Publisher struct {
	client redis.UniversalClient
	config Config
}

var (
	_ outbox.Publisher = (*Publisher)(nil)
	_ outbox.Checker   = (*Publisher)(nil)
)

// New returns a publisher with a client of its own, made from a copy of options. Two of them are overruled: MaxRetries is off, because the client
// would send a whole pipeline again that may have been carried out, and ContextTimeoutEnabled is on, because the client would otherwise not
// look at deadlines. (A cluster client still repeats a pipeline after a lost connection, MaxRedirects times.)
//
// New does no I/O. It panics with [Config.Validate]'s error, and when options is nil.
// At most one Config may be given.
func New(options *redis.UniversalOptions, config ...Config) *Publisher {
	var c Config
	if len(config) > 0 {
		c = config[0]
	}
	if len(config) > 1 {
		panic(errors.New("redispub: more than one Config"))
	}
	if err := c.Validate(); err != nil {
		panic(err)
	}
	if options == nil {
		panic(errors.New("redispub: the options are nil"))
	}
	own := *options
	own.MaxRetries = -1
	own.ContextTimeoutEnabled = true
	client := redis.NewUniversalClient(&own)
	if _, cluster := client.(*redis.ClusterClient); cluster && c.Replicas > 0 {
		_ = client.Close()
		panic(errors.New("redispub: Replicas is set, and the client is one of a cluster"))
	}
	return &Publisher{client: client, config: c.withDefaults()}
}

// Publish implements [outbox.Publisher].
func (p *Publisher) Publish(ctx context.Context, batch []*outbox.Message, result []error) {
	ctx, cancel := context.WithTimeout(ctx, p.config.Wait)
	defer cancel()
	pipe := p.client.Pipeline()
	added := make([]*redis.StringCmd, len(batch))
	for i, m := range batch {
		args, err := p.encode(m)
		if err != nil {
			result[i] = err
			continue
		}
		added[i] = pipe.XAdd(ctx, args)
	}
	if pipe.Len() == 0 {
		return
	}
	var replicas *redis.Cmd
	if p.config.Replicas > 0 {
		// On the same connection, behind the writes that it waits for.
		replicas = pipe.Do(ctx, "WAIT", p.config.Replicas, p.config.ReplicaWait.Milliseconds())
	}
	_, _ = pipe.Exec(ctx) // each command has its own error
	tooFew := p.replicated(replicas)
	for i, cmd := range added {
		if cmd == nil {
			continue
		}
		if result[i] = judge(cmd.Err()); result[i] == nil {
			result[i] = tooFew
		}
	}
}

func (p *Publisher) replicated(wait *redis.Cmd) error {
	if wait == nil {
		return nil
	}
	n, err := wait.Int()
	if err != nil {
		return outbox.UnknownOutcome(errors.Join(ErrReplicas, err))
	}
	if n < p.config.Replicas {
		return outbox.UnknownOutcome(fmt.Errorf("%w: %d of %d", ErrReplicas, n, p.config.Replicas))
	}
	return nil
}

// Close closes the publisher's client. Later calls of Publish fail.
func (p *Publisher) Close() error {
	if err := p.client.Close(); !errors.Is(err, redis.ErrClosed) {
		return err
	}
	return nil
}

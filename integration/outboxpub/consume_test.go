package outboxpub_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/amqppub"
	"github.com/backstay-go/backstay/outbox/consumer"
	"github.com/backstay-go/backstay/outbox/kafkapub"
	"github.com/backstay-go/backstay/outbox/natspub"
	"github.com/backstay-go/backstay/outbox/outboxtest"
	"github.com/nats-io/nats.go/jetstream"
	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

// source is a place with messages, and the consumer helper of its broker.
type source struct {
	topic   string
	publish outbox.Publisher
	consume func(ctx context.Context, c consumer.Config, h consumer.Handler) error
	open    func(tb testing.TB) int // messages not yet acknowledged
	proxy   []*proxy                // nil where the connection cannot be cut
	rejects bool                    // a rejected message leaves the queue
	loose   bool                    // messages delivered again may come out of turn
}

// ledger is what the handlers committed.
type ledger struct {
	mu   sync.Mutex
	rows []*outbox.Message
}

func (l *ledger) commit(m *outbox.Message) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rows = append(l.rows, m.Clone())
}

func (l *ledger) all() []*outbox.Message {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]*outbox.Message(nil), l.rows...)
}

func (s source) fill(t *testing.T, n int) (batch []*outbox.Message, ids []string) {
	t.Helper()
	for i := range n {
		m := newMessage(s.topic, fmt.Sprint("key", i%3), fmt.Sprint(i))
		m.Headers = map[string]string{"seq": fmt.Sprint(i + 1)}
		publishAll(t, s.publish, []*outbox.Message{m})
		batch, ids = append(batch, m), append(ids, m.ID)
	}
	return batch, ids
}

// run consumes in the background until stop, which returns what Consume returned.
func (s source) run(t *testing.T, c consumer.Config, h consumer.Handler) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.consume(ctx, c, h) }()
	stop = sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	t.Cleanup(func() { _ = stop() })
	return stop
}

func (l *ledger) check(t *testing.T, ids []string, loose bool) {
	t.Helper()
	eventually(t, 30*time.Second, func() error { return outboxtest.CheckComplete(l.all(), ids...) })
	if loose {
		return
	}
	rows := l.all()
	for _, m := range rows {
		if _, err := fmt.Sscan(m.Headers["seq"], &m.Seq); err != nil {
			t.Errorf("message %q: no header seq: %v", m.ID, err)
		}
	}
	outboxtest.Deliveries(t, rows, ids...)
}

func (s source) empty(t *testing.T) {
	t.Helper()
	eventually(t, time.Minute, func() error {
		if n := s.open(t); n != 0 {
			return fmt.Errorf("%d messages are not acknowledged, want 0", n)
		}
		return nil
	})
}

// testSource runs the cases that every broker's consumer must pass.
func testSource(t *testing.T, open func(t *testing.T) source) {
	t.Run("AfterCommit", func(t *testing.T) {
		s := open(t)
		_, ids := s.fill(t, 3)
		var l ledger
		inside, commit := make(chan struct{}, 10), make(chan struct{})
		s.run(t, consumer.Config{}, func(_ context.Context, m *outbox.Message) error {
			inside <- struct{}{}
			<-commit
			l.commit(m)
			return nil
		})
		<-inside
		// Polled, since a broker may count a message neither as waiting nor as handed out while it hands it out. One that was acknowledged stays lost.
		eventually(t, 5*time.Second, func() error {
			if n := s.open(t); n != 3 {
				return fmt.Errorf("before the commit: got %d messages not acknowledged, want 3", n)
			}
			return nil
		})
		close(commit)
		l.check(t, ids, false)
		s.empty(t)
	})
	t.Run("FailuresKeepOrder", func(t *testing.T) {
		s := open(t)
		_, ids := s.fill(t, 12)
		var l ledger
		var mu sync.Mutex
		tries := make(map[string]int)
		s.run(t, consumer.Config{Lanes: 4, Wait: time.Millisecond}, func(_ context.Context, m *outbox.Message) error {
			mu.Lock()
			defer mu.Unlock()
			if tries[m.ID]++; tries[m.ID] < 3 {
				return errors.New("not yet")
			}
			l.commit(m)
			return nil
		})
		l.check(t, ids, false)
		s.empty(t)
	})
	t.Run("Stopped", func(t *testing.T) {
		s := open(t)
		_, ids := s.fill(t, 12)
		var l ledger
		began := make(chan struct{})
		var once sync.Once
		stop := s.run(t, consumer.Config{}, func(_ context.Context, m *outbox.Message) error {
			l.commit(m)
			if len(l.all()) == 4 {
				once.Do(func() { close(began) })
			}
			return nil
		})
		<-began
		if err := stop(); err != nil {
			t.Errorf("Consume: got %v, want nil", err)
		}
		s.run(t, consumer.Config{}, func(_ context.Context, m *outbox.Message) error {
			l.commit(m)
			return nil
		})
		l.check(t, ids, s.loose)
		s.empty(t)
	})
	t.Run("CutOff", func(t *testing.T) {
		s := open(t)
		if s.proxy == nil {
			t.Skip("the connection cannot be cut")
		}
		_, ids := s.fill(t, 9)
		var l ledger
		inside, commit := make(chan struct{}, 100), make(chan struct{})
		s.run(t, consumer.Config{}, func(_ context.Context, m *outbox.Message) error {
			inside <- struct{}{}
			<-commit
			l.commit(m)
			return nil
		})
		<-inside
		for _, p := range s.proxy {
			p.Cut(t)
		}
		close(commit) // its acknowledgement is lost
		for _, p := range s.proxy {
			p.Mend(t)
		}
		l.check(t, ids, s.loose)
		s.empty(t)
	})
	t.Run("GivenUp", func(t *testing.T) {
		s := open(t)
		batch, ids := s.fill(t, 4)
		var l, dead ledger
		s.run(t, consumer.Config{Attempts: 2, Wait: time.Millisecond, Dead: func(_ context.Context, m *outbox.Message, _ error) error {
			dead.commit(m)
			return nil
		}}, func(_ context.Context, m *outbox.Message) error {
			if m.ID == batch[1].ID {
				return errors.New("poison")
			}
			l.commit(m)
			return nil
		})
		l.check(t, []string{ids[0], ids[2], ids[3]}, false)
		dead.check(t, []string{ids[1]}, false)
		s.empty(t)
	})
	t.Run("Rejected", func(t *testing.T) {
		s := open(t)
		batch, ids := s.fill(t, 3)
		var l ledger
		stop := s.run(t, consumer.Config{}, func(_ context.Context, m *outbox.Message) error {
			if m.ID == batch[1].ID {
				return outbox.Permanent(errors.New("poison"))
			}
			l.commit(m)
			return nil
		})
		if s.rejects {
			l.check(t, []string{ids[0], ids[2]}, false)
			s.empty(t)
			return
		}
		// What stands behind it in its partition stays; another partition's may have been handled.
		eventually(t, 20*time.Second, func() error {
			if n := s.open(t); n == 3 {
				return errors.New("nothing was committed")
			}
			return nil
		})
		if err := stop(); !errors.Is(err, kafkapub.ErrRejected) {
			t.Errorf("Consume: got %v, want ErrRejected", err)
		}
		if n := s.open(t); n == 0 {
			t.Error("got every message acknowledged, want the rejected one left")
		}
	})
}

func TestNATSConsume(t *testing.T) {
	t.Run("Window", func(t *testing.T) { testNATSConsume(t, 0) })
	t.Run("OneAtATime", func(t *testing.T) { testNATSConsume(t, 1) })
}

func testNATSConsume(t *testing.T, maxAckPending int) {
	server := embeddedNATS(t)
	testSource(t, func(t *testing.T) source {
		direct := connectNATS(t, server.Addr().String())
		through := newProxy(t, server.Addr().String())
		subject, s := newStream(t, direct, nil)
		if _, err := s.CreateConsumer(t.Context(), jetstream.ConsumerConfig{Durable: "c", AckPolicy: jetstream.AckExplicitPolicy, AckWait: 5 * time.Second, MaxAckPending: maxAckPending}); err != nil {
			t.Fatal(err)
		}
		p := natspub.New(direct, natspub.Config{})
		t.Cleanup(func() { _ = p.Close() })
		return source{
			topic: subject, publish: p, rejects: true, loose: maxAckPending != 1,
			consume: func(ctx context.Context, c consumer.Config, h consumer.Handler) error {
				js := connectNATS(t, through.Addr())
				from, err := js.Consumer(ctx, subject, "c")
				if err != nil {
					return err
				}
				return natspub.Consume(ctx, from, c, h)
			},
			open: func(tb testing.TB) int {
				from, err := direct.Consumer(context.Background(), subject, "c")
				if err != nil {
					tb.Fatal(err)
				}
				info := from.CachedInfo()
				return int(info.NumPending) + info.NumAckPending
			},
			proxy: []*proxy{through},
		}
	})
}

func TestNATSConsumeWantsExplicitAcks(t *testing.T) {
	js := connectNATS(t, embeddedNATS(t).Addr().String())
	_, s := newStream(t, js, nil)
	c, err := s.CreateConsumer(t.Context(), jetstream.ConsumerConfig{Durable: "c", AckPolicy: jetstream.AckNonePolicy})
	if err != nil {
		t.Fatal(err)
	}
	if err := natspub.Consume(t.Context(), c, consumer.Config{}, func(context.Context, *outbox.Message) error { return nil }); err == nil {
		t.Error("got nil for a consumer without acks, want an error")
	}
}

func TestAMQPConsume(t *testing.T) {
	testSource(t, func(t *testing.T) source {
		ch := rabbit(t)
		queue := newQueue(t, ch, nil)
		through := newProxy(t, rabbitAddr)
		p := amqppub.New(amqppub.Config{URL: rabbitURL(rabbitAddr)})
		t.Cleanup(func() { _ = p.Close() })
		return source{
			topic: queue, publish: p, rejects: true,
			consume: func(ctx context.Context, c consumer.Config, h consumer.Handler) error {
				return amqppub.Consume(ctx, amqppub.Config{URL: rabbitURL(through.Addr())}, queue, c, h)
			},
			open:  func(tb testing.TB) int { return unacked(tb, ch, queue, through) },
			proxy: []*proxy{through},
		}
	})
}

// unacked counts the messages of a queue, those in a consumer's hands included. RabbitMQ tells only the ready ones, so the consumer is cut off,
// which makes its messages ready again, and let back. It comes back after a pause that doubles to 5 s where connections do not last, so it is waited for, and until it has
// been handed what is ready: cut off again before that, it would never get anywhere.
func unacked(tb testing.TB, ch *amqp.Channel, queue string, through *proxy) int {
	tb.Helper()
	until := func(most time.Duration, enough func(amqp.Queue) bool) amqp.Queue {
		for end := time.Now().Add(most); ; {
			q, err := ch.QueueDeclarePassive(queue, true, false, false, false, nil)
			if err != nil {
				tb.Fatal(err)
			}
			if enough(q) || time.Now().After(end) {
				return q
			}
		}
	}
	through.Cut(tb)
	ready := until(3*time.Second, func(q amqp.Queue) bool { return q.Consumers == 0 }).Messages
	through.Mend(tb)
	until(10*time.Second, func(q amqp.Queue) bool { return q.Consumers == 1 })
	until(time.Second, func(q amqp.Queue) bool { return q.Messages == 0 })
	return ready
}

func TestAMQPConsumeMissingQueue(t *testing.T) {
	rabbit(t)
	err := amqppub.Consume(t.Context(), amqppub.Config{URL: rabbitURL(rabbitAddr)}, "bs_nowhere", consumer.Config{}, func(context.Context, *outbox.Message) error { return nil })
	var answer *amqp.Error
	if !errors.As(err, &answer) || answer.Code != amqp.NotFound {
		t.Errorf("got %v, want the broker's 404", err)
	}
}

func TestKafkaConsume(t *testing.T) {
	testSource(t, func(t *testing.T) source {
		cluster := fakeKafka(t)
		if err := cluster.CreateTopic("orders", 2, nil); err != nil {
			t.Fatal(err)
		}
		p := kafkapub.New(kafkaClient(t, cluster.ListenAddrs()), kafkapub.Config{})
		v := &viaProxies{tb: t, proxies: make(map[string]*proxy)}
		var proxies []*proxy
		for _, addr := range cluster.ListenAddrs() {
			v.proxies[addr] = newProxy(t, addr)
			proxies = append(proxies, v.proxies[addr])
		}
		return source{
			topic: "orders", publish: p, proxy: proxies,
			consume: func(ctx context.Context, c consumer.Config, h consumer.Handler) error {
				client, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.Dialer(v.dial), kgo.ConsumerGroup("g"), kgo.ConsumeTopics("orders"),
					kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.DisableAutoCommit(), kgo.BlockRebalanceOnPoll(), kgo.FetchMaxWait(100*time.Millisecond),
					kgo.RetryBackoffFn(func(int) time.Duration { return 20 * time.Millisecond }))
				if err != nil {
					return err
				}
				defer client.CloseAllowingRebalance()
				return kafkapub.Consume(ctx, client, c, h)
			},
			open: func(tb testing.TB) int { return uncommitted(cluster) },
		}
	})
}

func uncommitted(cluster *kfake.Cluster) int {
	total := 0
	for _, p := range cluster.PartitionInfos("orders") {
		total += int(p.HighWatermark)
	}
	group := cluster.GroupInfo("g")
	if group == nil {
		return total
	}
	for _, c := range group.Commits["orders"] {
		total -= int(c.Offset)
	}
	return total
}

func TestKafkaConsumeWantsItsOptions(t *testing.T) {
	cluster := fakeKafka(t)
	client := kafkaClient(t, cluster.ListenAddrs(), kgo.ConsumerGroup("g"), kgo.ConsumeTopics("orders"))
	if err := kafkapub.Consume(t.Context(), client, consumer.Config{}, func(context.Context, *outbox.Message) error { return nil }); err == nil {
		t.Error("got nil with auto commit, want an error")
	}
}

// What a round could not handle is fetched again, from the first of it: a record that keeps failing longer than a round holds up its partition and loses nothing.
func TestKafkaNotHandledComesAgain(t *testing.T) {
	cluster := fakeKafka(t)
	if err := cluster.CreateTopic("orders", 1, nil); err != nil {
		t.Fatal(err)
	}
	s := source{topic: "orders", publish: kafkapub.New(kafkaClient(t, cluster.ListenAddrs()))}
	batch, ids := s.fill(t, 5)
	s.consume = func(ctx context.Context, c consumer.Config, h consumer.Handler) error {
		client, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.ConsumerGroup("g"), kgo.ConsumeTopics("orders"),
			kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.DisableAutoCommit(), kgo.BlockRebalanceOnPoll(), kgo.FetchMaxWait(100*time.Millisecond),
			kgo.RebalanceTimeout(1500*time.Millisecond)) // a round of 500 ms
		if err != nil {
			return err
		}
		defer client.CloseAllowingRebalance()
		return kafkapub.Consume(ctx, client, c, h)
	}
	var l ledger
	began := time.Now()
	s.run(t, consumer.Config{Wait: 10 * time.Millisecond, MaxWait: 10 * time.Millisecond}, func(_ context.Context, m *outbox.Message) error {
		if m.ID == batch[2].ID && time.Since(began) < 1200*time.Millisecond {
			return errors.New("not yet")
		}
		l.commit(m)
		return nil
	})
	eventually(t, 10*time.Second, func() error { return outboxtest.CheckComplete(l.all(), ids...) })
	l.check(t, ids, false)
}

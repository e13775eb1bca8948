package outboxpub_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/cloudevents"
	"github.com/backstay-go/backstay/outbox/kafkapub"
	"github.com/backstay-go/backstay/outbox/outboxtest"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func fakeKafka(tb testing.TB, options ...kfake.Opt) *kfake.Cluster {
	tb.Helper()
	c, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1)}, options...)...)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(c.Close)
	return c
}

func kafkaClient(tb testing.TB, seeds []string, options ...kgo.Opt) *kgo.Client {
	tb.Helper()
	client, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(seeds...), kgo.RecordDeliveryTimeout(30 * time.Second), kgo.MetadataMinAge(50 * time.Millisecond),
		kgo.RetryBackoffFn(func(int) time.Duration { return 50 * time.Millisecond }), kgo.DialTimeout(2 * time.Second),
		kgo.ProducerBatchMaxBytes(200_000),
	}, options...)...)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(client.Close)
	return client
}

// readTopic reads a topic from its beginning, as a consumer would that knows nothing of us.
func readTopic(tb testing.TB, seeds []string, topic string, n int) []*outbox.Message {
	tb.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(seeds...), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(100*time.Millisecond))
	if err != nil {
		tb.Fatal(err)
	}
	defer client.Close()
	var got []*outbox.Message
	for {
		wait := 5 * time.Second
		if len(got) >= n {
			wait = 200 * time.Millisecond
		}
		ctx, cancel := context.WithTimeout(context.Background(), wait)
		fetches := client.PollFetches(ctx)
		cancel()
		if fetches.NumRecords() == 0 {
			return got
		}
		fetches.EachRecord(func(r *kgo.Record) {
			m, err := kafkapub.Decode(r)
			if err != nil {
				tb.Fatal(err)
			}
			got = append(got, m)
		})
	}
}

// viaProxies dials each broker through a proxy of its own, since brokers tell clients their addresses.
type viaProxies struct {
	tb      testing.TB
	mu      sync.Mutex
	proxies map[string]*proxy // guarded by mu
}

func (v *viaProxies) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	v.mu.Lock()
	p := v.proxies[addr]
	v.mu.Unlock()
	return (&net.Dialer{}).DialContext(ctx, network, p.Addr())
}

func (v *viaProxies) each(f func(*proxy)) {
	for _, p := range v.proxies {
		f(p)
	}
}

func kafkaBroker(tb testing.TB, c kafkapub.Config) outboxtest.Broker {
	cluster := fakeKafka(tb)
	v := &viaProxies{tb: tb, proxies: make(map[string]*proxy)}
	for _, addr := range cluster.ListenAddrs() {
		v.proxies[addr] = newProxy(tb, addr)
	}
	return outboxtest.Broker{
		New: func(tb testing.TB) outbox.Publisher {
			return kafkapub.New(kafkaClient(tb, cluster.ListenAddrs(), kgo.Dialer(v.dial)), c)
		},
		Topic: func(tb testing.TB) string {
			topic := unique("orders")
			if err := cluster.CreateTopic(topic, 3, nil); err != nil {
				tb.Fatal(err)
			}
			return topic
		},
		Read: func(tb testing.TB, topic string, n int) []*outbox.Message {
			return readTopic(tb, cluster.ListenAddrs(), topic, n)
		},
		Missing:  "nowhere",
		TooLarge: 300_000,
		Cut:      func(tb testing.TB) { v.each(func(p *proxy) { p.Cut(tb) }) },
		Mend:     func(tb testing.TB) { v.each(func(p *proxy) { p.Mend(tb) }) },
		Deafen:   func(tb testing.TB) { v.each(func(p *proxy) { p.Deafen(tb) }) },
		Hear:     func(tb testing.TB) { v.each(func(p *proxy) { p.Hear(tb) }) },
	}
}

func TestKafkaConformance(t *testing.T) {
	t.Run("Plain", func(t *testing.T) { outboxtest.TestPublisher(t, kafkaBroker(t, kafkapub.Config{})) })
	t.Run("Events", func(t *testing.T) {
		outboxtest.TestPublisher(t, kafkaBroker(t, kafkapub.Config{Events: cloudevents.New(cloudevents.Config{Source: "/test"})}))
	})
}

// answerOnce changes what the broker says to one produce request, after it has done what it does.
func produceAnswer(cluster *kfake.Cluster, code int16, skip bool) *atomic.Int32 {
	var times atomic.Int32
	cluster.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
		if !skip {
			return nil, nil, false
		}
		times.Add(1)
		produce := req.(*kmsg.ProduceRequest)
		resp := produce.ResponseKind().(*kmsg.ProduceResponse)
		for _, topic := range produce.Topics {
			rt := kmsg.NewProduceResponseTopic()
			rt.Topic, rt.TopicID = topic.Topic, topic.TopicID
			for _, part := range topic.Partitions {
				rp := kmsg.NewProduceResponseTopicPartition()
				rp.Partition, rp.ErrorCode = part.Partition, code
				rt.Partitions = append(rt.Partitions, rp)
			}
			resp.Topics = append(resp.Topics, rt)
		}
		return resp, nil, true
	})
	return &times
}

// Acceptance case 26 for a publisher of runs: the broker fails a batch of records for a while; nothing of a key overtakes.
func TestKafkaRunAcrossFailure(t *testing.T) {
	for _, code := range []int16{kerr.NotLeaderForPartition.Code, kerr.NotEnoughReplicas.Code, kerr.RequestTimedOut.Code} {
		t.Run(kerr.ErrorForCode(code).Error(), func(t *testing.T) {
			cluster := fakeKafka(t)
			if err := cluster.CreateTopic("orders", 2, nil); err != nil {
				t.Fatal(err)
			}
			p := kafkapub.New(kafkaClient(t, cluster.ListenAddrs(), kgo.ProducerBatchMaxBytes(1000)), kafkapub.Config{})
			times := produceAnswer(cluster, code, true)
			var batch []*outbox.Message
			for i := range 200 {
				m := newMessage("orders", fmt.Sprint(i%3), "0123456789")
				m.Seq = int64(i + 1)
				batch = append(batch, m)
			}
			publishAll(t, p, batch)
			if times.Load() == 0 {
				t.Error("the fault was not injected")
			}
			checkLog(t, cluster, "orders", batch)
		})
	}
}

// publishAll publishes as a relay does: what failed is tried again, with the rest of its key.
func publishAll(t *testing.T, p outbox.Publisher, batch []*outbox.Message) {
	t.Helper()
	until := time.Now().Add(30 * time.Second)
	for len(batch) > 0 && time.Now().Before(until) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		result := results(len(batch))
		p.Publish(ctx, batch, result)
		cancel()
		var again []*outbox.Message
		failed := make(map[string]bool)
		for i, err := range result {
			if err == nil && failed[batch[i].Key] {
				t.Fatalf("message %d of key %q is a success behind a failed one", batch[i].Seq, batch[i].Key)
			}
			if err != nil {
				failed[batch[i].Key] = true
				again = append(again, batch[i])
			}
		}
		batch = again
	}
	if len(batch) > 0 {
		t.Fatalf("%d messages were not published", len(batch))
	}
}

func checkLog(t *testing.T, cluster *kfake.Cluster, topic string, batch []*outbox.Message) {
	t.Helper()
	seqs := make(map[string]int64)
	var want []string
	for _, m := range batch {
		seqs[m.ID] = m.Seq
		want = append(want, m.ID)
	}
	got := readTopic(t, cluster.ListenAddrs(), topic, len(batch))
	for _, m := range got {
		m.Seq = seqs[m.ID]
	}
	outboxtest.Deliveries(t, got, want...)
}

// Acceptance case 32: the broker appends, says REQUEST_TIMED_OUT, and the relay's deadline passes. What is told as delivered is in the
// log, and what is not told is published again without loss.
func TestKafkaTimeoutAfterAppend(t *testing.T) {
	cluster := fakeKafka(t)
	if err := cluster.CreateTopic("orders", 1, nil); err != nil {
		t.Fatal(err)
	}
	client := kafkaClient(t, cluster.ListenAddrs())
	p := kafkapub.New(client, kafkapub.Config{})
	var batch []*outbox.Message
	for i := range 50 {
		m := newMessage("orders", fmt.Sprint(i%5), "0123456789")
		m.Seq = int64(i + 1)
		batch = append(batch, m)
	}
	publishAll(t, p, batch[:5]) // so that the producer has its id

	timeouts := cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.RequestTimedOut, Count: -1}) // appends all the same
	ctx, cancel := context.WithCancel(t.Context())
	result := results(len(batch))
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.Publish(ctx, batch, result)
	}()
	eventually(t, 10*time.Second, func() error {
		if timeouts.Hits() < 2 {
			return errors.New("no produce request was answered with a timeout")
		}
		return nil
	})
	cancel() // the relay is told to end
	<-done
	timeouts.Remove()
	delivered := make(map[string]bool)
	for i, err := range result {
		if err == nil {
			delivered[batch[i].ID] = true
		} else if !errors.Is(err, outbox.ErrUnknownOutcome) && !errors.Is(err, outbox.ErrUnavailable) {
			t.Errorf("result[%d]: got %v, want ErrUnknownOutcome or ErrUnavailable", i, err)
		}
	}
	if err := client.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	in := make(map[string]bool)
	for _, m := range readTopic(t, cluster.ListenAddrs(), "orders", len(batch)) {
		in[m.ID] = true
	}
	for id := range delivered {
		if !in[id] {
			t.Errorf("message %q was told as delivered and is not in the log", id)
		}
	}
	publishAll(t, p, batch)
	checkLog(t, cluster, "orders", batch)
}

// A message that is still in the client is not handed to it a second time.
func TestKafkaPendingIsJoined(t *testing.T) {
	cluster := fakeKafka(t)
	if err := cluster.CreateTopic("orders", 1, nil); err != nil {
		t.Fatal(err)
	}
	client := kafkaClient(t, cluster.ListenAddrs())
	p := kafkapub.New(client, kafkapub.Config{})
	publishAll(t, p, []*outbox.Message{newMessage("orders", "k", "first")})
	release := make(chan struct{})
	cluster.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		cluster.SleepControl(func() { <-release })
		return nil, nil, false
	})
	m := newMessage("orders", "k", "second")
	for range 5 {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		result := results(1)
		p.Publish(ctx, []*outbox.Message{m}, result)
		cancel()
		if !errors.Is(result[0], outbox.ErrUnknownOutcome) {
			t.Errorf("got %v, want ErrUnknownOutcome", result[0])
		}
	}
	close(release)
	if err := client.Flush(t.Context()); err != nil { // what is in the client: one record, if all five were one
		t.Fatal(err)
	}
	publishAll(t, p, []*outbox.Message{newMessage("orders", "k", "third")})
	if got := readTopic(t, cluster.ListenAddrs(), "orders", 3); len(got) != 3 {
		t.Errorf("got %d records, want 3", len(got))
	}
}

// Acceptance case 33: a broker whose limit is below the client's refuses the whole batch of records; only the message at fault is blamed.
func TestKafkaTooLargeForTopic(t *testing.T) {
	cluster := fakeKafka(t)
	limit := "2000"
	if err := cluster.CreateTopic("small", 1, map[string]string{"max.message.bytes": limit}); err != nil {
		t.Fatal(err)
	}
	var refusals atomic.Int32
	// kfake does not look at max.message.bytes: the real brokers' rule.
	cluster.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		produce := req.(*kmsg.ProduceRequest)
		resp := produce.ResponseKind().(*kmsg.ProduceResponse)
		for _, topic := range produce.Topics {
			for _, part := range topic.Partitions {
				if len(part.Records) <= 2000 {
					return nil, nil, false
				}
				rt := kmsg.NewProduceResponseTopic()
				rt.Topic, rt.TopicID = topic.Topic, topic.TopicID
				rp := kmsg.NewProduceResponseTopicPartition()
				rp.Partition, rp.ErrorCode = part.Partition, kerr.MessageTooLarge.Code
				rt.Partitions = append(rt.Partitions, rp)
				resp.Topics = append(resp.Topics, rt)
			}
		}
		refusals.Add(1)
		return resp, nil, true
	})
	p := kafkapub.New(kafkaClient(t, cluster.ListenAddrs(), kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.ProducerLinger(20*time.Millisecond)), kafkapub.Config{})
	var batch []*outbox.Message
	for i := range 9 {
		m := newMessage("small", fmt.Sprint(i%3), "0123456789")
		m.Seq = int64(i + 1)
		batch = append(batch, m)
	}
	batch[4].Payload = make([]byte, 3000) // key 1, whose last is batch[7]
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	result := results(len(batch))
	p.Publish(ctx, batch, result)
	if refusals.Load() == 0 {
		t.Error("the broker refused nothing")
	}
	for i, err := range result {
		switch i {
		case 4:
			if !errors.Is(err, outbox.ErrTooLarge) {
				t.Errorf("result[4]: got %v, want ErrTooLarge", err)
			}
		case 7:
			if !errors.Is(err, kafkapub.ErrBehind) {
				t.Errorf("result[7]: got %v, want ErrBehind", err)
			}
		default:
			if err != nil {
				t.Errorf("result[%d]: got %v, want nil", i, err)
			}
		}
	}
	// The limit is known now: the next one is refused before it is sent.
	before := refusals.Load()
	again := newMessage("small", "x", string(make([]byte, 3000)))
	result = results(1)
	p.Publish(ctx, []*outbox.Message{again}, result)
	if !errors.Is(result[0], outbox.ErrTooLarge) || refusals.Load() != before {
		t.Errorf("got %v and %d refusals more, want ErrTooLarge and none", result[0], refusals.Load()-before)
	}
}

func TestKafkaCheck(t *testing.T) {
	cluster := fakeKafka(t)
	limit := "1000"
	for topic, configs := range map[string]map[string]string{"good": nil, "small": {"max.message.bytes": limit}} {
		if err := cluster.CreateTopic(topic, 1, configs); err != nil {
			t.Fatal(err)
		}
	}
	check := func(topics []string, options ...kgo.Opt) error {
		return kafkapub.New(kafkaClient(t, cluster.ListenAddrs(), options...), kafkapub.Config{Topics: topics}).Check(t.Context(), time.Minute)
	}
	if err := check([]string{"good"}); err != nil {
		t.Errorf("got %v, want nil", err)
	}
	if err := check([]string{"small"}); !errors.Is(err, kafkapub.ErrTopic) || errors.Is(err, outbox.ErrUnavailable) {
		t.Errorf("got %v for a topic with a lower limit than the client's, want ErrTopic", err)
	}
	if err := check([]string{"good", "missing"}); !errors.Is(err, kafkapub.ErrTopic) {
		t.Errorf("got %v for a missing topic, want ErrTopic", err)
	}
	if err := check([]string{"good"}, kgo.RecordDeliveryTimeout(0)); !errors.Is(err, outbox.ErrUnavailable) {
		t.Errorf("got %v without a delivery timeout, want a warning", err)
	}
	if err := check(nil, kgo.TransactionalID("x")); err == nil || errors.Is(err, outbox.ErrUnavailable) {
		t.Errorf("got %v for a transactional client, want an error that is fatal", err)
	}
	unordered := kafkapub.New(kafkaClient(t, cluster.ListenAddrs(), kgo.DisableIdempotentWrite()), kafkapub.Config{})
	if unordered.KeepsKeyOrder() {
		t.Error("KeepsKeyOrder: got true without idempotent writes, want false")
	}
}

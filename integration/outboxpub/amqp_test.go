package outboxpub_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/amqppub"
	"github.com/backstay-go/backstay/outbox/cloudevents"
	"github.com/backstay-go/backstay/outbox/outboxtest"
	amqp "github.com/rabbitmq/amqp091-go"
)

const rabbitAddr = "127.0.0.1:5672"

func rabbitURL(addr string) string { return "amqp://guest:guest@" + addr + "/" }

// rabbit is a plain connection for making and reading queues.
func rabbit(tb testing.TB) *amqp.Channel {
	tb.Helper()
	need(tb, "RabbitMQ", rabbitAddr)
	conn, err := amqp.Dial(rabbitURL(rabbitAddr))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = conn.Close() })
	ch, err := conn.Channel()
	if err != nil {
		tb.Fatal(err)
	}
	return ch
}

func newQueue(tb testing.TB, ch *amqp.Channel, args amqp.Table) string {
	tb.Helper()
	name := unique("bs_outboxpub")
	if _, err := ch.QueueDeclare(name, true, false, false, false, args); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _, _ = ch.QueueDelete(name, false, false, false) })
	return name
}

// readQueue looks at the messages of a queue and puts them back.
func readQueue(tb testing.TB, ch *amqp.Channel, queue string, n int) []*outbox.Message {
	tb.Helper()
	until := time.Now().Add(2 * time.Second)
	for {
		q, err := ch.QueueDeclarePassive(queue, true, false, false, false, nil)
		if err != nil {
			tb.Fatal(err)
		}
		if q.Messages >= n || time.Now().After(until) {
			break
		}
	}
	var got []*outbox.Message
	var last uint64
	for {
		d, ok, err := ch.Get(queue, false)
		if err != nil {
			tb.Fatal(err)
		}
		if !ok {
			break
		}
		last = d.DeliveryTag
		m, err := amqppub.Decode(&d)
		if err != nil {
			tb.Fatal(err)
		}
		got = append(got, m)
	}
	if last > 0 {
		if err := ch.Nack(last, true, true); err != nil {
			tb.Fatal(err)
		}
	}
	return got
}

func amqpBroker(tb testing.TB, c amqppub.Config, args amqp.Table) outboxtest.Broker {
	ch := rabbit(tb)
	proxy := newProxy(tb, rabbitAddr)
	c.URL = rabbitURL(proxy.Addr())
	c.MaxMessage = 1 << 20
	return outboxtest.Broker{
		New:      func(testing.TB) outbox.Publisher { return amqppub.New(c) },
		Topic:    func(tb testing.TB) string { return newQueue(tb, ch, args) },
		Read:     func(tb testing.TB, topic string, n int) []*outbox.Message { return readQueue(tb, ch, topic, n) },
		Missing:  unique("bs_nowhere"),
		TooLarge: 2 << 20,
		Cut:      proxy.Cut, Mend: proxy.Mend, Deafen: proxy.Deafen, Hear: proxy.Hear,
	}
}

func TestAMQPConformance(t *testing.T) {
	t.Run("Classic", func(t *testing.T) { outboxtest.TestPublisher(t, amqpBroker(t, amqppub.Config{}, nil)) })
	t.Run("QuorumEvents", func(t *testing.T) {
		events := cloudevents.New(cloudevents.Config{Source: "/test"})
		outboxtest.TestPublisher(t, amqpBroker(t, amqppub.Config{Events: events}, amqp.Table{"x-queue-type": "quorum"}))
	})
}

// Acceptance case 27: the broker returns an unroutable message and then confirms it. All that it says to a batch comes at once, so that returns and confirms
// wait for their reader beside each other.
func TestAMQPUnroutable(t *testing.T) {
	ch := rabbit(t)
	queue := newQueue(t, ch, nil)
	proxy := newProxy(t, rabbitAddr)
	p := amqppub.New(amqppub.Config{URL: rabbitURL(proxy.Addr())})
	defer p.Close()
	publishAll(t, p, []*outbox.Message{newMessage(queue, "", "x")}) // for the connection
	const rounds, all, routable = 20, 200, 50                       // in half of the rounds the reader keeps up all the same
	for round := range rounds {
		var batch []*outbox.Message
		for i := range all {
			topic := "bs_nowhere"
			if i%4 == 3 { // the last one too: when it is there, all have been answered
				topic = queue
			}
			batch = append(batch, newMessage(topic, fmt.Sprint(i), "x"))
		}
		proxy.Deafen(t)
		result := results(len(batch))
		done := make(chan struct{})
		go func() {
			defer close(done)
			p.Publish(t.Context(), batch, result)
		}()
		eventually(t, 10*time.Second, func() error {
			q, err := ch.QueueDeclarePassive(queue, true, false, false, false, nil)
			if err != nil {
				return err
			}
			if want := 1 + (round+1)*routable; q.Messages < want {
				return fmt.Errorf("the queue holds %d messages, want %d", q.Messages, want)
			}
			return nil
		})
		threads := runtime.GOMAXPROCS(1) // or a quick reader might take each before the next is there
		proxy.Hear(t)
		<-done
		runtime.GOMAXPROCS(threads)
		for i, err := range result {
			if i%4 == 3 && err != nil {
				t.Errorf("result[%d]: got %v, want nil", i, err)
			}
			if i%4 != 3 && (!errors.Is(err, amqppub.ErrUnroutable) || !errors.Is(err, outbox.ErrUnavailable)) {
				t.Fatalf("result[%d]: got %v, want ErrUnroutable", i, err)
			}
		}
	}
}

// A queue that is full and rejects answers with a nack, through the default exchange from one queue, which did not take it.
func TestAMQPRefused(t *testing.T) {
	ch := rabbit(t)
	queue := newQueue(t, ch, amqp.Table{"x-max-length": int32(1), "x-overflow": "reject-publish"})
	p := amqppub.New(amqppub.Config{URL: rabbitURL(rabbitAddr)})
	defer p.Close()
	refused := 0
	for range 5 {
		result := results(1)
		p.Publish(t.Context(), []*outbox.Message{newMessage(queue, "", "x")}, result)
		if errors.Is(result[0], amqppub.ErrRefused) && errors.Is(result[0], outbox.ErrUnavailable) {
			refused++
		} else if result[0] != nil {
			t.Errorf("got %v, want nil or ErrRefused", result[0])
		}
	}
	if refused == 0 {
		t.Error("a full queue refused nothing")
	}
}

func TestAMQPMissingExchange(t *testing.T) {
	ch := rabbit(t)
	p := amqppub.New(amqppub.Config{URL: rabbitURL(rabbitAddr), Exchange: unique("bs_exchange")})
	defer p.Close()
	result := results(3)
	batch := []*outbox.Message{newMessage("a", "1", "x"), newMessage("b", "2", "x"), newMessage("c", "3", "x")}
	p.Publish(t.Context(), batch, result)
	for i, err := range result {
		if !errors.Is(err, outbox.ErrUnavailable) {
			t.Errorf("result[%d]: got %v, want ErrUnavailable", i, err)
		}
	}
	if !errors.Is(result[0], amqppub.ErrNoExchange) {
		t.Errorf("got %v, want ErrNoExchange", result[0])
	}
	if err := p.Check(t.Context(), time.Minute); !errors.Is(err, amqppub.ErrNoExchange) || errors.Is(err, outbox.ErrUnavailable) {
		t.Errorf("Check: got %v, want ErrNoExchange, fatal", err)
	}
	queue := newQueue(t, ch, nil)
	good := amqppub.New(amqppub.Config{URL: rabbitURL(rabbitAddr), Queues: []string{queue}})
	if err := good.Check(t.Context(), time.Minute); err != nil {
		t.Errorf("Check: got %v, want nil", err)
	}
	bad := amqppub.New(amqppub.Config{URL: rabbitURL(rabbitAddr), Queues: []string{queue, "bs_nowhere"}})
	if err := bad.Check(t.Context(), time.Minute); !errors.Is(err, amqppub.ErrNoQueue) || errors.Is(err, outbox.ErrUnavailable) {
		t.Errorf("Check: got %v, want ErrNoQueue, fatal", err)
	}
	away := amqppub.New(amqppub.Config{URL: rabbitURL("127.0.0.1:1"), Wait: time.Second})
	if err := away.Check(t.Context(), time.Minute); !errors.Is(err, outbox.ErrUnavailable) || strings.Contains(err.Error(), "guest") {
		t.Errorf("Check: got %v without a broker, want ErrUnavailable and no password", err)
	}
}

// blockedFrame is the broker's connection.blocked, and unblocked its end: class 10, methods 60 and 61, on channel 0.
func blockedFrame(reason string) []byte {
	payload := append([]byte{0, 10, 0, 60, byte(len(reason))}, reason...)
	return frame(payload)
}

func unblockedFrame() []byte { return frame([]byte{0, 10, 0, 61}) }

func frame(payload []byte) []byte {
	f := []byte{1, 0, 0}
	f = binary.BigEndian.AppendUint32(f, uint32(len(payload)))
	return append(append(f, payload...), 0xce)
}

// Acceptance case 28: the broker is under memory alarm. It says so, and takes nothing from the connection until the alarm ends.
func TestAMQPBlocked(t *testing.T) {
	ch := rabbit(t)
	queue := newQueue(t, ch, nil)
	proxy := newProxy(t, rabbitAddr)
	var clients []net.Conn // guarded by proxy.mu
	proxy.mu.Lock()
	proxy.onto = func(c net.Conn) { clients = append(clients, c) }
	proxy.mu.Unlock()
	p := amqppub.New(amqppub.Config{URL: rabbitURL(proxy.Addr()), Wait: 2 * time.Second})
	defer p.Close()
	publish := func(limit time.Duration) error {
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		result := results(1)
		p.Publish(ctx, []*outbox.Message{newMessage(queue, "k", "x")}, result)
		return result[0]
	}
	if err := publish(5 * time.Second); err != nil {
		t.Fatal(err)
	}
	say := func(b []byte) {
		proxy.mu.Lock()
		defer proxy.mu.Unlock()
		// Nothing else is on its way to the client: its only message was answered.
		if _, err := clients[0].Write(b); err != nil {
			t.Fatal(err)
		}
	}
	say(blockedFrame("low on memory"))
	eventually(t, 5*time.Second, func() error {
		if err := publish(time.Second); !errors.Is(err, amqppub.ErrBlocked) || !errors.Is(err, outbox.ErrUnavailable) {
			return fmt.Errorf("got %v, want ErrBlocked", err)
		}
		return nil
	})
	say(unblockedFrame())
	eventually(t, 5*time.Second, func() error { return publish(time.Second) })
	proxy.mu.Lock()
	defer proxy.mu.Unlock()
	if len(clients) != 1 {
		t.Errorf("got %d connections, want the same one before and after the alarm", len(clients))
	}
}

// The broker stops reading without a word: writes block. Publish keeps its deadline all the same, and goes on over a new connection.
func TestAMQPStalledSocket(t *testing.T) {
	ch := rabbit(t)
	queue := newQueue(t, ch, nil)
	stall := newStaller(t, rabbitAddr)
	p := amqppub.New(amqppub.Config{URL: rabbitURL(stall.Addr()), Wait: 10 * time.Second})
	defer p.Close()
	var batch []*outbox.Message
	for i := range 64 {
		batch = append(batch, newMessage(queue, fmt.Sprint(i), string(make([]byte, 512<<10)))) // 32 MiB, more than sockets buffer
	}
	result := results(1)
	p.Publish(t.Context(), batch[:1], result)
	if result[0] != nil {
		t.Fatal(result[0])
	}
	stall.stop(true)
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	result = results(len(batch))
	began := time.Now()
	p.Publish(ctx, batch, result)
	if took := time.Since(began); took > 5*time.Second { // half of Wait, after which it would end anyway
		t.Errorf("Publish took %v with a deadline of 500ms", took)
	}
	for i, err := range result {
		if !errors.Is(err, outbox.ErrUnknownOutcome) && !errors.Is(err, outbox.ErrUnavailable) {
			t.Errorf("result[%d]: got %v, want ErrUnknownOutcome or ErrUnavailable", i, err)
		}
	}
	stall.stop(false)
	eventually(t, 10*time.Second, func() error {
		result := results(1)
		p.Publish(t.Context(), batch[:1], result)
		return result[0]
	})
}

// A broker whose limit is below the publisher's ends the channel, and says its limit: afterwards the message is known to be too large.
func TestAMQPLearnsLimit(t *testing.T) {
	fake := newFakeChannelEnd(t)
	p := amqppub.New(amqppub.Config{URL: rabbitURL(fake.Addr()), Wait: 2 * time.Second})
	defer p.Close()
	m := newMessage("q", "", string(make([]byte, 5000)))
	result := results(1)
	p.Publish(t.Context(), []*outbox.Message{m}, result)
	if !errors.Is(result[0], outbox.ErrUnknownOutcome) {
		t.Errorf("got %v, want ErrUnknownOutcome", result[0])
	}
	p.Publish(t.Context(), []*outbox.Message{m}, result)
	if !errors.Is(result[0], outbox.ErrTooLarge) {
		t.Errorf("got %v at the second try, want ErrTooLarge", result[0])
	}
}

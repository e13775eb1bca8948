package outboxpub_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/cloudevents"
	"github.com/backstay-go/backstay/outbox/natspub"
	"github.com/backstay-go/backstay/outbox/outboxtest"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const natsAddr = "127.0.0.1:4222"

// embeddedNATS starts a server with JetStream in a directory of the test.
func embeddedNATS(tb testing.TB) *server.Server {
	tb.Helper()
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: -1, JetStream: true, StoreDir: tb.TempDir(), NoLog: true, NoSigs: true})
	if err != nil {
		tb.Fatal(err)
	}
	s.Start()
	if !s.ReadyForConnections(10 * time.Second) {
		tb.Fatal("the embedded NATS server does not come up")
	}
	tb.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	return s
}

// connectNATS makes a connection that never gives up.
func connectNATS(tb testing.TB, addr string, options ...nats.Option) jetstream.JetStream {
	tb.Helper()
	options = append([]nats.Option{
		nats.MaxReconnects(-1), nats.ReconnectWait(20 * time.Millisecond), nats.ReconnectJitter(0, 0), nats.Timeout(5 * time.Second),
	}, options...)
	nc, err := nats.Connect("nats://"+addr, options...)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		tb.Fatal(err)
	}
	return js
}

// newStream makes a stream of its own for one subject.
func newStream(tb testing.TB, js jetstream.JetStream, change func(*jetstream.StreamConfig)) (subject string, s jetstream.Stream) {
	tb.Helper()
	subject = unique("bs_outboxpub")
	config := jetstream.StreamConfig{Name: subject, Subjects: []string{subject}, Storage: jetstream.MemoryStorage}
	if change != nil {
		change(&config)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	s, err := js.CreateStream(ctx, config)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = js.DeleteStream(ctx, subject)
	})
	return subject, s
}

// readStream reads a stream's messages by number.
func readStream(tb testing.TB, js jetstream.JetStream, name string, n int) []*outbox.Message {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	s, err := js.Stream(ctx, name)
	if err != nil {
		tb.Fatal(err)
	}
	var info *jetstream.StreamInfo
	until := time.Now().Add(2 * time.Second)
	for {
		if info, err = s.Info(ctx); err != nil {
			tb.Fatal(err)
		}
		if int(info.State.Msgs) >= n || time.Now().After(until) {
			break
		}
	}
	var got []*outbox.Message
	for seq := info.State.FirstSeq; seq <= info.State.LastSeq; seq++ {
		raw, err := s.GetMsg(ctx, seq)
		if err != nil {
			tb.Fatal(err)
		}
		m, err := natspub.Decode(raw.Subject, raw.Header, raw.Data)
		if err != nil {
			tb.Fatal(err)
		}
		got = append(got, m)
	}
	return got
}

func natsBroker(tb testing.TB, addr string, c natspub.Config) outboxtest.Broker {
	direct := connectNATS(tb, addr)
	proxy := newProxy(tb, addr)
	return outboxtest.Broker{
		New: func(tb testing.TB) outbox.Publisher {
			return natspub.New(connectNATS(tb, proxy.Addr()), c)
		},
		Topic: func(tb testing.TB) string {
			subject, _ := newStream(tb, direct, nil)
			return subject
		},
		Read: func(tb testing.TB, topic string, n int) []*outbox.Message {
			return readStream(tb, direct, topic, n)
		},
		Deduplicates: true,
		Missing:      unique("bs_nowhere"),
		TooLarge:     2 << 20,
		Cut:          proxy.Cut, Mend: proxy.Mend, Deafen: proxy.Deafen, Hear: proxy.Hear,
	}
}

func TestNATSConformance(t *testing.T) {
	t.Run("Embedded", func(t *testing.T) {
		s := embeddedNATS(t)
		outboxtest.TestPublisher(t, natsBroker(t, s.Addr().String(), natspub.Config{}))
	})
	t.Run("Events", func(t *testing.T) {
		s := embeddedNATS(t)
		outboxtest.TestPublisher(t, natsBroker(t, s.Addr().String(), natspub.Config{Events: cloudevents.New(cloudevents.Config{Source: "/test"})}))
	})
	t.Run("Server", func(t *testing.T) {
		need(t, "NATS", natsAddr)
		outboxtest.TestPublisher(t, natsBroker(t, natsAddr, natspub.Config{}))
	})
}

// Acceptance case 30: the stream says duplicate, which is a success.
func TestNATSDuplicate(t *testing.T) {
	js := connectNATS(t, embeddedNATS(t).Addr().String())
	subject, s := newStream(t, js, nil)
	m := newMessage(subject, "k", "once")
	for range 3 {
		p := natspub.New(js, natspub.Config{}) // another relay each time
		result := results(1)
		p.Publish(t.Context(), []*outbox.Message{m}, result)
		if result[0] != nil {
			t.Errorf("got %v, want nil", result[0])
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}
	info, err := s.Info(t.Context())
	if err != nil || info.State.Msgs != 1 {
		t.Errorf("got %d messages in the stream (%v), want 1", info.State.Msgs, err)
	}
}

// Acceptance case 31: a missing stream is unavailable, at once, and is used as soon as it is there.
func TestNATSMissingStream(t *testing.T) {
	js := connectNATS(t, embeddedNATS(t).Addr().String())
	p := natspub.New(js, natspub.Config{})
	defer p.Close()
	there, _ := newStream(t, js, nil)
	later := unique("later")
	batch := []*outbox.Message{newMessage(later, "a", "1"), newMessage(there, "b", "2"), newMessage(later, "c", "3")}
	result := results(3)
	p.Publish(t.Context(), batch, result)
	for i, want := range []error{natspub.ErrNoStream, nil, natspub.ErrNoStream} {
		if !errors.Is(result[i], want) || want != nil && !errors.Is(result[i], outbox.ErrUnavailable) {
			t.Errorf("result[%d]: got %v, want %v", i, result[i], want)
		}
	}
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: later, Subjects: []string{later}, Storage: jetstream.MemoryStorage}); err != nil {
		t.Fatal(err)
	}
	p.Publish(t.Context(), batch, result)
	for i, err := range result {
		if err != nil {
			t.Errorf("after the stream was made, result[%d]: got %v, want nil", i, err)
		}
	}
}

// A stream that is full and refuses new messages is the broker's trouble; one message over its limit is the message's own.
func TestNATSStreamRefuses(t *testing.T) {
	js := connectNATS(t, embeddedNATS(t).Addr().String())
	p := natspub.New(js, natspub.Config{})
	defer p.Close()
	full, _ := newStream(t, js, func(c *jetstream.StreamConfig) { c.MaxMsgs, c.Discard = 1, jetstream.DiscardNew })
	small, _ := newStream(t, js, func(c *jetstream.StreamConfig) { c.MaxMsgSize = 200 })
	batch := []*outbox.Message{newMessage(full, "a", "1"), newMessage(full, "b", "2"), newMessage(small, "c", string(make([]byte, 300)))}
	result := results(3)
	p.Publish(t.Context(), batch, result)
	if result[0] != nil {
		t.Errorf("got %v for the first message, want nil", result[0])
	}
	if !errors.Is(result[1], outbox.ErrUnavailable) {
		t.Errorf("got %v from a full stream, want ErrUnavailable", result[1])
	}
	if !errors.Is(result[2], outbox.ErrTooLarge) {
		t.Errorf("got %v for a message over the stream's limit, want ErrTooLarge", result[2])
	}
}

// A header named as an order to the server ("Nats-Rollup: all" empties the stream) is not passed on.
func TestNATSHeaderOrders(t *testing.T) {
	js := connectNATS(t, embeddedNATS(t).Addr().String())
	p := natspub.New(js, natspub.Config{})
	defer p.Close()
	subject, s := newStream(t, js, func(c *jetstream.StreamConfig) { c.AllowRollup = true })
	kept := newMessage(subject, "", "kept")
	order := newMessage(subject, "", "order")
	order.Headers = map[string]string{"nats-Rollup": "all"}
	wild := newMessage("orders.>", "", "wild")
	result := results(3)
	p.Publish(t.Context(), []*outbox.Message{kept, order, wild}, result)
	if result[0] != nil || !errors.Is(result[1], outbox.ErrPermanent) || !errors.Is(result[2], outbox.ErrPermanent) {
		t.Errorf("got %v, want nil, ErrPermanent, ErrPermanent", result)
	}
	if info, err := s.Info(t.Context()); err != nil || info.State.Msgs != 1 {
		t.Errorf("got %d messages (%v), want 1", info.State.Msgs, err)
	}
}

func TestNATSCheck(t *testing.T) {
	s := embeddedNATS(t)
	js := connectNATS(t, s.Addr().String())
	subject, _ := newStream(t, js, func(c *jetstream.StreamConfig) { c.Duplicates = time.Minute })
	check := func(horizon time.Duration, topics ...string) error {
		return natspub.New(js, natspub.Config{Topics: topics}).Check(t.Context(), horizon)
	}
	if err := check(30*time.Second, subject); err != nil {
		t.Errorf("got %v, want nil", err)
	}
	if err := check(2*time.Minute, subject); !errors.Is(err, natspub.ErrWindow) || !errors.Is(err, outbox.ErrUnavailable) {
		t.Errorf("got %v for a short window, want ErrWindow, marked as not fatal", err)
	}
	if err := check(time.Second, subject, "nowhere"); !errors.Is(err, natspub.ErrNoStream) || errors.Is(err, outbox.ErrUnavailable) {
		t.Errorf("got %v for a topic without a stream, want ErrNoStream, fatal", err)
	}
	gives := natspub.New(connectNATS(t, s.Addr().String(), nats.MaxReconnects(60)), natspub.Config{})
	if err := gives.Check(t.Context(), time.Second); !errors.Is(err, outbox.ErrUnavailable) {
		t.Errorf("got %v for a connection that gives up, want a warning", err)
	}
	// A server without JetStream answers nobody.
	plain, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: -1, NoLog: true, NoSigs: true})
	if err != nil {
		t.Fatal(err)
	}
	plain.Start()
	defer plain.WaitForShutdown()
	defer plain.Shutdown()
	plain.ReadyForConnections(10 * time.Second)
	without := natspub.New(connectNATS(t, plain.Addr().String()), natspub.Config{Topics: []string{"a"}})
	if err := without.Check(t.Context(), time.Second); !errors.Is(err, outbox.ErrUnavailable) {
		t.Errorf("got %v from a server without JetStream, want ErrUnavailable", err)
	}
}

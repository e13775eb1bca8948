package outboxpub_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/outboxtest"
	"github.com/backstay-go/backstay/outbox/watermillpub"
)

var errTooBig = errors.New("message too big")

// shelf is a Watermill publisher that stores, and that can be cut off or made to hang after storing.
type shelf struct {
	mu     sync.Mutex
	held   map[string][]*message.Message // by topic
	away   bool
	gate   chan struct{} // closed: calls return
	closed bool
}

func newShelf() *shelf {
	s := &shelf{held: make(map[string][]*message.Message), gate: make(chan struct{})}
	close(s.gate)
	return s
}

func (s *shelf) Publish(topic string, messages ...*message.Message) error {
	s.mu.Lock()
	if s.closed || s.away {
		s.mu.Unlock()
		return errors.New("not connected")
	}
	for _, m := range messages {
		if len(m.Payload) > 1<<20 {
			s.mu.Unlock()
			return errTooBig
		}
		s.held[topic] = append(s.held[topic], m)
	}
	gate := s.gate
	s.mu.Unlock()
	<-gate
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.away {
		return errors.New("connection lost")
	}
	return nil
}

func (s *shelf) Close() error { return nil }

func (s *shelf) set(f func()) func(testing.TB) {
	return func(testing.TB) {
		s.mu.Lock()
		defer s.mu.Unlock()
		f()
	}
}

func TestWatermillConformance(t *testing.T) {
	s := newShelf()
	outboxtest.TestPublisher(t, outboxtest.Broker{
		New: func(testing.TB) outbox.Publisher {
			return watermillpub.New(s, watermillpub.Config{Judge: func(err error) error {
				if errors.Is(err, errTooBig) {
					return outbox.TooLarge(err)
				}
				return outbox.UnknownOutcome(err)
			}})
		},
		Topic: func(testing.TB) string { return unique("topic") },
		Read: func(_ testing.TB, topic string, n int) []*outbox.Message {
			var got []*outbox.Message
			until := time.Now().Add(2 * time.Second)
			for {
				s.mu.Lock()
				if len(s.held[topic]) < n && time.Now().Before(until) {
					s.mu.Unlock()
					continue
				}
				for _, m := range s.held[topic] {
					got = append(got, watermillpub.Decode(topic, m))
				}
				s.mu.Unlock()
				return got
			}
		},
		TooLarge: 2 << 20,
		Cut: s.set(func() {
			s.away = true
			select {
			case <-s.gate:
			default:
				close(s.gate)
			}
		}),
		Mend:   s.set(func() { s.away = false }),
		Deafen: s.set(func() { s.gate = make(chan struct{}) }),
		Hear: s.set(func() {
			select {
			case <-s.gate:
			default:
				close(s.gate)
			}
		}),
	})
}

// Calls that hang are bounded: further messages are refused unsent, and Close waits for the calls.
func TestWatermillBusy(t *testing.T) {
	s := newShelf()
	p := watermillpub.New(s, watermillpub.Config{Concurrency: 2})
	s.gate = make(chan struct{})
	batch := []*outbox.Message{newKeyed("a"), newKeyed("b"), newKeyed("c"), newKeyed("d")}
	result := results(4)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	p.Publish(ctx, batch, result)
	for i, want := range []error{watermillpub.ErrNoReturn, watermillpub.ErrNoReturn, watermillpub.ErrBusy, watermillpub.ErrBusy} {
		if !errors.Is(result[i], want) {
			t.Errorf("result[%d]: got %v, want %v", i, result[i], want)
		}
	}
	if !errors.Is(result[0], outbox.ErrUnknownOutcome) || !errors.Is(result[2], outbox.ErrUnavailable) {
		t.Errorf("got %v and %v, want an unknown outcome and an unsent message", result[0], result[2])
	}
	close(s.gate)
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}

func newKeyed(key string) *outbox.Message {
	return &outbox.Message{ID: outbox.NewID(), Topic: "topic", Key: key, Payload: []byte("x")}
}

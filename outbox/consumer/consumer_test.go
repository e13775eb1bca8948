package consumer_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/consumer"
)

var errTest = errors.New("test")

// queue hands out deliveries and remembers how they were settled.
type queue struct {
	mu      sync.Mutex
	left    []*outbox.Message
	settled map[string]consumer.Verdict
	extends int
	ended   error // next's answer when nothing is left; nil: wait for ctx
}

func newQueue(messages ...*outbox.Message) *queue {
	return &queue{left: messages, settled: make(map[string]consumer.Verdict)}
}

func (q *queue) next(ctx context.Context) (consumer.Delivery, error) {
	q.mu.Lock()
	if len(q.left) > 0 {
		m := q.left[0]
		q.left = q.left[1:]
		q.mu.Unlock()
		return consumer.Delivery{Message: m, Every: time.Second, Extend: q.extend, Settle: func(v consumer.Verdict) { q.settle(m.ID, v) }}, nil
	}
	q.mu.Unlock()
	if q.ended != nil {
		return consumer.Delivery{}, q.ended
	}
	<-ctx.Done()
	return consumer.Delivery{}, ctx.Err()
}

func (q *queue) extend() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.extends++
}

func (q *queue) settle(id string, v consumer.Verdict) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if _, twice := q.settled[id]; twice {
		panic("settled twice")
	}
	q.settled[id] = v
}

func messages(keys ...string) []*outbox.Message {
	var all []*outbox.Message
	for i, key := range keys {
		all = append(all, &outbox.Message{ID: fmt.Sprint(i), Key: key, Topic: "t"})
	}
	return all
}

func TestHandleTriesInPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := consumer.Config{}.WithDefaults()
		var at []time.Duration
		began := time.Now()
		v := consumer.Handle(t.Context(), c, func(context.Context, *outbox.Message) error {
			at = append(at, time.Since(began))
			if len(at) < 12 {
				return errTest
			}
			return nil
		}, messages("k")[0])
		if v != consumer.Done {
			t.Errorf("got %v, want done", v)
		}
		wait := 100 * time.Millisecond
		for i := 1; i < len(at); i++ {
			if gap := at[i] - at[i-1]; gap < wait/2 || gap > wait {
				t.Errorf("pause %d: got %v, want %v to %v", i, gap, wait/2, wait)
			}
			wait = min(2*wait, 10*time.Second)
		}
	})
}

func TestHandleGivesUp(t *testing.T) {
	dead := func(answers ...error) func(context.Context, *outbox.Message, error) error {
		return func(context.Context, *outbox.Message, error) error {
			err := answers[0]
			answers = answers[1:]
			return err
		}
	}
	for name, test := range map[string]struct {
		config   consumer.Config
		err      error
		attempts int
		want     consumer.Verdict
	}{
		"attempts, nowhere to go":       {consumer.Config{Attempts: 3}, errTest, 3, consumer.Rejected},
		"attempts, stored as dead":      {consumer.Config{Attempts: 3, Dead: dead(nil)}, errTest, 3, consumer.Done},
		"attempts, storing fails twice": {consumer.Config{Attempts: 3, Dead: dead(errTest, errTest, nil)}, errTest, 5, consumer.Done},
		"permanent at once":             {consumer.Config{}, outbox.Permanent(errTest), 1, consumer.Rejected},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var told []int
				test.config.Failed = func(_ *outbox.Message, attempt int, _ error) { told = append(told, attempt) }
				v := consumer.Handle(t.Context(), test.config.WithDefaults(), func(context.Context, *outbox.Message) error { return test.err }, messages("k")[0])
				if v != test.want || len(told) != test.attempts {
					t.Errorf("got %v after attempts %v, want %v after %d", v, told, test.want, test.attempts)
				}
			})
		})
	}
}

func TestTimeoutOfATry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := consumer.Config{Timeout: time.Second, Attempts: 2, Wait: time.Millisecond}.WithDefaults()
		began := time.Now()
		v := consumer.Handle(t.Context(), c, func(ctx context.Context, _ *outbox.Message) error {
			<-ctx.Done()
			return ctx.Err()
		}, messages("k")[0])
		if took := time.Since(began); v != consumer.Rejected || took < 2*time.Second || took > 2*time.Second+time.Millisecond {
			t.Errorf("got %v after %v, want rejected after two tries of 1s", v, took)
		}
	})
}

// The handler in hand may go on for the grace period; what was not begun is left.
func TestRunEndsInOrder(t *testing.T) {
	for name, test := range map[string]struct {
		grace, work time.Duration
		first       consumer.Verdict
	}{
		"within the grace period": {10 * time.Second, 5 * time.Second, consumer.Done},
		"beyond it":               {2 * time.Second, 5 * time.Second, consumer.Left},
		"none":                    {-1, 5 * time.Second, consumer.Left},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				q := newQueue(messages("k", "k", "k")...)
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				err := consumer.Run(ctx, consumer.Config{Grace: test.grace}, func(ctx context.Context, m *outbox.Message) error {
					select {
					case <-time.After(test.work):
						return nil
					case <-ctx.Done():
						return ctx.Err()
					}
				}, q.next)
				if err != nil {
					t.Errorf("got %v, want nil", err)
				}
				for id, want := range map[string]consumer.Verdict{"0": test.first, "1": consumer.Left, "2": consumer.Left} {
					if got, ok := q.settled[id]; !ok || got != want {
						t.Errorf("message %s: got %v (settled: %v), want %v", id, got, ok, want)
					}
				}
			})
		})
	}
}

func TestRunKeepsLanes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var keys []string
		for i := range 60 {
			keys = append(keys, string(rune('a'+i%5)))
		}
		q := newQueue(messages(keys...)...)
		q.ended = io.EOF
		var mu sync.Mutex
		order := make(map[string][]string)
		inHand := make(map[string]string) // by key: all lanes work at the same instant of the bubble, so that the order alone may be right by chance
		busy, most := 0, 0
		began := time.Now()
		err := consumer.Run(t.Context(), consumer.Config{Lanes: 64}, func(_ context.Context, m *outbox.Message) error {
			mu.Lock()
			if other, ok := inHand[m.Key]; ok {
				t.Errorf("key %s: message %s is in hand beside %s", m.Key, m.ID, other)
			}
			inHand[m.Key] = m.ID
			order[m.Key] = append(order[m.Key], m.ID)
			busy++
			most = max(most, busy)
			mu.Unlock()
			time.Sleep(time.Second)
			mu.Lock()
			delete(inHand, m.Key)
			busy--
			mu.Unlock()
			return nil
		}, func(ctx context.Context) (consumer.Delivery, error) {
			d, err := q.next(ctx)
			if err != nil {
				time.Sleep(time.Minute) // an error of the broker, after all is done
			}
			return d, err
		})
		if !errors.Is(err, io.EOF) {
			t.Errorf("got %v, want the broker's error", err)
		}
		// Keys share lanes by chance, all five of them once in 16 million times. All but 17 of a lane's messages are done a minute before the end: of four keys' 31.
		if took := time.Since(began); most < 2 || took > 91*time.Second {
			t.Errorf("got %d at a time, %v in all, want several, and 60 s to 91 s", most, took)
		}
		for key, got := range order {
			var want []string
			for i, k := range keys {
				if k == key {
					want = append(want, fmt.Sprint(i))
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("key %s: got order %v, want %v", key, got, want)
			}
		}
	})
}

func TestExtendsWhileAtWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(messages("k")...)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		_ = consumer.Run(ctx, consumer.Config{}, func(context.Context, *outbox.Message) error {
			time.Sleep(5*time.Second + time.Millisecond)
			return nil
		}, q.next)
		if q.extends != 5 {
			t.Errorf("got %d extensions in 5s, want 5", q.extends)
		}
	})
}

func TestOpensSealed(t *testing.T) {
	keys := outbox.AES{Current: "a", Keys: map[string][]byte{"a": make([]byte, 32)}}
	m := &outbox.Message{ID: "1", Topic: "t", Payload: []byte("plain")}
	if err := keys.Seal(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	c := consumer.Config{Open: keys}.WithDefaults()
	var got string
	if v := consumer.Handle(t.Context(), c, func(_ context.Context, m *outbox.Message) error {
		got = string(m.Payload)
		return nil
	}, m); v != consumer.Done || got != "plain" {
		t.Errorf("got %v with %q, want done with %q", v, got, "plain")
	}
	m.ID = "2" // moved to another message: never to be opened
	if v := consumer.Handle(t.Context(), c, func(context.Context, *outbox.Message) error { return nil }, m); v != consumer.Rejected {
		t.Errorf("got %v for a payload of another message, want rejected", v)
	}
}

func TestValidate(t *testing.T) {
	if err := (consumer.Config{}).Validate(); err != nil {
		t.Errorf("the zero value: got %v, want nil", err)
	}
	if err := (consumer.Config{Lanes: 2000, Attempts: -1, Wait: -1, MaxWait: -1}).Validate(); err == nil {
		t.Error("got nil, want four faults")
	}
}

func TestSettlesAfterTheHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(messages("a", "b")...)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_ = consumer.Run(ctx, consumer.Config{}, func(_ context.Context, m *outbox.Message) error {
			time.Sleep(time.Second)
			q.mu.Lock()
			defer q.mu.Unlock()
			if v, early := q.settled[m.ID]; early {
				t.Errorf("message %s: settled as %v before its handler returned", m.ID, v)
			}
			return nil
		}, q.next)
		if len(q.settled) != 2 {
			t.Errorf("got %d settled, want 2", len(q.settled))
		}
	})
}

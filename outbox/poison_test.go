package outbox_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/outboxmem"
	"golang.org/x/time/rate"
)

func enqueue(t *testing.T, box *outboxmem.Box, messages ...outbox.Message) {
	t.Helper()
	if err := box.Enqueue(t.Context(), messages...); err != nil {
		t.Fatal(err)
	}
}

// poisonous refuses payload "poison".
func poisonous(err error) func(*outbox.Message) error {
	return func(m *outbox.Message) error {
		if string(m.Payload) == "poison" {
			return err
		}
		return nil
	}
}

func TestPoison(t *testing.T) {
	for name, c := range map[string]struct {
		poison outbox.Poison
		err    error
		a      []string // of key a, whose second message is poison
		dead   []string
	}{
		"park the key":     {outbox.ParkKey, errors.New("no"), []string{"1"}, []string{"poison", "3", "4"}},
		"park at once":     {outbox.ParkKey, outbox.Permanent(errors.New("no")), []string{"1"}, []string{"poison", "3", "4"}},
		"skip":             {outbox.Skip, errors.New("no"), []string{"1", "3", "4"}, []string{"poison"}},
		"skip too large":   {outbox.Skip, outbox.TooLarge(errors.New("no")), []string{"1", "3", "4"}, []string{"poison"}},
		"block":            {outbox.Block, errors.New("no"), []string{"1"}, nil},
		"an outage is not": {outbox.ParkKey, outbox.Unavailable(errors.New("away")), []string{"1"}, nil},
		"nor is not known": {outbox.ParkKey, outbox.UnknownOutcome(errors.New("cut")), []string{"1"}, nil},
	} {
		for _, runs := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/runs=%v", name, runs), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					box, broker := outboxmem.New(outboxmem.Config{Partitions: 1}), &recorder{fail: poisonous(c.err), runs: runs}
					relay, stop := start(t, box, broker, outbox.RelayConfig{MaxAttempts: 5, Poison: c.poison, MaxBackoff: time.Second, MaxAge: 10 * time.Second})
					for _, p := range []string{"1", "poison", "3"} {
						enqueue(t, box, outbox.Message{Topic: "t", Key: "a", Payload: []byte(p)})
						enqueue(t, box, outbox.Message{Topic: "t", Key: "b", Payload: []byte(p + "b")})
					}
					time.Sleep(20 * time.Second)
					enqueue(t, box, outbox.Message{Topic: "t", Key: "a", Payload: []byte("4")})
					time.Sleep(20 * time.Second)
					first := broker.first()
					if !slices.Equal(first["a"], c.a) {
						t.Errorf("published of key a: got %v, want %v", first["a"], c.a)
					}
					if want := []string{"1b", "poisonb", "3b"}; !slices.Equal(first["b"], want) {
						t.Errorf("published of key b: got %v, want %v", first["b"], want)
					}
					dead, _ := box.DeadLetters(t.Context(), outbox.DeadFilter{})
					var got []string
					for _, d := range dead {
						got = append(got, string(d.Payload))
					}
					if !slices.Equal(got, c.dead) {
						t.Errorf("dead letters: got %v, want %v", got, c.dead)
					}
					s := relay.Stats()
					if s.Parked != int64(len(c.dead)) {
						t.Errorf("parked: got %d, want %d", s.Parked, len(c.dead))
					}
					if stuck := c.dead == nil; stuck != (s.Oldest > 30*time.Second) || stuck != (relay.Health() != nil) {
						t.Errorf("oldest: got %v, health %v, want it old: %v", s.Oldest, relay.Health(), stuck)
					}

					broker.mu.Lock()
					broker.fail = nil
					broker.mu.Unlock()
					if _, err := box.Replay(t.Context(), outbox.DeadFilter{Topic: "t"}); err != nil {
						t.Fatal(err)
					}
					time.Sleep(5 * time.Second)
					enqueue(t, box, outbox.Message{Topic: "t", Key: "a", Payload: []byte("5")})
					time.Sleep(time.Second)
					want := []string{"1", "poison", "3", "4", "5"}
					if c.poison == outbox.Skip {
						want = []string{"1", "3", "4", "poison", "5"}
					}
					if got := broker.first()["a"]; !slices.Equal(got, want) {
						t.Errorf("after the replay: got %v, want %v", got, want)
					}
					stop()
					if box.Len() != 0 {
						t.Errorf("left in the box: %d, want 0", box.Len())
					}
				})
			})
		}
	}
}

// Attempts are counted over relays: one that dies does not give a poison message its attempts back.
func TestAttemptsOutliveRelays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box, broker := outboxmem.New(), &recorder{fail: poisonous(errors.New("no"))}
		cfg := outbox.RelayConfig{MaxAttempts: 6, MinBackoff: 2 * time.Second, MaxBackoff: 2 * time.Second}
		enqueue(t, box, outbox.Message{Topic: "t", Key: "a", Payload: []byte("poison")})
		for range 3 {
			_, stop := start(t, box, broker, cfg)
			time.Sleep(3 * time.Second) // two or three attempts
			stop()
		}
		if dead, _ := box.DeadLetters(t.Context(), outbox.DeadFilter{}); len(dead) != 1 || dead[0].Attempts != 6 {
			t.Errorf("got %+v, want one dead letter after 6 attempts", dead)
		}
	})
}

// A key that is stuck costs one message of memory, and others flow past a long queue of it.
func TestStuckKeyDoesNotFillMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box := outboxmem.New(outboxmem.Config{Partitions: 1})
		broker := &recorder{fail: func(m *outbox.Message) error {
			if m.Key == "stuck" {
				return outbox.Unavailable(errors.New("no stream"))
			}
			return nil
		}}
		relay, stop := start(t, box, broker, outbox.RelayConfig{Batch: 10, MaxBackoff: time.Second})
		var many []outbox.Message
		for n := range 2000 {
			many = append(many, message("stuck", n))
		}
		enqueue(t, box, many...)
		for n := range 50 {
			enqueue(t, box, message("k0", n))
		}
		time.Sleep(5 * time.Second)
		checkOrder(t, broker, 1, 50)
		if s := relay.Stats(); s.Queued > 0 || s.Failing != 1 {
			t.Errorf("got %d queued and %d failing, want 0 and 1", s.Queued, s.Failing)
		}
		broker.mu.Lock()
		broker.fail = nil
		broker.mu.Unlock()
		time.Sleep(15 * time.Second)
		if got := broker.first()["stuck"]; len(got) != 2000 || !slices.IsSortedFunc(got, func(a, b string) int { x, _ := strconv.Atoi(a); y, _ := strconv.Atoi(b); return x - y }) {
			t.Errorf("after the outage: %d of 2000 published, or not in order", len(got))
		}
		stop()
	})
}

func TestScheduledAndExpiring(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box, broker := outboxmem.New(), &recorder{}
		relay, stop := start(t, box, broker, outbox.RelayConfig{})
		began := time.Now()
		enqueue(t, box, outbox.Message{Topic: "t", Key: "a", Payload: []byte("later"), NotBefore: began.Add(2 * time.Second)},
			outbox.Message{Topic: "t", Key: "b", Payload: []byte("delayed"), Delay: 2 * time.Second},
			outbox.Message{Topic: "t", Key: "c", Payload: []byte("stale"), Delay: 2 * time.Second, ExpiresAt: began.Add(time.Second)},
			outbox.Message{Topic: "t", Key: "d", Payload: []byte("fresh"), ExpiresAt: began.Add(time.Second)})
		time.Sleep(1990 * time.Millisecond)
		if got := broker.len(); got != 1 {
			t.Errorf("before they are due: %d published, want the fresh one alone", got)
		}
		stop()
		relay2, stop := start(t, box, broker, outbox.RelayConfig{}) // restarted meanwhile
		time.Sleep(100 * time.Millisecond)
		if got := broker.first(); len(got["a"]) != 1 || len(got["b"]) != 1 || len(got["c"]) != 0 || broker.len() != 3 {
			t.Errorf("when they are due: got %v, want later and delayed", got)
		}
		if got := relay.Stats().Expired + relay2.Stats().Expired; got != 1 {
			t.Errorf("expired: got %d, want 1", got)
		}
		stop()
		if box.Len() != 0 {
			t.Errorf("left in the box: %d, want 0", box.Len())
		}
	})
}

// A message that expires while its key is failing is dropped, and the key goes on.
func TestExpiresWhileFailing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box, broker := outboxmem.New(), &recorder{fail: poisonous(outbox.Unavailable(errors.New("away")))}
		relay, stop := start(t, box, broker, outbox.RelayConfig{MaxBackoff: time.Second})
		enqueue(t, box, outbox.Message{Topic: "t", Key: "a", Payload: []byte("poison"), ExpiresAt: time.Now().Add(5 * time.Second)}, message("a", 1))
		time.Sleep(10 * time.Second)
		if got := broker.first()["a"]; !slices.Equal(got, []string{"1"}) || relay.Stats().Expired != 1 {
			t.Errorf("got %v and %d expired, want the second alone and 1", got, relay.Stats().Expired)
		}
		stop()
	})
}

func TestThrottle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box, broker := outboxmem.New(), &recorder{}
		for n := range 200 {
			enqueue(t, box, message("", n))
		}
		_, stop := start(t, box, broker, outbox.RelayConfig{Throttle: rate.NewLimiter(10, 10)})
		time.Sleep(10 * time.Second)
		if got := broker.len(); got < 90 || got > 110 {
			t.Errorf("in 10 s at 10 a second: %d published, want about 100", got)
		}
		stop()
	})
}

// A retry in the policy repeats only what has failed; a refusal by the policy is no attempt.
func TestPolicy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box := outboxmem.New(outboxmem.Config{Partitions: 1})
		fails := map[string]int{}
		broker := &recorder{fail: func(m *outbox.Message) error {
			if m.Key == "odd" {
				if fails[string(m.Payload)]++; fails[string(m.Payload)] < 3 {
					return errors.New("not yet")
				}
			}
			return nil
		}}
		var refuse atomic.Bool
		refuse.Store(true)
		var mu sync.Mutex
		var outcomes []backstay.Class // guarded by mu
		policy := backstay.PolicyFunc(func(next backstay.Handler) backstay.Handler {
			return func(ctx context.Context, call *backstay.Call) backstay.Outcome {
				if refuse.Load() {
					return backstay.Reject(&backstay.Rejected{Policy: "breaker", Reason: "open", RetryAfter: 2 * time.Second})
				}
				out := next(ctx, call)
				for range 2 {
					mu.Lock()
					outcomes = append(outcomes, out.Class)
					mu.Unlock()
					if out.Err != nil && out.Again == backstay.Yes {
						out = next(ctx, call)
					}
				}
				return out
			}
		})
		relay, stop := start(t, box, broker, outbox.RelayConfig{Policy: policy, MaxAttempts: 2, InFlight: 1})
		enqueue(t, box, message("odd", 1), message("even", 1))
		time.Sleep(time.Minute)
		if s := relay.Stats(); broker.len() != 0 || s.Parked != 0 {
			t.Errorf("while refused: %d published, %d parked, want none", broker.len(), s.Parked)
		}
		refuse.Store(false)
		time.Sleep(time.Minute)
		if got := broker.len(); got != 2 {
			t.Errorf("published: got %d, want each once", got)
		}
		stop()
		mu.Lock()
		defer mu.Unlock()
		if !slices.Contains(outcomes, backstay.Failure) || !slices.Contains(outcomes, backstay.Success) {
			t.Errorf("the policy saw %v, want failures and a success", outcomes)
		}
	})
}

func TestSealedPayloads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		keys := outbox.AES{Current: "k1", Keys: map[string][]byte{"k1": bytes.Repeat([]byte{1}, 32)}}
		box, broker := outboxmem.New(outboxmem.Config{Sealer: keys}), &recorder{}
		enqueue(t, box, outbox.Message{Topic: "t", Key: "a", Payload: []byte("secret")})
		rows, err := box.Source().Read(t.Context(), []outbox.Span{{Part: outbox.PartitionOf("a", 16)}}, 1, nil)
		if err != nil || len(rows) != 1 || bytes.Contains(rows[0].Message.Payload, []byte("secret")) {
			t.Fatalf("stored: got %d rows, %v, want one sealed", len(rows), err)
		}
		moved := rows[0].Message
		moved.ID = "another"
		if err := keys.Open(t.Context(), &moved); !errors.Is(err, outbox.ErrPermanent) {
			t.Errorf("a payload under another id: got %v, want it refused for good", err)
		}
		var text strings.Builder
		_, stop := start(t, box, broker, outbox.RelayConfig{Opener: keys, Log: slog.New(slog.NewTextHandler(&text, nil))})
		time.Sleep(time.Second)
		stop()
		if got := broker.first()["a"]; !slices.Equal(got, []string{"secret"}) {
			t.Errorf("published: got %q, want it opened", got)
		}
	})
}

// mask is a Sealer and an Opener that leaves no mark: what is opened twice is spoilt.
type mask struct{}

func (mask) Seal(_ context.Context, m *outbox.Message) error {
	m.Payload = append([]byte("sealed:"), m.Payload...)
	return nil
}

func (mask) Open(_ context.Context, m *outbox.Message) error {
	plain, ok := bytes.CutPrefix(m.Payload, []byte("sealed:"))
	if !ok {
		return outbox.Permanent(errors.New("not sealed"))
	}
	m.Payload = plain
	return nil
}

// A message that is published again is opened again, from what is stored; OnParked gets it as it is stored.
func TestOpensEachTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tries := 0
		broker := &recorder{fail: func(m *outbox.Message) error {
			if tries++; m.Key == "b" {
				return outbox.Permanent(errors.New("poison"))
			} else if tries < 3 {
				return errors.New("not yet")
			}
			return nil
		}}
		box := outboxmem.New(outboxmem.Config{Sealer: mask{}})
		var parked []string
		_, stop := start(t, box, broker, outbox.RelayConfig{Opener: mask{}, OnParked: func(m *outbox.Message, reason string) {
			parked = append(parked, string(m.Payload)+" "+reason)
		}})
		enqueue(t, box, outbox.Message{Topic: "t", Key: "a", Payload: []byte("secret")})
		time.Sleep(10 * time.Second)
		enqueue(t, box, outbox.Message{Topic: "t", Key: "b", Payload: []byte("poison")})
		time.Sleep(10 * time.Second)
		stop()
		if got := broker.first()["a"]; !slices.Equal(got, []string{"secret"}) {
			t.Errorf("published: got %q, want it opened", got)
		}
		if len(parked) != 1 || !strings.HasPrefix(parked[0], "sealed:poison ") {
			t.Errorf("parked: got %q, want the one, sealed", parked)
		}
	})
}

// What is with the publisher at the end is waited for and deleted; nothing new is started.
func TestShutdownDrains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box, broker := outboxmem.New(), &recorder{delay: time.Second}
		relay := outbox.NewRelay(box.Source(), broker, outbox.RelayConfig{Batch: 10, InFlight: 2})
		if err := relay.Health(); err == nil {
			t.Error("Health before Run: got nil, want an error")
		}
		ended := make(chan error, 1)
		go func() { ended <- relay.Run(context.Background()) }()
		for n := range 100 {
			enqueue(t, box, message("", n))
		}
		time.Sleep(1500 * time.Millisecond)
		if err := relay.Run(t.Context()); !errors.Is(err, outbox.ErrRunning) {
			t.Errorf("a second Run: got %v, want ErrRunning", err)
		}
		began := time.Now()
		if err := relay.Shutdown(t.Context()); err != nil {
			t.Errorf("Shutdown: got %v, want nil", err)
		}
		if err := <-ended; err != nil {
			t.Errorf("Run: got %v, want nil", err)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("took %v, want at most the second of what was running", took)
		}
		if got := broker.len() + box.Len(); got != 100 {
			t.Errorf("published and left: got %d, want 100: everything confirmed is deleted", got)
		}
		if err := relay.Health(); err == nil {
			t.Error("Health after Run: got nil, want an error")
		}
	})
}

// A publisher that panics ends nothing: the outcome is unknown, and the panic's value, which may hold a payload, is not told.
func TestPublisherPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box, calls := outboxmem.New(), 0
		var text strings.Builder
		pub := outbox.PublisherFunc(func(_ context.Context, batch []*outbox.Message, result []error) {
			if calls++; calls == 1 {
				panic("payload: " + string(batch[0].Payload))
			}
			clear(result)
		})
		enqueue(t, box, outbox.Message{Topic: "t", Payload: []byte("secret"), Headers: map[string]string{"token": "hidden"}})
		_, stop := start(t, box, pub, outbox.RelayConfig{Log: slog.New(slog.NewTextHandler(&text, nil))})
		time.Sleep(5 * time.Second)
		stop()
		if box.Len() != 0 || calls != 2 {
			t.Errorf("left %d after %d calls, want 0 after 2", box.Len(), calls)
		}
		if s := text.String(); strings.Contains(s, "secret") || strings.Contains(s, "hidden") || !strings.Contains(s, "panicked") {
			t.Errorf("log: got %s, want the panic without payload", s)
		}
	})
}

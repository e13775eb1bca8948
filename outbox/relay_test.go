package outbox_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/outboxmem"
)

// recorder is a broker that keeps everything, and fails when told to.
type recorder struct {
	mu    sync.Mutex
	log   []string // "key/payload" of what was taken, in order
	runs  bool
	delay time.Duration
	fail  func(m *outbox.Message) error // nil: never; the message is not taken
	lie   func(m *outbox.Message) error // the message is taken all the same
	open  map[string]int                // of a key, publications under way
	clash int                           // times that two batches had the same key at once
}

func (r *recorder) KeepsKeyOrder() bool { return r.runs }

func (r *recorder) Publish(ctx context.Context, batch []*outbox.Message, result []error) {
	keys := map[string]bool{}
	for _, m := range batch {
		if m.Key != "" {
			keys[m.Key] = true
		}
	}
	r.mu.Lock()
	if r.open == nil {
		r.open = map[string]int{}
	}
	for k := range keys {
		if r.open[k]++; r.open[k] > 1 {
			r.clash++
		}
	}
	r.mu.Unlock()
	time.Sleep(r.delay)
	r.mu.Lock()
	defer r.mu.Unlock()
	for k := range keys {
		r.open[k]--
	}
	failed := map[string]bool{}
	for i, m := range batch {
		if r.runs && failed[m.Key] && m.Key != "" {
			result[i] = errors.New("an earlier one of the run failed")
			continue
		}
		if r.fail != nil {
			if result[i] = r.fail(m); result[i] != nil {
				failed[m.Key] = true
				continue
			}
		}
		r.log = append(r.log, m.Key+"/"+string(m.Payload))
		result[i] = nil
		if r.lie != nil {
			if result[i] = r.lie(m); result[i] != nil {
				failed[m.Key] = true
			}
		}
	}
}

// first returns the first occurrences, by key.
func (r *recorder) first() map[string][]string {
	r.mu.Lock()
	defer r.mu.Unlock()
	seen := map[string]bool{}
	out := map[string][]string{}
	for _, e := range r.log {
		if seen[e] {
			continue
		}
		seen[e] = true
		for i := range e {
			if e[i] == '/' {
				out[e[:i]] = append(out[e[:i]], e[i+1:])
				break
			}
		}
	}
	return out
}

func (r *recorder) len() int { r.mu.Lock(); defer r.mu.Unlock(); return len(r.log) }

func message(key string, n int) outbox.Message {
	return outbox.Message{Topic: "t", Key: key, Payload: []byte(strconv.Itoa(n))}
}

// start runs a relay until stop is called.
func start(t *testing.T, box *outboxmem.Box, pub outbox.Publisher, cfg outbox.RelayConfig) (relay *outbox.Relay, stop func()) {
	t.Helper()
	return startFrom(t, box.Source(), pub, cfg)
}

func startFrom(t *testing.T, source outbox.Source, pub outbox.Publisher, cfg outbox.RelayConfig) (relay *outbox.Relay, stop func()) {
	t.Helper()
	relay = outbox.NewRelay(source, pub, cfg)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- relay.Run(ctx) }()
	return relay, func() {
		t.Helper()
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: got %v, want nil", err)
		}
	}
}

func TestRelayPublishesInOrder(t *testing.T) {
	for _, runs := range []bool{false, true} {
		t.Run(fmt.Sprintf("runs=%v", runs), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				box, broker := outboxmem.New(), &recorder{runs: runs, delay: time.Millisecond}
				_, stop := start(t, box, broker, outbox.RelayConfig{Batch: 7})
				for n := range 50 {
					for k := range 20 {
						if err := box.Enqueue(t.Context(), message("k"+strconv.Itoa(k), n)); err != nil {
							t.Fatal(err)
						}
					}
				}
				time.Sleep(5 * time.Second)
				stop()
				checkOrder(t, broker, 20, 50)
				if got := broker.len(); got != 1000 {
					t.Errorf("published: got %d, want 1000", got)
				}
				if box.Len() != 0 {
					t.Errorf("left in the box: got %d, want 0", box.Len())
				}
			})
		})
	}
}

func checkOrder(t *testing.T, broker *recorder, keys, each int) {
	t.Helper()
	first := broker.first()
	for k := range keys {
		key := "k" + strconv.Itoa(k)
		var want []string
		for n := range each {
			want = append(want, strconv.Itoa(n))
		}
		if !slices.Equal(first[key], want) {
			t.Errorf("first deliveries of %s: got %v, want 0 to %d in order", key, first[key], each-1)
		}
	}
	if broker.clash > 0 {
		t.Errorf("a key was published twice at once %d times", broker.clash)
	}
}

// A broker that fails, lies about failing and is away may repeat messages, but neither lose nor reorder any.
func TestRelayThroughTrouble(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(strconv.Itoa(int(seed)), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rng, dice := rand.New(rand.NewPCG(seed, 1)), rand.New(rand.NewPCG(seed, 2)) // dice: under the broker's mutex
				box := outboxmem.New(outboxmem.Config{Partitions: 8})
				broker := &recorder{runs: seed%2 == 1, delay: time.Duration(seed%4) * time.Millisecond}
				trouble := func(share int, errs ...error) func(*outbox.Message) error {
					return func(*outbox.Message) error {
						if dice.IntN(100) < share {
							return errs[dice.IntN(len(errs))]
						}
						return nil
					}
				}
				broker.fail = trouble(20, errors.New("no"), outbox.Unavailable(errors.New("away")))
				broker.lie = trouble(10, outbox.UnknownOutcome(errors.New("cut")), context.DeadlineExceeded)
				cfg := outbox.RelayConfig{Lease: 300 * time.Millisecond, Batch: 16, MinBackoff: time.Millisecond, MaxBackoff: 20 * time.Millisecond, MaxAttempts: -1, Sweep: time.Second}
				stops := make([]func(), 3)
				for i := range stops {
					_, stops[i] = start(t, box, broker, cfg)
				}
				for n := range 60 {
					for k := range 12 {
						box.Enqueue(t.Context(), message("k"+strconv.Itoa(k), n))
					}
					box.Enqueue(t.Context(), message("", n))
					time.Sleep(time.Duration(rng.IntN(20)) * time.Millisecond)
					if i := rng.IntN(40); i < len(stops) { // a relay leaves, another joins
						stops[i]()
						_, stops[i] = start(t, box, broker, cfg)
					}
				}
				time.Sleep(20 * time.Second)
				for _, stop := range stops {
					stop()
				}
				checkOrder(t, broker, 12, 60)
				if got := len(broker.first()[""]); got != 60 {
					t.Errorf("messages without key: got %d, want 60", got)
				}
				if box.Len() != 0 {
					t.Errorf("left in the box: got %d, want 0", box.Len())
				}
			})
		})
	}
}

// blind is a source that cannot tell of open transactions.
type blind struct {
	outbox.Source
	outbox.Listener
}

// A late commit with an older number is published at once, and before the next message of its key, however late it is. Of a source that cannot tell of
// open transactions, one that is later than a lag needs a look further back.
func TestRelayLateCommit(t *testing.T) {
	for _, c := range []struct {
		late, want time.Duration
		blind      bool
	}{
		{500 * time.Millisecond, 5 * time.Millisecond, false}, {5 * time.Second, 5 * time.Millisecond, false}, {50 * time.Second, 5 * time.Millisecond, false},
		{500 * time.Millisecond, 5 * time.Millisecond, true}, {5 * time.Second, 1100 * time.Millisecond, true}, {50 * time.Second, 11 * time.Second, true},
	} {
		t.Run(fmt.Sprintf("%v,blind=%v", c.late, c.blind), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				box, broker := outboxmem.New(outboxmem.Config{Partitions: 1}), &recorder{}
				source := box.Source()
				if c.blind {
					source = blind{source, source.(outbox.Listener)}
				}
				relay, stop := startFrom(t, source, broker, outbox.RelayConfig{})
				tx := box.Begin()
				tx.Enqueue(t.Context(), message("late", 1))
				for n := range int(c.late / (100 * time.Millisecond)) {
					box.Enqueue(t.Context(), message("other", n))
					time.Sleep(100 * time.Millisecond)
				}
				committed := time.Now()
				tx.Commit()
				if !c.blind {
					box.Enqueue(t.Context(), message("late", 2))
				}
				for len(broker.first()["late"]) == 0 {
					time.Sleep(time.Millisecond)
					if time.Since(committed) > 11*time.Second {
						t.Fatal("not published within a sweep")
					}
				}
				if took := time.Since(committed); took > c.want {
					t.Errorf("published after %v, want at most %v", took, c.want)
				}
				if got := relay.Stats().Rescued; c.blind && c.late > time.Second && got != 1 {
					t.Errorf("rescued: got %d, want 1", got)
				}
				time.Sleep(time.Second) // the relay may read the second apart from the first, and a relay that stops reads no more
				stop()
				if got := broker.first()["late"]; !c.blind && !slices.Equal(got, []string{"1", "2"}) {
					t.Errorf("first deliveries: got %v, want 1 and 2", got)
				}
			})
		})
	}
}

// While a relay pages through a backlog, what commits behind it is not overtaken by the next message of its key, which comes in at the end of the backlog.
func TestRelayLateCommitBehindBacklog(t *testing.T) {
	for backlog := 50; backlog <= 800; backlog += 50 {
		synctest.Test(t, func(t *testing.T) {
			box, broker := outboxmem.New(outboxmem.Config{Partitions: 1}), &recorder{delay: time.Millisecond}
			tx := box.Begin()
			tx.Enqueue(t.Context(), message("late", 1))
			for n := range backlog {
				box.Enqueue(t.Context(), message(fmt.Sprint("other", n%20), n/20))
			}
			_, stop := start(t, box, broker, outbox.RelayConfig{Batch: 7, Sweep: time.Hour, Lag: 10 * time.Second})
			time.Sleep(20 * time.Millisecond)
			tx.Commit()
			box.Enqueue(t.Context(), message("late", 2))
			time.Sleep(30 * time.Second)
			stop()
			if got := broker.first()["late"]; !slices.Equal(got, []string{"1", "2"}) {
				t.Errorf("behind %d: first deliveries: got %v, want 1 and 2", backlog, got)
			}
		})
	}
}

func TestRelayShares(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box := outboxmem.New(outboxmem.Config{Partitions: 16})
		var relays []*outbox.Relay
		var stops []func()
		for range 5 {
			r, stop := start(t, box, &recorder{}, outbox.RelayConfig{})
			relays, stops = append(relays, r), append(stops, stop)
			time.Sleep(10 * time.Second)
			sum := 0
			for _, r := range relays {
				got, fair := r.Stats().Owned, 16/len(relays)
				if got != fair && got != fair+1 {
					t.Errorf("%d relays: one owns %d, want %d or %d", len(relays), got, fair, fair+1)
				}
				sum += got
			}
			if sum != 16 {
				t.Errorf("%d relays own %d partitions together, want 16", len(relays), sum)
			}
		}
		stops[0]()
		time.Sleep(time.Second)
		for _, r := range relays[1:] {
			if got := r.Stats().Owned; got != 4 {
				t.Errorf("after one left: a relay owns %d, want 4", got)
			}
			if err := r.Health(); err != nil {
				t.Errorf("Health: got %v, want nil", err)
			}
		}
		for _, stop := range stops[1:] {
			stop()
		}
	})
}

// checked is a source whose Check fails as it is told.
type checked struct {
	outbox.Source
	check func() error
}

func (c checked) Check(context.Context) error { return c.check() }

// hangs are a source and a publisher whose checks answer when their context ends.
type (
	hangingSource    struct{ outbox.Source }
	hangingPublisher struct{ *recorder }
)

func (hangingSource) Check(ctx context.Context) error {
	<-ctx.Done()
	return fmt.Errorf("dial: %w", ctx.Err())
}

func (hangingPublisher) Check(ctx context.Context, _ time.Duration) error {
	<-ctx.Done()
	return fmt.Errorf("dial: %w", ctx.Err())
}

// A check that hangs is ended by Shutdown and by the end of Run's context, as anything later is.
func TestStopDuringCheck(t *testing.T) {
	for _, what := range []string{"store", "publisher"} {
		for _, how := range []string{"Shutdown", "context"} {
			t.Run(what+"/"+how, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var source outbox.Source = outboxmem.New().Source()
					var pub outbox.Publisher = hangingPublisher{&recorder{}}
					if what == "store" {
						source, pub = hangingSource{source}, &recorder{}
					}
					relay := outbox.NewRelay(source, pub, outbox.RelayConfig{})
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					ended := make(chan error, 1)
					go func() { ended <- relay.Run(ctx) }()
					time.Sleep(time.Second)
					began := time.Now()
					if how == "context" {
						cancel()
					} else {
						within, done := context.WithTimeout(t.Context(), 10*time.Second)
						defer done()
						if err := relay.Shutdown(within); err != nil {
							t.Errorf("Shutdown: got %v, want nil", err)
						}
						if d := time.Since(began); d > time.Second {
							t.Errorf("Shutdown took %v, want the check to end at once", d)
						}
						cancel()
					}
					if err := <-ended; err != nil {
						t.Errorf("Run: got %v, want nil", err)
					}
				})
			})
		}
	}
}

// slowSource is a source whose first checks hang, as on a connection whose other end is gone.
type slowSource struct {
	outbox.Source
	hang *int
}

func (s slowSource) Check(ctx context.Context) error {
	if *s.hang--; *s.hang < 0 {
		return nil
	}
	<-ctx.Done()
	return ctx.Err()
}

// A check that gets no answer is given up and made again, and Health tells of it; a publisher's is then left to the publications.
func TestCheckGetsNoAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box, broker := outboxmem.New(), &recorder{}
		box.Enqueue(t.Context(), message("a", 1))
		hang := 3
		relay, stop := startFrom(t, slowSource{box.Source(), &hang}, hangingPublisher{broker}, outbox.RelayConfig{Lease: 10 * time.Second})
		time.Sleep(25 * time.Second)
		if relay.Health() == nil {
			t.Error("got health nil after 25 s of checks without an answer")
		}
		time.Sleep(35 * time.Second)
		if got := broker.first()["a"]; len(got) != 1 || relay.Health() != nil {
			t.Errorf("got %v published and health %v, want the message and nil", got, relay.Health())
		}
		stop()
	})
}

// TestRunWithoutDatabase starts a relay whose database is away: it waits for it, says so when asked, and ends when told to.
func TestRunWithoutDatabase(t *testing.T) {
	refused := errors.New("connection refused")
	t.Run("comes back", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			box, broker := outboxmem.New(), &recorder{}
			box.Enqueue(t.Context(), message("a", 1))
			back := time.Now().Add(time.Minute)
			relay, stop := startFrom(t, checked{box.Source(), func() error {
				if time.Now().Before(back) {
					return outbox.SourceUnavailable(refused)
				}
				return nil
			}}, broker, outbox.RelayConfig{})
			time.Sleep(50 * time.Second)
			if err := relay.Health(); !errors.Is(err, refused) {
				t.Errorf("got health %v while the database is away, want %v", err, refused)
			}
			time.Sleep(50 * time.Second)
			if got := broker.first()["a"]; len(got) != 1 || relay.Health() != nil {
				t.Errorf("got %v published and health %v, want the message and nil", got, relay.Health())
			}
			stop()
		})
	})
	t.Run("stopped", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			for _, shut := range []bool{true, false} {
				relay, stop := startFrom(t, checked{outboxmem.New().Source(), func() error { return outbox.SourceUnavailable(refused) }}, &recorder{}, outbox.RelayConfig{})
				time.Sleep(time.Minute)
				began := time.Now()
				if shut {
					if err := relay.Shutdown(t.Context()); err != nil {
						t.Errorf("Shutdown: got %v", err)
					}
				}
				stop()
				if d := time.Since(began); d > time.Second {
					t.Errorf("the end took %s", d)
				}
			}
		})
	})
	t.Run("for good", func(t *testing.T) {
		old := errors.New("newer schema")
		relay := outbox.NewRelay(checked{outboxmem.New().Source(), func() error { return old }}, &recorder{}, outbox.RelayConfig{})
		if err := relay.Run(t.Context()); !errors.Is(err, old) {
			t.Errorf("got %v, want %v", err, old)
		}
	})
}

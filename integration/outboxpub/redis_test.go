package outboxpub_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/outboxtest"
	"github.com/backstay-go/backstay/outbox/redispub"
	"github.com/redis/go-redis/v9"
)

const redisAddr = "127.0.0.1:6379"

func redisClient(tb testing.TB) *redis.Client {
	tb.Helper()
	need(tb, "Redis", redisAddr)
	client := redis.NewClient(&redis.Options{Addr: redisAddr})
	tb.Cleanup(func() { _ = client.Close() })
	return client
}

func newRedisStream(tb testing.TB, client *redis.Client) string {
	name := unique("bs_outboxpub")
	tb.Cleanup(func() { client.Del(context.Background(), name) })
	return name
}

func readRedis(tb testing.TB, client *redis.Client, stream string, n int) []*outbox.Message {
	tb.Helper()
	until := time.Now().Add(2 * time.Second)
	for {
		entries, err := client.XRange(context.Background(), stream, "-", "+").Result()
		if err != nil {
			tb.Fatal(err)
		}
		if len(entries) < n && time.Now().Before(until) {
			continue
		}
		var got []*outbox.Message
		for _, e := range entries {
			got = append(got, redispub.Decode(stream, e))
		}
		return got
	}
}

// Acceptance case 34, the first half: Redis 7 holds a repetition twice, with the same field id.
func TestRedisConformance(t *testing.T) {
	client := redisClient(t)
	proxy := newProxy(t, redisAddr)
	outboxtest.TestPublisher(t, outboxtest.Broker{
		New: func(testing.TB) outbox.Publisher {
			return redispub.New(&redis.UniversalOptions{Addrs: []string{proxy.Addr()}, DialerRetries: 1}, redispub.Config{MaxMessage: 1 << 20})
		},
		Topic:    func(tb testing.TB) string { return newRedisStream(tb, client) },
		Read:     func(tb testing.TB, topic string, n int) []*outbox.Message { return readRedis(tb, client, topic, n) },
		TooLarge: 2 << 20,
		Cut:      proxy.Cut, Mend: proxy.Mend, Deafen: proxy.Deafen, Hear: proxy.Hear,
	})
}

func TestRedisStates(t *testing.T) {
	client := redisClient(t)
	existing := newRedisStream(t, client)
	text := newRedisStream(t, client)
	if err := client.Set(t.Context(), text, "not a stream", 0).Err(); err != nil {
		t.Fatal(err)
	}
	p := redispub.New(&redis.UniversalOptions{Addrs: []string{redisAddr}}, redispub.Config{Existing: true})
	defer p.Close()
	batch := []*outbox.Message{newMessage("bs_nowhere", "a", "x"), newMessage(text, "b", "x"), newMessage(existing, "c", "x")}
	if err := client.XAdd(t.Context(), &redis.XAddArgs{Stream: existing, Values: []string{"a", "b"}}).Err(); err != nil {
		t.Fatal(err)
	}
	result := results(3)
	p.Publish(t.Context(), batch, result)
	if !errors.Is(result[0], redispub.ErrNoStream) || !errors.Is(result[0], outbox.ErrUnavailable) {
		t.Errorf("got %v for a missing stream, want ErrNoStream", result[0])
	}
	if !errors.Is(result[1], outbox.ErrUnavailable) {
		t.Errorf("got %v for a key that is no stream, want ErrUnavailable", result[1])
	}
	if result[2] != nil {
		t.Errorf("got %v, want nil", result[2])
	}
	check := redispub.New(&redis.UniversalOptions{Addrs: []string{redisAddr}}, redispub.Config{Existing: true, Streams: []string{"bs_nowhere", text}, Producer: "orders"})
	defer check.Close()
	err := check.Check(t.Context(), time.Minute)
	if !errors.Is(err, redispub.ErrNoStream) || errors.Is(err, outbox.ErrUnavailable) {
		t.Errorf("Check: got %v, want ErrNoStream, fatal", err)
	}
}

// Acceptance case 35: with Replicas, what too few replicas have is not a success. This server has none.
func TestRedisReplicas(t *testing.T) {
	client := redisClient(t)
	stream := newRedisStream(t, client)
	p := redispub.New(&redis.UniversalOptions{Addrs: []string{redisAddr}}, redispub.Config{Replicas: 1, ReplicaWait: 50 * time.Millisecond})
	defer p.Close()
	result := results(2)
	p.Publish(t.Context(), []*outbox.Message{newMessage(stream, "a", "x"), newMessage(stream, "b", "x")}, result)
	for i, err := range result {
		if !errors.Is(err, redispub.ErrReplicas) || !errors.Is(err, outbox.ErrUnknownOutcome) {
			t.Errorf("result[%d]: got %v, want ErrReplicas, an unknown outcome", i, err)
		}
	}
	if got := readRedis(t, client, stream, 2); len(got) != 2 {
		t.Errorf("the primary has %d messages, want 2", len(got))
	}
}

// Acceptance case 34, the second half: on Redis 8.6 the message's id goes where the server deduplicates. No such server is at hand, so
// a fake one carries out XADD … IDMP as its documentation says.
func TestRedisDeduplication(t *testing.T) {
	fake := newFakeRedis(t, "8.6.0")
	p := redispub.New(&redis.UniversalOptions{Addrs: []string{fake.Addr()}, Protocol: 2, DisableIdentity: true}, redispub.Config{Producer: "orders"})
	defer p.Close()
	if err := p.Check(t.Context(), time.Minute); err != nil {
		t.Errorf("Check: got %v, want nil", err)
	}
	m := newMessage("stream", "k", "x")
	for range 2 {
		result := results(1)
		p.Publish(t.Context(), []*outbox.Message{m}, result)
		if result[0] != nil {
			t.Errorf("got %v, want nil", result[0])
		}
	}
	if n := fake.entries("stream"); n != 1 {
		t.Errorf("got %d entries, want 1; the commands were %q", n, fake.seen())
	}
	old := newFakeRedis(t, "8.4.2")
	q := redispub.New(&redis.UniversalOptions{Addrs: []string{old.Addr()}, Protocol: 2, DisableIdentity: true}, redispub.Config{Producer: "orders"})
	defer q.Close()
	if err := q.Check(t.Context(), time.Minute); !errors.Is(err, redispub.ErrVersion) {
		t.Errorf("Check: got %v from 8.4.2, want ErrVersion", err)
	}
}

// fakeRedis answers HELLO, INFO and XADD.
type fakeRedis struct {
	net.Listener
	version string

	mu       sync.Mutex
	ids      map[string]map[string]int // by stream: producer and id
	commands [][]string
}

func newFakeRedis(tb testing.TB, version string) *fakeRedis {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	f := &fakeRedis{Listener: l, version: version, ids: make(map[string]map[string]int)}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				f.serve(c)
			})
		}
	})
	tb.Cleanup(func() {
		_ = l.Close()
		wg.Wait()
	})
	return f
}

func (f *fakeRedis) Addr() string { return f.Listener.Addr().String() }

func (f *fakeRedis) entries(stream string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.ids[stream])
}

func (f *fakeRedis) seen() [][]string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.commands
}

func (f *fakeRedis) serve(c net.Conn) {
	r := bufio.NewReader(c)
	for {
		args, err := readCommand(r)
		if err != nil {
			return
		}
		answer := "-ERR unknown command\r\n"
		switch strings.ToLower(args[0]) {
		case "info":
			text := "redis_version:" + f.version + "\r\nmaxmemory_policy:noeviction\r\n"
			answer = fmt.Sprintf("$%d\r\n%s\r\n", len(text), text)
		case "xadd":
			answer = f.add(args)
		}
		if _, err := io.WriteString(c, answer); err != nil {
			return
		}
	}
}

func (f *fakeRedis) add(args []string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.commands = append(f.commands, args)
	stream, name := args[1], strconv.Itoa(len(f.commands))
	if i := slices.IndexFunc(args, func(s string) bool { return strings.EqualFold(s, "IDMP") }); i > 0 {
		name = args[i+1] + "/" + args[i+2]
	}
	if f.ids[stream] == nil {
		f.ids[stream] = make(map[string]int)
	}
	if _, again := f.ids[stream][name]; !again {
		f.ids[stream][name] = len(f.ids[stream]) + 1
	}
	id := fmt.Sprintf("%d-0", f.ids[stream][name])
	return fmt.Sprintf("$%d\r\n%s\r\n", len(id), id)
}

func readCommand(r *bufio.Reader) ([]string, error) {
	line, err := r.ReadString('\n')
	if err != nil {
		return nil, err
	}
	n, err := strconv.Atoi(strings.TrimSpace(line[1:]))
	if err != nil {
		return nil, err
	}
	args := make([]string, n)
	for i := range args {
		if line, err = r.ReadString('\n'); err != nil {
			return nil, err
		}
		size, err := strconv.Atoi(strings.TrimSpace(line[1:]))
		if err != nil {
			return nil, err
		}
		buf := make([]byte, size+2)
		if _, err := io.ReadFull(r, buf); err != nil {
			return nil, err
		}
		args[i] = string(buf[:size])
	}
	return args, nil
}

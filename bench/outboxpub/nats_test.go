// Package outboxpub measures how fast messages get through a publisher.
package outboxpub

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/natspub"
	"github.com/backstay-go/backstay/outbox/outboxmem"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	size  = 300 // bytes of payload
	batch = 500 // the relay's default
)

// stream starts a server with JetStream and one stream in memory, so that the disk is not measured.
func stream(b *testing.B) jetstream.JetStream {
	b.Helper()
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: -1, JetStream: true, StoreDir: b.TempDir(), NoLog: true, NoSigs: true})
	if err != nil {
		b.Fatal(err)
	}
	s.Start()
	b.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	if !s.ReadyForConnections(10 * time.Second) {
		b.Fatal("the NATS server does not come up")
	}
	nc, err := nats.Connect(s.ClientURL(), nats.MaxReconnects(-1))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(nc.Close)
	js, err := jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(4*batch))
	if err != nil {
		b.Fatal(err)
	}
	_, err = js.CreateStream(b.Context(), jetstream.StreamConfig{Name: "s", Subjects: []string{"orders"}, Storage: jetstream.MemoryStorage, MaxBytes: 256 << 20})
	if err != nil {
		b.Fatal(err)
	}
	return js
}

// BenchmarkJetStream delivers the same number of messages in three ways, in turns, so that whatever else the machine does falls on all of them,
// and reports the median rate of the first and the median of each other's rate as a part of it:
//
//	async     the client's own asynchronous publish with ids, 2,000 on their way
//	natspub   the publisher: 4 calls at once of 500 messages each, as a relay makes them
//	relay     a relay that drains an outbox in memory through the publisher
//
// All wait for every acknowledgement. The stream is in memory and in the same process.
func BenchmarkJetStream(b *testing.B) {
	const round = 20_000
	js := stream(b)
	p := natspub.New(js)
	defer p.Close()
	ways := []struct {
		name string
		way  func(*testing.B, string) time.Duration
	}{
		{"async", func(b *testing.B, id string) time.Duration { return async(b, js, id, round) }},
		{"natspub", func(b *testing.B, id string) time.Duration { return direct(b, p, id, round) }},
		{"relay", func(b *testing.B, id string) time.Duration { return relay(b, p, id, round) }},
	}
	rates := make([][]float64, len(ways))
	for n := 0; b.Loop(); n++ {
		var first float64
		for i, w := range ways {
			rate := round / w.way(b, fmt.Sprintf("%s-%d-", w.name, n)).Seconds()
			if i == 0 {
				first = rate
				rates[0] = append(rates[0], rate)
			} else {
				rates[i] = append(rates[i], rate/first)
			}
		}
	}
	b.ReportMetric(median(rates[0]), "async-msgs/s")
	b.ReportMetric(median(rates[1]), "natspub/async")
	b.ReportMetric(median(rates[2]), "relay/async")
}

func median(all []float64) float64 {
	slices.Sort(all)
	return all[len(all)/2]
}

func async(b *testing.B, js jetstream.JetStream, id string, n int) time.Duration {
	payload := make([]byte, size)
	began := time.Now()
	for i := range n {
		m := &nats.Msg{Subject: "orders", Data: payload, Header: nats.Header{"Nats-Msg-Id": {id + strconv.Itoa(i)}}}
		for {
			_, err := js.PublishMsgAsync(m)
			if err == nil {
				break
			}
			if !errors.Is(err, jetstream.ErrTooManyStalledMsgs) {
				b.Fatal(err)
			}
		}
	}
	select {
	case <-js.PublishAsyncComplete():
	case <-time.After(30 * time.Second):
		b.Fatal("not all acknowledged")
	}
	return time.Since(began)
}

func direct(b *testing.B, p outbox.Publisher, id string, n int) time.Duration {
	var wg sync.WaitGroup
	var next atomic.Int64
	began := time.Now()
	for range 4 {
		wg.Go(func() {
			payload := make([]byte, size)
			messages, result := make([]*outbox.Message, batch), make([]error, batch)
			for {
				from := int(next.Add(batch)) - batch
				if from >= n {
					return
				}
				for i := range messages {
					messages[i] = &outbox.Message{ID: id + strconv.Itoa(from+i), Topic: "orders", Key: "key-" + strconv.Itoa(i), Payload: payload}
				}
				p.Publish(context.Background(), messages, result)
				for _, err := range result {
					if err != nil {
						b.Error(err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
	return time.Since(began)
}

func relay(b *testing.B, p outbox.Publisher, id string, n int) time.Duration {
	box := outboxmem.New()
	payload := make([]byte, size)
	for i := range n {
		if err := box.Enqueue(context.Background(), outbox.Message{ID: id + strconv.Itoa(i), Topic: "orders", Key: "key-" + strconv.Itoa(i%1000), Payload: payload}); err != nil {
			b.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	counted := &counting{Publisher: p, want: int64(n), done: make(chan struct{})}
	r := outbox.NewRelay(box.Source(), counted, outbox.RelayConfig{})
	ended := make(chan error, 1)
	began := time.Now()
	go func() { ended <- r.Run(ctx) }()
	select {
	case <-counted.done:
	case <-ctx.Done():
		b.Fatal("not all published")
	}
	took := time.Since(began)
	cancel()
	<-ended
	return took
}

// counting tells when as many messages as wanted are successes.
type counting struct {
	outbox.Publisher
	want int64
	got  atomic.Int64
	done chan struct{}
}

func (c *counting) Publish(ctx context.Context, batch []*outbox.Message, result []error) {
	c.Publisher.Publish(ctx, batch, result)
	var n int64
	for _, err := range result {
		if err == nil {
			n++
		}
	}
	if c.got.Add(n) == c.want && n > 0 {
		close(c.done)
	}
}

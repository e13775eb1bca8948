package broker

import (
	"context"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// The names on the broker.
const (
	Stream   = "SHOP"
	Topic    = "shop.orders"   // the events of orders
	Consumer = "notifications" // who reads them
)

// Connect returns a connection that outlives every outage of the broker.
func Connect(url, name string) (*nats.Conn, jetstream.JetStream, error) {
	nc, err := nats.Connect(url, nats.Name(name),
		nats.MaxReconnects(-1),
		nats.RetryOnFailedConnect(true),
		nats.ReconnectWait(100*time.Millisecond),
		nats.ReconnectJitter(100*time.Millisecond, 100*time.Millisecond),
		nats.IgnoreDiscoveredServers(), // the address given may be that of a proxy
	)
	if err != nil {
		return nil, nil, err
	}
	js, err := jetstream.New(nc)
	if err != nil {
		nc.Close()
		return nil, nil, err
	}
	return nc, js, nil
}

// remembers is how long the stream tells a message that it has had already: long enough for the relay's next try. A message that is published again later is the inbox's
// to tell. The two minutes that are the server's default are, at the shop's size, a quarter of its memory.
const remembers = 10 * time.Second

// Prepare makes the stream and its consumer; with fresh, anew. What is acknowledged leaves the stream, so that it holds what is on its way and no more.
func Prepare(ctx context.Context, url string, fresh bool) error {
	nc, js, err := Connect(url, "shop")
	if err != nil {
		return err
	}
	defer nc.Close()
	if fresh {
		_ = js.DeleteStream(ctx, Stream) // there may be none
	}
	_, err = js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{Name: Stream, Subjects: []string{"shop.>"}, Retention: jetstream.WorkQueuePolicy, Duplicates: remembers})
	if err != nil {
		return err
	}
	_, err = js.CreateOrUpdateConsumer(ctx, Stream, jetstream.ConsumerConfig{
		Durable: Consumer, AckPolicy: jetstream.AckExplicitPolicy, AckWait: 3 * time.Second, MaxAckPending: 256,
	})
	return err
}

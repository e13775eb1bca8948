package amqppub

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/consumer"
	amqp "github.com/rabbitmq/amqp091-go"
)

// Consume hands the messages of a queue to h and acknowledges each after h has returned nil, that is, after its effect was committed. It
// makes a connection of its own, and a new one when that is lost, pausing 100 ms to 5 s. It returns nil when ctx is over and the messages in
// hand are settled; an error when the queue does not exist or the broker refuses access.
//
// For the order of a key, the queue should have one consumer (x-single-active-consumer): several in turn share its messages out. A rejected message goes to the queue's dead-letter exchange, and without one it is dropped by the broker. RabbitMQ closes the
// channel of a consumer that holds a message longer than its consumer_timeout (30 minutes by default); keep tries in place below it.
//
// A message that cannot be decoded is rejected. One without an id, that is, of another origin, keeps an empty one, which an inbox refuses.
func Consume(ctx context.Context, broker Config, queue string, c consumer.Config, h consumer.Handler) error {
	if err := errors.Join(broker.Validate(), c.Validate()); err != nil {
		return err
	}
	broker = broker.withDefaults()
	pause := firstPause
	for ctx.Err() == nil {
		began := time.Now()
		err := consumeOnce(ctx, broker, queue, c.WithDefaults(), h)
		if ctx.Err() != nil {
			return nil
		}
		if fatal(err) {
			return fmt.Errorf("amqppub: consuming %q: %w", queue, err)
		}
		if time.Since(began) > lastPause {
			pause = firstPause
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause/2 + rand.N(pause/2)):
		}
		pause = min(2*pause, lastPause)
	}
	return nil
}

const (
	firstPause = 100 * time.Millisecond
	lastPause  = 5 * time.Second
	prefetch   = 64 // messages in hand and waiting, per lane at most
)

// fatal tells what waiting will not mend.
func fatal(err error) bool {
	var answer *amqp.Error
	if !errors.As(err, &answer) {
		return false
	}
	switch answer.Code {
	case amqp.NotFound, amqp.AccessRefused, amqp.NotAllowed, amqp.ResourceLocked:
		return true
	}
	return false
}

// consumeOnce consumes until the connection is lost or ctx is over.
func consumeOnce(ctx context.Context, broker Config, queue string, c consumer.Config, h consumer.Handler) error {
	conn, sock, err := dial(ctx, broker)
	if err != nil {
		return err
	}
	defer func() { _ = conn.CloseDeadline(time.Now().Add(broker.Wait)) }()

	deliveries, err := subscribe(ctx, conn, sock, queue, prefetch+c.Lanes)
	if err != nil {
		return err
	}
	return consumer.Run(ctx, c, h, func(ctx context.Context) (consumer.Delivery, error) {
		for {
			select {
			case <-ctx.Done():
				return consumer.Delivery{}, ctx.Err()
			case d, ok := <-deliveries:
				if !ok {
					return consumer.Delivery{}, ErrLost
				}
				m, err := Decode(&d)
				if err != nil {
					_ = d.Reject(false)
					continue
				}
				m.Attempt = 1
				if d.Redelivered {
					m.Attempt = 2
				}
				return delivery(m, &d), nil
			}
		}
	})
}

// subscribe asks the broker for deliveries; it returns when ctx is over, at the cost of the connection.
func subscribe(ctx context.Context, conn *amqp.Connection, sock *socket, queue string, window int) (<-chan amqp.Delivery, error) {
	defer context.AfterFunc(ctx, func() { _ = sock.Close() })()
	ch, err := conn.Channel()
	if err != nil {
		return nil, err
	}
	if err := ch.Qos(window, 0, false); err != nil {
		return nil, err
	}
	return ch.Consume(queue, "", false, false, false, false, nil)
}

// delivery drops the errors of settling: the message comes again, and the inbox recognises it.
func delivery(m *outbox.Message, d *amqp.Delivery) consumer.Delivery {
	return consumer.Delivery{
		Message: m,
		Settle: func(v consumer.Verdict) {
			switch v {
			case consumer.Done:
				_ = d.Ack(false)
			case consumer.Rejected:
				_ = d.Reject(false)
			}
			// What is left is requeued by the end of the connection, in its place. Requeued one by one while the
			// channel still consumes, messages would come back to it and lose their order.
		},
	}
}

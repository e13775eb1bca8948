package amqppub

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"github.com/backstay-go/backstay/outbox"
	amqp "github.com/rabbitmq/amqp091-go"
)

// socket is the connection under an AMQP connection. The client writes without a deadline and a broker under alarm stops reading, so
// that a write, and everything that waits for its lock, would hang for as long as the alarm lasts.
type socket struct {
	net.Conn
	wait   time.Duration
	opened atomic.Bool // after the handshake, whose deadline covers all of it
}

func (s *socket) Write(b []byte) (int, error) {
	if s.opened.Load() {
		if err := s.SetWriteDeadline(time.Now().Add(s.wait)); err != nil {
			return 0, err
		}
	}
	return s.Conn.Write(b)
}

// cut makes a write that is blocked just now fail.
func (s *socket) cut() { _ = s.SetWriteDeadline(time.Unix(1, 0)) }

// dial makes a connection. It returns when ctx is over. Errors are marked [outbox.ErrUnavailable] and hold nothing of the URL.
func dial(ctx context.Context, c Config) (*amqp.Connection, *socket, error) {
	var sock *socket
	var stop func() bool
	conn, err := amqp.DialConfig(c.URL, amqp.Config{
		TLSClientConfig: c.TLS.Clone(),
		Heartbeat:       c.Heartbeat,
		Properties:      amqp.Table{"connection_name": c.Name, "product": "backstay"},
		Dial: func(network, addr string) (net.Conn, error) {
			raw, err := (&net.Dialer{Timeout: c.Wait}).DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			sock = &socket{Conn: raw, wait: c.Wait}
			stop = context.AfterFunc(ctx, func() { _ = raw.Close() })
			return sock, raw.SetDeadline(time.Now().Add(c.Wait)) // for the handshake; the client clears it
		},
	})
	if stop != nil && !stop() && err == nil {
		_ = conn.CloseDeadline(time.Now())
		err = context.Cause(ctx)
	}
	if err != nil {
		return nil, nil, outbox.Unavailable(fmt.Errorf("amqppub: connecting: %w", err))
	}
	sock.opened.Store(true)
	return conn, sock, nil
}

// connect returns the session, a new one when the last was lost. One caller dials; the others wait for it.
func (p *Publisher) connect(ctx context.Context) (*session, error) {
	if s, err := p.current(); s != nil || err != nil {
		return s, err
	}
	select {
	case <-p.dialling:
		defer func() { p.dialling <- struct{}{} }()
	case <-ctx.Done():
		return nil, outbox.Unavailable(fmt.Errorf("amqppub: connecting: %w", context.Cause(ctx)))
	}
	if s, err := p.current(); s != nil || err != nil {
		return s, err
	}
	conn, sock, err := dial(ctx, p.config)
	if err != nil {
		return nil, err
	}
	defer context.AfterFunc(ctx, func() { _ = sock.Close() })() // the client's own calls know no deadline
	s, err := newSession(conn, sock, p)
	if err != nil {
		return nil, outbox.Unavailable(fmt.Errorf("amqppub: opening a channel: %w", err))
	}
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		_ = s.close(p.config.Wait)
		return nil, outbox.Unavailable(ErrClosed)
	}
	p.session = s
	p.mu.Unlock()
	return s, nil
}

// current returns the session if there is a living one.
func (p *Publisher) current() (*session, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, outbox.Unavailable(ErrClosed)
	}
	if p.session != nil && p.session.over() {
		old := p.session
		p.session = nil
		p.closing.Go(func() { _ = old.close(p.config.Wait) }) // only its channel may be lost, but it is not used again
	}
	return p.session, nil
}

// Check implements [outbox.Checker]. Over a connection of its own it looks for the exchange and for each of [Config].Queues, and reports
// [ErrNoExchange] and [ErrNoQueue], joined. A broker that does not answer is marked [outbox.ErrUnavailable]. RabbitMQ has no window of duplicates, so horizon
// is not looked at.
func (p *Publisher) Check(ctx context.Context, _ time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, 2*p.config.Wait)
	defer cancel()
	conn, sock, err := dial(ctx, p.config)
	if err != nil {
		return err
	}
	until := time.Now().Add(p.config.Wait)
	defer func() { _ = conn.CloseDeadline(until) }()
	defer context.AfterFunc(ctx, func() { _ = sock.Close() })()

	var faults []error
	look := func(missing error, name string, declare func(*amqp.Channel) error) error {
		ch, err := conn.Channel() // one each, since the broker closes it for a thing that is missing
		if err != nil {
			return err
		}
		defer ch.Close()
		var answer *amqp.Error
		err = declare(ch)
		if errors.As(err, &answer) && answer.Code == amqp.NotFound {
			faults = append(faults, fmt.Errorf("%w: %q", missing, name))
			return nil
		}
		return err
	}
	if p.config.Exchange != "" {
		err = look(ErrNoExchange, p.config.Exchange, func(ch *amqp.Channel) error {
			return ch.ExchangeDeclarePassive(p.config.Exchange, amqp.ExchangeTopic, true, false, false, false, nil)
		})
	}
	for _, queue := range p.config.Queues {
		if err != nil {
			break
		}
		err = look(ErrNoQueue, queue, func(ch *amqp.Channel) error {
			_, err := ch.QueueDeclarePassive(queue, true, false, false, false, nil)
			return err
		})
	}
	if faults == nil && err != nil {
		return outbox.Unavailable(fmt.Errorf("amqppub: asking the broker: %w", err))
	}
	return errors.Join(append(faults, err)...)
}

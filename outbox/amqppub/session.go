package amqppub

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/backstay-go/backstay/outbox"
	amqp "github.com/rabbitmq/amqp091-go"
)

var (
	// ErrUnroutable says that no queue took the message. It is marked [outbox.ErrUnavailable]: a queue may be bound later.
	ErrUnroutable = errors.New("amqppub: no queue takes the message")

	// ErrRefused says that the broker answered with a nack.
	ErrRefused = errors.New("amqppub: refused by the broker")

	// ErrBlocked says that the broker takes no messages because its memory or disk runs short. The message was not sent.
	ErrBlocked = errors.New("amqppub: the broker is under alarm")

	// ErrNoExchange says that the exchange does not exist. The message was not stored.
	ErrNoExchange = errors.New("amqppub: no such exchange")

	// ErrNoQueue is what [Publisher.Check] reports for a queue that does not exist.
	ErrNoQueue = errors.New("amqppub: no such queue")

	// ErrNoConfirm says that no confirm came in time.
	ErrNoConfirm = errors.New("amqppub: no confirm in time")

	// ErrLost says that the connection was lost before the confirm came.
	ErrLost = errors.New("amqppub: connection lost")

	// ErrClosed says that the publisher was closed.
	ErrClosed = errors.New("amqppub: closed")
)

// session is one connection with its one channel, from open to lost. A publisher replaces it and never revives it, since the numbers
// of confirms begin again with each channel.
//
// Lock order: turn before mu. The reader takes mu only; were it to wait for turn, the client would wait for the reader with the locks held that a
// publish needs (amqp091-go issues 46, 122 and 182).
type session struct {
	conn   *amqp.Connection
	ch     *amqp.Channel
	socket *socket
	owner  *Publisher

	turn    chan struct{} // holds a token; who has it may publish
	blocked atomic.Bool
	ended   chan struct{} // closed by the reader when it returns

	mu       sync.Mutex
	waiting  map[uint64]slot  // by delivery tag; guarded by mu
	returned map[string]error // message ids that came back, until their confirm; guarded by mu
	lost     error            // why nothing can be published any more; guarded by mu
}

type slot struct {
	flight *flight
	index  int
	id     string
}

// flight is one batch. Its fields are guarded by the session's mu until done is closed.
type flight struct {
	result []error
	left   int
	given  bool // given up: result belongs to the caller again
	done   chan struct{}
}

func newSession(conn *amqp.Connection, sock *socket, p *Publisher) (*session, error) {
	ch, err := conn.Channel()
	if err != nil {
		_ = conn.CloseDeadline(time.Now().Add(p.config.Wait))
		return nil, err
	}
	s := &session{
		conn: conn, ch: ch, socket: sock, owner: p,
		turn: make(chan struct{}, 1), ended: make(chan struct{}),
		waiting: make(map[uint64]slot), returned: make(map[string]error),
	}
	s.turn <- struct{}{}
	// Without buffers: the client hands over a return before it reads the confirm that follows, so the reader sees them in order.
	r := reader{
		returns:  ch.NotifyReturn(make(chan amqp.Return)),
		confirms: ch.NotifyPublish(make(chan amqp.Confirmation)),
		closed:   ch.NotifyClose(make(chan *amqp.Error, 1)),
		blocking: conn.NotifyBlocked(make(chan amqp.Blocking)),
	}
	go s.read(r)
	if err := ch.Confirm(false); err != nil {
		_ = s.close(p.config.Wait)
		return nil, err
	}
	return s, nil
}

type reader struct {
	returns  chan amqp.Return
	confirms chan amqp.Confirmation
	closed   chan *amqp.Error
	blocking chan amqp.Blocking
}

// read is the only reader of the session's channels. It ends when the client has closed all of them.
func (s *session) read(r reader) {
	defer close(s.ended)
	var cause *amqp.Error
	for r.returns != nil || r.confirms != nil || r.closed != nil {
		select {
		case ret, ok := <-r.returns:
			if !ok {
				r.returns = nil
				break
			}
			s.mu.Lock()
			s.returned[ret.MessageId] = fmt.Errorf("%w (%d)", ErrUnroutable, ret.ReplyCode)
			s.mu.Unlock()
		case c, ok := <-r.confirms:
			if !ok {
				r.confirms = nil
				break
			}
			s.confirm(c)
		case e, ok := <-r.closed:
			if !ok {
				r.closed = nil
				break
			}
			cause = e
		case b, ok := <-r.blocking:
			if !ok {
				r.blocking = nil
				break
			}
			s.blocked.Store(b.Active)
		}
	}
	s.end(cause)
}

func (s *session) confirm(c amqp.Confirmation) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w, ok := s.waiting[c.DeliveryTag]
	if !ok {
		return
	}
	delete(s.waiting, c.DeliveryTag)
	back := s.returned[w.id]
	delete(s.returned, w.id)
	switch {
	case back != nil:
		s.put(w.flight, w.index, outbox.Unavailable(back))
	case c.Ack:
		s.put(w.flight, w.index, nil)
	case s.owner.config.Exchange == "": // one queue, which did not take it
		s.put(w.flight, w.index, outbox.Unavailable(ErrRefused))
	default:
		s.put(w.flight, w.index, outbox.UnknownOutcome(ErrRefused))
	}
}

// end settles whatever still waits.
func (s *session) end(cause *amqp.Error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	outcome := outbox.UnknownOutcome(ErrLost)
	if cause != nil {
		outcome = s.owner.judge(cause)
	}
	s.lost = outcome
	for tag, w := range s.waiting {
		delete(s.waiting, tag)
		s.put(w.flight, w.index, outcome)
	}
}

// tooLarge is RabbitMQ's answer to a message over its max_message_size, which closes the channel.
var tooLarge = regexp.MustCompile(`larger than (?:configured )?max size (\d+)`)

// judge says what the end of a channel means for the messages that waited on it.
func (p *Publisher) judge(cause *amqp.Error) error {
	switch cause.Code {
	case amqp.NotFound:
		return outbox.Unavailable(fmt.Errorf("%w: %q", ErrNoExchange, p.config.Exchange))
	case amqp.PreconditionFailed:
		// The one that is too large is found at its next try, before it is sent.
		if m := tooLarge.FindStringSubmatch(cause.Reason); m != nil {
			if n, err := strconv.ParseInt(m[1], 10, 64); err == nil && n < p.largest.Load() {
				p.largest.Store(n)
			}
		}
	}
	return outbox.UnknownOutcome(errors.Join(ErrLost, cause))
}

// publish sends one message; it must have its turn. An error means that the session is of no more use; the message itself is settled.
func (s *session) publish(f *flight, i int, exchange, key string, msg amqp.Publishing) error {
	tag := s.ch.GetNextPublishSeqNo()
	s.mu.Lock()
	if s.lost != nil {
		s.mu.Unlock()
		s.settle(f, i, outbox.Unavailable(ErrLost))
		return ErrLost
	}
	s.waiting[tag] = slot{f, i, msg.MessageId}
	s.mu.Unlock()
	if _, err := s.ch.PublishWithDeferredConfirm(exchange, key, true, false, msg); err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		if _, still := s.waiting[tag]; still {
			delete(s.waiting, tag)
			outcome := outbox.UnknownOutcome(errors.Join(ErrLost, err))
			if errors.Is(err, amqp.ErrClosed) { // the client has not written a byte of it
				outcome = outbox.Unavailable(errors.Join(ErrLost, err))
			}
			s.put(f, i, outcome)
		}
		return errors.Join(ErrLost, err)
	}
	return nil
}

func (s *session) settle(f *flight, i int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.put(f, i, err)
}

// put needs mu.
func (s *session) put(f *flight, i int, err error) {
	if f.given {
		return
	}
	f.result[i] = err
	s.land(f)
}

func (s *session) settleOne(f *flight) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.land(f)
}

// land needs mu.
func (s *session) land(f *flight) {
	if f.left--; f.left == 0 {
		close(f.done)
	}
}

// giveUp takes the flight's messages out of the wait. A confirm that comes later finds nothing.
func (s *session) giveUp(f *flight, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for tag, w := range s.waiting {
		if w.flight == f {
			delete(s.waiting, tag)
			f.result[w.index] = err
		}
	}
	f.given = true
}

func (s *session) usable() error {
	if s.blocked.Load() {
		return outbox.Unavailable(ErrBlocked)
	}
	return nil
}

func (s *session) over() bool {
	select {
	case <-s.ended:
		return true
	default:
		return s.ch.IsClosed()
	}
}

// close ends the connection and waits for the reader.
func (s *session) close(wait time.Duration) error {
	err := s.conn.CloseDeadline(time.Now().Add(wait))
	<-s.ended
	if errors.Is(err, amqp.ErrClosed) {
		return nil
	}
	return err
}

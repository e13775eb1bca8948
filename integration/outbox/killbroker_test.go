package outbox_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/backstay-go/backstay/outbox"
)

// A killBroker takes messages over TCP, as JSON lines of batches, and logs them in the order in which they came. It does not
// deduplicate: the log shows every repetition.
type killBroker struct {
	addr string

	mu    sync.Mutex
	ln    net.Listener
	conns map[net.Conn]bool
	log   []arrival
	gate  chan struct{} // closed: open; else taking waits
	lose  atomic.Int32  // answers to withhold, each by cutting its connection
}

type arrival struct {
	Key     string
	N       int
	Created int64 // microseconds, by the database's clock
	at      int64 // as Created, by ours, which on one machine is the same
}

// name is what tells messages apart.
func (a arrival) name() string { return fmt.Sprint(a.Key, " ", a.N) }

func newKillBroker(t *testing.T) *killBroker {
	b := &killBroker{conns: map[net.Conn]bool{}, gate: make(chan struct{})}
	close(b.gate)
	b.start(t, "127.0.0.1:0")
	b.addr = b.ln.Addr().String()
	t.Cleanup(b.stop)
	return b
}

func (b *killBroker) start(t *testing.T, addr string) {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	b.mu.Lock()
	b.ln = ln
	b.mu.Unlock()
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			b.mu.Lock()
			b.conns[c] = true
			b.mu.Unlock()
			go b.serve(c)
		}
	}()
}

func (b *killBroker) stop() {
	b.mu.Lock()
	b.ln.Close()
	b.mu.Unlock()
	b.cut()
}

// cut ends all connections.
func (b *killBroker) cut() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for c := range b.conns {
		c.Close()
		delete(b.conns, c)
	}
}

// pause makes the broker hang until the returned function is called.
func (b *killBroker) pause() (resume func()) {
	gate := make(chan struct{})
	b.mu.Lock()
	b.gate = gate
	b.mu.Unlock()
	return func() { close(gate) }
}

func (b *killBroker) serve(c net.Conn) {
	defer c.Close()
	in := bufio.NewReader(c)
	for {
		line, err := in.ReadBytes('\n')
		if err != nil {
			return
		}
		var batch []arrival
		if json.Unmarshal(line, &batch) != nil {
			return
		}
		b.mu.Lock()
		gate := b.gate
		b.mu.Unlock()
		<-gate
		b.mu.Lock()
		for _, a := range batch {
			a.at = time.Now().UnixMicro()
			b.log = append(b.log, a)
		}
		b.mu.Unlock()
		if b.lose.Add(-1) >= 0 {
			return // taken, and nobody hears of it
		}
		if _, err := io.WriteString(c, "ok\n"); err != nil {
			return
		}
	}
}

// killPublisher is the client: a few connections, one batch at a time on each, a deadline on all. Of each message whose outcome it could not
// learn it writes a line to stdout, before it says so to the relay.
type killPublisher struct {
	addr string
	idle chan net.Conn
}

func newKillPublisher(addr string) *killPublisher {
	return &killPublisher{addr, make(chan net.Conn, 16)}
}

func (p *killPublisher) Publish(ctx context.Context, batch []*outbox.Message, result []error) {
	err := p.send(ctx, batch)
	if errors.Is(err, outbox.ErrUnknownOutcome) {
		var lines strings.Builder
		for _, m := range batch {
			fmt.Fprintf(&lines, "%s%s %s\n", unknownLine, m.Key, m.Payload)
		}
		io.WriteString(os.Stdout, lines.String())
	}
	for i := range result {
		result[i] = err
	}
}

const unknownLine = "unknown outcome: "

func (p *killPublisher) send(ctx context.Context, batch []*outbox.Message) error {
	var c net.Conn
	select {
	case c = <-p.idle:
	default:
		var d net.Dialer
		var err error
		if c, err = d.DialContext(ctx, "tcp", p.addr); err != nil {
			return outbox.Unavailable(err)
		}
	}
	out := make([]arrival, len(batch))
	for i, m := range batch {
		out[i].Key, out[i].Created = m.Key, m.Created.UnixMicro()
		if _, err := fmt.Sscan(string(m.Payload), &out[i].N); err != nil {
			return outbox.Permanent(err)
		}
	}
	line, err := json.Marshal(out)
	if err != nil {
		return outbox.Permanent(err)
	}
	deadline, _ := ctx.Deadline()
	c.SetDeadline(deadline)
	stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := c.Write(append(line, '\n')); err != nil {
		c.Close()
		return outbox.UnknownOutcome(err)
	}
	answer := make([]byte, 3)
	if _, err := io.ReadFull(c, answer); err != nil {
		c.Close()
		return outbox.UnknownOutcome(errors.Join(err, ctx.Err()))
	}
	select {
	case p.idle <- c:
	default:
		c.Close()
	}
	return nil
}

// A killProxy stands between a relay and the database.
type killProxy struct {
	addr, to string
	refuse   atomic.Bool
	stallAt  string // when this comes from a client, it is handed on and nothing after it, on any connection; "": never
	stalled  chan struct{}

	mu    sync.Mutex
	conns map[net.Conn]bool
}

func newKillProxy(t *testing.T, to string) *killProxy {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &killProxy{addr: ln.Addr().String(), to: to, conns: map[net.Conn]bool{}, stalled: make(chan struct{})}
	t.Cleanup(func() { ln.Close(); p.cut() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			if p.refuse.Load() {
				c.Close()
				continue
			}
			go p.serve(c)
		}
	}()
	return p
}

func (p *killProxy) serve(c net.Conn) {
	s, err := net.Dial("tcp", p.to)
	if err != nil {
		c.Close()
		return
	}
	p.mu.Lock()
	p.conns[c], p.conns[s] = true, true
	p.mu.Unlock()
	var both sync.WaitGroup
	pipe := func(to, from net.Conn) {
		io.Copy(to, from)
		to.Close()
		from.Close()
	}
	both.Go(func() { pipe(stalling{s, p}, c) })
	both.Go(func() { pipe(c, s) })
	both.Wait()
	p.mu.Lock()
	delete(p.conns, c)
	delete(p.conns, s)
	p.mu.Unlock()
}

// stalling is a connection to a server whose client's machine dies without a word at the proxy's stallAt.
type stalling struct {
	net.Conn
	p *killProxy
}

func (s stalling) Write(b []byte) (int, error) {
	if s.p.stallAt == "" {
		return s.Conn.Write(b)
	}
	select {
	case <-s.p.stalled:
		return len(b), nil
	default:
	}
	n, err := s.Conn.Write(b)
	if bytes.Contains(b, []byte(s.p.stallAt)) {
		s.p.mu.Lock()
		defer s.p.mu.Unlock()
		select {
		case <-s.p.stalled:
		default:
			close(s.p.stalled)
		}
	}
	return n, err
}

func (p *killProxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		c.Close()
	}
}

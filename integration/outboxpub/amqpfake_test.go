package outboxpub_test

import (
	"encoding/binary"
	"io"
	"net"
	"sync"
	"testing"
)

// staller passes everything on, until it is told to stop reading from clients.
type staller struct {
	*proxy
	gateMu sync.Mutex
	gate   *sync.Cond
	held   bool
}

// newStaller is a proxy whose client side can be left unread.
func newStaller(tb testing.TB, target string) *staller {
	tb.Helper()
	s := &staller{proxy: newProxy(tb, target)}
	s.gate = sync.NewCond(&s.gateMu)
	s.proxy.mu.Lock()
	s.proxy.unread = s.wait
	s.proxy.mu.Unlock()
	tb.Cleanup(func() { s.stop(false) })
	return s
}

func (s *staller) wait() {
	s.gateMu.Lock()
	defer s.gateMu.Unlock()
	for s.held {
		s.gate.Wait()
	}
}

func (s *staller) stop(held bool) {
	s.gateMu.Lock()
	s.held = held
	s.gateMu.Unlock()
	s.gate.Broadcast()
}

// fakeChannelEnd speaks just enough AMQP to open a channel, and ends it with 406 at the first publish, as RabbitMQ does with a message over its
// max_message_size.
type fakeChannelEnd struct{ net.Listener }

func newFakeChannelEnd(tb testing.TB) *fakeChannelEnd {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				serveAMQP(c)
			})
		}
	})
	tb.Cleanup(func() {
		_ = l.Close()
		wg.Wait()
	})
	return &fakeChannelEnd{l}
}

func (f *fakeChannelEnd) Addr() string { return f.Listener.Addr().String() }

func serveAMQP(c net.Conn) {
	if _, err := io.ReadFull(c, make([]byte, 8)); err != nil { // "AMQP" and the version
		return
	}
	long := func(s string) []byte { return append(binary.BigEndian.AppendUint32(nil, uint32(len(s))), s...) }
	say := func(channel uint16, class, method uint16, args ...byte) {
		payload := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, class), method)
		payload = append(payload, args...)
		f := binary.BigEndian.AppendUint16([]byte{1}, channel)
		f = binary.BigEndian.AppendUint32(f, uint32(len(payload)))
		_, _ = c.Write(append(append(f, payload...), 0xce))
	}
	start := append([]byte{0, 9}, long("")...) // version 0-9, an empty table
	start = append(start, long("PLAIN")...)
	say(0, 10, 10, append(start, long("en_US")...)...)
	ended := false
	for {
		head := make([]byte, 7)
		if _, err := io.ReadFull(c, head); err != nil {
			return
		}
		channel := binary.BigEndian.Uint16(head[1:])
		body := make([]byte, binary.BigEndian.Uint32(head[3:])+1)
		if _, err := io.ReadFull(c, body); err != nil {
			return
		}
		if head[0] != 1 { // content, heartbeat
			continue
		}
		switch class, method := binary.BigEndian.Uint16(body), binary.BigEndian.Uint16(body[2:]); {
		case class == 10 && method == 11: // start-ok: tune
			say(0, 10, 30, 0, 0, 0, 2, 0, 0, 0, 0)
		case class == 10 && method == 40: // open
			say(0, 10, 41, 0)
		case class == 10 && method == 50: // close
			say(0, 10, 51)
			return
		case class == 20 && method == 10: // channel.open
			say(channel, 20, 11, 0, 0, 0, 0)
		case class == 85 && method == 10: // confirm.select
			say(channel, 85, 11)
		case class == 60 && method == 40 && !ended: // basic.publish
			ended = true
			text := "PRECONDITION_FAILED - message size 5000 is larger than configured max size 4096"
			args := append([]byte{406 >> 8, 406 & 0xff, byte(len(text))}, text...)
			say(channel, 20, 40, append(args, 0, 60, 0, 40)...)
		}
	}
}

package outboxpub_test

import (
	"io"
	"net"
	"sync"
	"testing"
)

// proxy stands between a client and a server, and can cut its connections or hold back what the server says.
type proxy struct {
	target   string
	listener net.Listener
	wg       sync.WaitGroup

	mu    sync.Mutex
	away  bool                  // guarded by mu
	gate  chan struct{}         // closed: the server's bytes pass; guarded by mu
	conns map[net.Conn]struct{} // guarded by mu
	onto  func(net.Conn)        // called with each new client connection; guarded by mu

	unread func() // called before each read from a client; set before use
}

func newProxy(tb testing.TB, target string) *proxy {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	p := &proxy{target: target, listener: l, gate: make(chan struct{}), conns: make(map[net.Conn]struct{})}
	close(p.gate)
	p.wg.Go(p.accept)
	tb.Cleanup(func() {
		_ = l.Close()
		p.Hear(tb)
		p.Cut(tb)
		p.wg.Wait()
	})
	return p
}

func (p *proxy) Addr() string { return p.listener.Addr().String() }

func (p *proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.mu.Lock()
		away := p.away
		p.mu.Unlock()
		if away {
			_ = client.Close()
			continue
		}
		server, err := net.Dial("tcp", p.target)
		if err != nil {
			_ = client.Close()
			continue
		}
		p.mu.Lock()
		if p.away {
			p.mu.Unlock()
			_ = client.Close()
			_ = server.Close()
			continue
		}
		p.conns[client], p.conns[server] = struct{}{}, struct{}{}
		if p.onto != nil {
			p.onto(client)
		}
		p.mu.Unlock()
		p.wg.Go(func() { p.pump(server, client, false) })
		p.wg.Go(func() { p.pump(client, server, true) })
	}
}

func (p *proxy) pump(to, from net.Conn, answers bool) {
	defer p.drop(to)
	defer p.drop(from)
	buf := make([]byte, 32<<10)
	for {
		if p.unread != nil && !answers {
			p.unread()
		}
		n, err := from.Read(buf)
		if answers {
			p.mu.Lock()
			gate := p.gate
			p.mu.Unlock()
			<-gate
		}
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err == io.EOF || err != nil {
			return
		}
	}
}

func (p *proxy) drop(c net.Conn) {
	_ = c.Close()
	p.mu.Lock()
	delete(p.conns, c)
	p.mu.Unlock()
}

// Cut closes all connections and refuses new ones until Mend.
func (p *proxy) Cut(testing.TB) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.away = true
	for c := range p.conns {
		_ = c.Close()
	}
}

func (p *proxy) Mend(testing.TB) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.away = false
}

// Deafen holds back what the server says until Hear.
func (p *proxy) Deafen(testing.TB) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gate = make(chan struct{})
}

func (p *proxy) Hear(testing.TB) {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.gate:
	default:
		close(p.gate)
	}
}

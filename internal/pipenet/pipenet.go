// Package pipenet is a network of net.Pipe connections, so that real servers and clients run inside a testing/synctest bubble.
package pipenet

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
)

// Listener is a net.Listener whose connections come from its own Dial. Make one with [Listen].
type Listener struct {
	conns  chan net.Conn
	done   chan struct{}
	once   sync.Once
	dialed atomic.Int32
}

// Listen returns an open listener.
func Listen() *Listener {
	return &Listener{conns: make(chan net.Conn), done: make(chan struct{})}
}

// Dialed returns how many connections have been made.
func (l *Listener) Dialed() int { return int(l.dialed.Load()) }

// DialContext connects to the listener, whatever the address. It fails as a refused dial does when the listener is closed.
func (l *Listener) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case l.conns <- server:
		l.dialed.Add(1)
		return client, nil
	case <-l.done:
		return nil, &net.OpError{Op: "dial", Net: network, Addr: addr(address), Err: net.ErrClosed}
	case <-ctx.Done():
		return nil, &net.OpError{Op: "dial", Net: network, Addr: addr(address), Err: ctx.Err()}
	}
}

// Accept implements net.Listener.
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *Listener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

// Addr implements net.Listener.
func (l *Listener) Addr() net.Addr { return addr("pipe") }

type addr string

func (addr) Network() string  { return "pipe" }
func (a addr) String() string { return string(a) }

package fault

import (
	"context"
	"net"
	"sync"
)

// Door is a listener that the faults can close. While the service is down nothing listens at its address, so that connections are refused, and
// those that stood are cut; afterwards the same address is opened again. Accept waits meanwhile.
type Door struct {
	in   *Injector
	addr net.Addr

	conns chan net.Conn
	done  chan struct{}
	end   context.CancelFunc

	mu   sync.Mutex
	open map[net.Conn]struct{} // guarded by mu
}

// Listen opens addr, and closes and opens it as in says, until the door is closed.
func Listen(in *Injector, addr string) (*Door, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	ctx, end := context.WithCancel(context.Background())
	d := &Door{in: in, addr: l.Addr(), conns: make(chan net.Conn), done: make(chan struct{}), end: end, open: map[net.Conn]struct{}{}}
	go d.run(ctx, l)
	return d, nil
}

// run opens and closes the address by turns.
func (d *Door) run(ctx context.Context, l net.Listener) {
	defer close(d.done)
	for {
		var accepting sync.WaitGroup
		if l != nil {
			accepting.Go(func() { d.accept(ctx, l) })
		}
		_, down, changed := d.in.state()
		for (l != nil) != down && ctx.Err() == nil { // as it should be
			select {
			case <-ctx.Done():
			case <-changed:
			}
			_, down, changed = d.in.state()
		}
		if l != nil {
			l.Close()
			d.cut()
			accepting.Wait()
			l = nil
		}
		if ctx.Err() != nil {
			d.cut()
			return
		}
		if !down {
			var err error
			if l, err = net.Listen("tcp", d.addr.String()); err != nil { // somebody else has the port: try again
				l = nil
				if sleep(ctx, flapEvery/4) != nil {
					return
				}
			}
		}
	}
}

func (d *Door) accept(ctx context.Context, l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		guest := &conn{Conn: c, d: d}
		d.mu.Lock()
		d.open[guest] = struct{}{}
		d.mu.Unlock()
		select {
		case d.conns <- guest:
		case <-ctx.Done():
			guest.Close()
			return
		}
	}
}

// cut closes all connections.
func (d *Door) cut() {
	d.mu.Lock()
	all := d.open
	d.open = map[net.Conn]struct{}{}
	d.mu.Unlock()
	for c := range all {
		c.Close()
	}
}

// Accept implements net.Listener.
func (d *Door) Accept() (net.Conn, error) {
	select {
	case c := <-d.conns:
		return c, nil
	case <-d.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener. It waits until the address is free.
func (d *Door) Close() error {
	d.end()
	<-d.done
	return nil
}

// Addr implements net.Listener.
func (d *Door) Addr() net.Addr { return d.addr }

// conn forgets itself when it is closed.
type conn struct {
	net.Conn
	d *Door
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.d.mu.Lock()
	delete(c.d.open, c)
	c.d.mu.Unlock()
	return c.Conn.Close()
}

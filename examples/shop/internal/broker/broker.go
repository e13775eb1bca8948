// Package broker is the shop's NATS server with JetStream: one inside the program, or one that is there already. Either can be taken away.
package broker

import (
	"errors"
	"io"
	"net"
	"net/url"
	"path/filepath"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/backstay-go/backstay/examples/shop/internal/fault"
)

// Broker is a server that can be switched.
type Broker struct {
	url string

	mu  sync.Mutex
	on  bool // guarded by mu
	set func(on bool) error
	end func()
}

// URL is where clients connect.
func (b *Broker) URL() string { return b.url }

// Up reports whether it is switched on.
func (b *Broker) Up() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.on
}

// Set switches the broker.
func (b *Broker) Set(on bool) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if on == b.on {
		return nil
	}
	if err := b.set(on); err != nil {
		return err
	}
	b.on = on
	return nil
}

// Close ends it.
func (b *Broker) Close() { b.end() }

// Embedded starts a server in this process that keeps its streams in dir. Switched off it is shut down, and started again at the same port with the same
// streams.
func Embedded(dir string) (*Broker, error) {
	opts := &server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: filepath.Join(dir, "nats"), NoLog: true, NoSigs: true,
		NoSublistCache: true, // each acknowledgement has a subject of its own: they would fill it, and none is asked for twice
	}
	srv, err := start(opts)
	if err != nil {
		return nil, err
	}
	opts.Port = srv.Addr().(*net.TCPAddr).Port
	stop := func() {
		srv.Shutdown()
		srv.WaitForShutdown()
	}
	b := &Broker{url: srv.ClientURL(), on: true, end: stop}
	b.set = func(on bool) (err error) {
		if !on {
			stop()
			return nil
		}
		again, err := start(opts)
		if err == nil {
			srv = again
		}
		return err
	}
	b.end = func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		stop() // of a server that has stopped already: nothing
	}
	return b, nil
}

func start(opts *server.Options) (*server.Server, error) {
	srv, err := server.NewServer(opts.Clone())
	if err != nil {
		return nil, err
	}
	srv.Start()
	if !srv.ReadyForConnections(10 * time.Second) {
		srv.Shutdown()
		srv.WaitForShutdown()
		return nil, errors.New("the NATS server does not come up")
	}
	return srv, nil
}

// External puts a proxy before the server at target, which is cut when the broker is switched off.
func External(target string) (*Broker, error) {
	u, err := url.Parse(target)
	if err != nil {
		return nil, err
	}
	faults := fault.New(0)
	door, err := fault.Listen(faults, "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	to := u.Host
	u.Host = door.Addr().String()
	var work sync.WaitGroup
	work.Go(func() {
		for {
			c, err := door.Accept()
			if err != nil {
				return
			}
			work.Go(func() { pass(c, to) })
		}
	})
	return &Broker{
		url: u.String(), on: true,
		set: func(on bool) error { faults.Set(fault.Set{Down: !on}); return nil },
		end: func() { door.Close(); work.Wait() },
	}, nil
}

// pass copies between c and the server at to, until either ends.
func pass(c net.Conn, to string) {
	defer c.Close()
	s, err := net.DialTimeout("tcp", to, 5*time.Second)
	if err != nil {
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(s, c) // either end may break it off
		s.Close()
	}()
	_, _ = io.Copy(c, s)
	c.Close()
	<-done
	s.Close()
}

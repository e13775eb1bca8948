package kill_test

import (
	"bytes"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"
)

// proxy stands between the children and PostgreSQL and cuts connections in the
// middle of a commit: what the client sent goes to the server, what the server
// answers is lost.
type proxy struct {
	l    net.Listener
	to   string
	cuts atomic.Int64 // connections still to be cut
	done atomic.Int64
}

func newProxy(t *testing.T, to string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{l: l, to: to}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go p.serve(c)
		}
	}()
	return p
}

func (p *proxy) addr() string { return p.l.Addr().String() }

func (p *proxy) serve(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", p.to)
	if err != nil {
		return
	}
	defer server.Close()
	go func() {
		io.Copy(client, server) // ends when either is closed
		client.Close()
	}()
	buf := make([]byte, 1<<16)
	for {
		n, err := client.Read(buf)
		if n > 0 {
			cut := commits(buf[:n]) && p.cuts.Add(-1) >= 0
			if _, err := server.Write(buf[:n]); err != nil {
				return
			}
			if cut {
				p.done.Add(1)
				client.Close() // before the answer can come through
				// The server is left to finish, and for a while does not
				// know that nobody is there: a transaction in which it
				// waits for more keeps its locks so long.
				server.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
				io.Copy(io.Discard, server)
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// commits reports whether the client's bytes end a transaction: a COMMIT as a
// simple query, or the execution of a prepared statement that writes by itself.
func commits(b []byte) bool {
	return bytes.HasPrefix(b, []byte("Q")) && bytes.Contains(bytes.ToLower(b), []byte("commit")) || bytes.HasPrefix(b, []byte("B"))
}

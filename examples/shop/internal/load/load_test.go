package load_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backstay-go/backstay/examples/shop/internal/gateway"
	"github.com/backstay-go/backstay/examples/shop/internal/load"
)

// pipes is a listener in memory, so that a server and its customers can share a bubble.
type pipes struct{ conns chan net.Conn }

func (p pipes) dial(context.Context, string, string) (net.Conn, error) {
	a, b := net.Pipe()
	p.conns <- b
	return a, nil
}
func (p pipes) Accept() (net.Conn, error) {
	c, ok := <-p.conns
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}
func (p pipes) Close() error   { close(p.conns); return nil }
func (p pipes) Addr() net.Addr { return &net.TCPAddr{} }

// Customers come on time though the shop does not answer, and give up after their patience.
func TestOpenLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := pipes{make(chan net.Conn)}
		srv := &http.Server{Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body) // only then does net/http see that the customer has gone
			<-r.Context().Done()
		})}
		go srv.Serve(l)
		g := load.New("http://shop", 20)
		g.Dial(l.dial)
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Second)
		defer cancel()
		start := time.Now()
		g.Run(ctx, 1)
		if took := time.Since(start); took > 100*time.Second+gateway.Patience {
			t.Errorf("took %v, want the last customer gone after %v", took, gateway.Patience)
		}
		got := g.Totals()
		if got.Offered < 1900 || got.Offered > 2100 || got.Failed != got.Offered || got.Good != 0 {
			t.Errorf("got %+v, want about 2000 offered, and all failed", got)
		}
		srv.Close()
	})
}

// With a rate of 0 nobody comes, and then they do.
func TestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := pipes{make(chan net.Conn)}
		srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte(`{"order":"a","state":"confirmed"}`)) })}
		go srv.Serve(l)
		g := load.New("http://shop", 0)
		g.Dial(l.dial)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
		defer cancel()
		time.AfterFunc(10*time.Minute, func() {
			if got := g.Totals().Offered; got != 0 {
				t.Errorf("got %d customers at a rate of 0", got)
			}
			g.SetRate(5)
		})
		g.Run(ctx, 1)
		if got := g.Totals(); got.Offered < 2800 || got.Offered > 3200 || got.Good != got.Offered {
			t.Errorf("got %+v, want about 3000 customers, and all served", got)
		}
		srv.Close()
	})
}

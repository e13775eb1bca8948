package fault_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backstay-go/backstay/examples/shop/internal/fault"
)

// A service that is down refuses connections and cuts those that stand; up again it is found at the same address.
func TestDoor(t *testing.T) {
	in := fault.New(1)
	door, err := fault.Listen(in, "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer door.Close()
	addr := door.Addr().String()
	dial := func() (client, server net.Conn, err error) {
		if client, err = net.Dial("tcp", addr); err != nil {
			return nil, nil, err
		}
		server, err = door.Accept()
		return client, server, err
	}
	client, _, err := dial()
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()

	in.Set(fault.Set{Down: true})
	if _, err := client.Read(make([]byte, 1)); err == nil { // waits until the connection is cut, after the listener has gone
		t.Error("a connection that stood was not cut")
	}
	if c, err := net.Dial("tcp", addr); err == nil {
		c.Close()
		t.Error("a service that is down took a connection")
	}

	in.Set(fault.Set{})
	for { // it listens in a moment
		client, server, err := dial()
		if err != nil {
			continue
		}
		client.Close()
		server.Close()
		return
	}
}

// Accept ends with the door.
func TestDoorClose(t *testing.T) {
	door, err := fault.Listen(fault.New(1), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	door.Close()
	if _, err := door.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v, want net.ErrClosed", err)
	}
}

// What happens to a call before its effect.
func TestBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := fault.New(1)
		if err := in.Before(t.Context()); err != nil {
			t.Errorf("without faults: %v", err)
		}
		in.Set(fault.Set{Errors: 1})
		if err := in.Before(t.Context()); !errors.Is(err, fault.ErrInjected) {
			t.Errorf("got %v, want ErrInjected", err)
		}
		start := time.Now()
		in.Set(fault.Set{Latency: time.Second})
		if err := in.Before(t.Context()); err != nil || time.Since(start) != time.Second {
			t.Errorf("got %v after %v, want a second", err, time.Since(start))
		}
		in.Set(fault.Set{Hang: true})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := in.Before(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v of a service that hangs, want to wait for ever", err)
		}
		time.AfterFunc(time.Minute, func() { in.Set(fault.Set{}) })
		if err := in.Before(t.Context()); err != nil {
			t.Errorf("after it hung: %v", err)
		}
	})
}

// A service that flaps is up and down by turns.
func TestFlap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := fault.New(1)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); in.Run(ctx) }()
		in.Set(fault.Set{Flap: true})
		start := time.Now()
		if err := in.Up(t.Context()); err != nil || time.Since(start) > 2*time.Second {
			t.Errorf("got %v after %v, want it up within two seconds", err, time.Since(start))
		}
		time.Sleep(2*time.Second + time.Millisecond)
		down, stop := context.WithTimeout(t.Context(), time.Second)
		defer stop()
		if err := in.Up(down); err == nil {
			t.Error("it is up, want it down after two seconds more")
		}
		cancel()
		<-ended
	})
}

// An answer that is lost is lost after the effect.
func TestLost(t *testing.T) {
	in := fault.New(1)
	var effects atomic.Int32
	srv := httptest.NewServer(in.HTTP(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		effects.Add(1)
		w.Write([]byte("done"))
	})))
	defer srv.Close()
	in.Set(fault.Set{LoseReply: 1})
	if resp, err := http.Post(srv.URL, "", nil); err == nil {
		resp.Body.Close()
		t.Error("got an answer")
	}
	if n := effects.Load(); n != 1 {
		t.Errorf("got %d effects, want 1", n)
	}
	in.Set(fault.Set{Errors: 1})
	resp, err := http.Post(srv.URL, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	if n := effects.Load(); resp.StatusCode != http.StatusServiceUnavailable || n != 1 {
		t.Errorf("got %s and %d effects, want 503 and no further effect", resp.Status, n)
	}
}

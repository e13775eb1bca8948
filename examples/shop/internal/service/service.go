// Package service is what the shop's services have in common: a listener that faults can close, a second one by which the shop watches and
// breaks the service, links to others, and a feed of what happened.
package service

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/backstay-go/backstay/examples/shop/internal/fault"
	"github.com/backstay-go/backstay/examples/shop/internal/link"
)

// Spec is what a service is told when it starts; with -processes, as JSON on its standard input.
type Spec struct {
	Name       string            `json:"name"`
	Address    string            `json:"address"` // of the service; port 0: any
	Control    string            `json:"control"` // of what the shop watches it by; port 0: any
	Data       string            `json:"data"`    // folder of its files
	Postgres   string            `json:"postgres"`
	NATS       string            `json:"nats"`
	Seed       uint64            `json:"seed"`
	Protection bool              `json:"protection"`
	Peers      map[string]string `json:"peers"` // addresses of other services by name
}

// Addresses is where a service that has started is found.
type Addresses struct {
	Service string `json:"service"`
	Control string `json:"control"`
}

// Main is a service: it calls h.Ready when it serves, and returns when ctx is over and all that it began has ended.
type Main func(ctx context.Context, h *Host) error

// Host is a service's surroundings.
type Host struct {
	Spec
	Faults     *fault.Injector
	Protection link.Protection
	Feed       *Feed
	Control    *http.ServeMux // for what is particular to the service

	door  *fault.Door
	links []*link.Link // written before Ready
	ready chan struct{}
}

// Run runs a service until ctx is over, and calls ready once it serves.
func Run(ctx context.Context, spec Spec, main Main, ready func(Addresses)) error {
	h := &Host{Spec: spec, Faults: fault.New(spec.Seed), Feed: &Feed{service: spec.Name}, Control: http.NewServeMux(), ready: make(chan struct{})}
	h.Protection.Set(spec.Protection)
	door, err := fault.Listen(h.Faults, spec.Address)
	if err != nil {
		return err
	}
	defer door.Close()
	h.door = door
	control, err := net.Listen("tcp", spec.Control)
	if err != nil {
		return err
	}
	h.routes()

	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		h.Faults.Run(ctx)
		return nil
	})
	group.Go(func() error {
		return serve(ctx, control, http.NewCrossOriginProtection().Handler(h.Control))
	})
	group.Go(func() error {
		if err := main(ctx, h); err != nil && ctx.Err() == nil {
			return fmt.Errorf("%s: %w", spec.Name, err)
		}
		return nil
	})
	group.Go(func() error {
		select {
		case <-h.ready:
			ready(Addresses{door.Addr().String(), control.Addr().String()})
		case <-ctx.Done():
		}
		return nil
	})
	return group.Wait()
}

// Ready says that the service serves.
func (h *Host) Ready() { close(h.ready) }

// Listener is where the service listens.
func (h *Host) Listener() net.Listener { return h.door }

// Link makes a link to another service; before Ready.
func (h *Host) Link(to string, limits link.Limits) *link.Link {
	l := link.New(h.Name, to, &h.Protection, limits, h.Feed.Breaker(to))
	h.links = append(h.links, l)
	return l
}

// ServeHTTP serves the service's own address until ctx is over.
func (h *Host) ServeHTTP(ctx context.Context, handler http.Handler) error {
	return serve(ctx, h.door, handler)
}

// stopIn is how long requests in hand may take when a service stops.
const stopIn = 3 * time.Second

func serve(ctx context.Context, l net.Listener, handler http.Handler) error {
	srv := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second, ErrorLog: quiet}
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(l) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopIn)
	defer cancel()
	if srv.Shutdown(stop) != nil {
		srv.Close()
	}
	if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// pid is the process that the service runs in.
var pid = os.Getpid()

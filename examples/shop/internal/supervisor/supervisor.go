// Package supervisor runs the shop's services, each as a goroutine tree of this process or as a process of its own, and starts again what has died.
package supervisor

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/backstay-go/backstay/examples/shop/internal/service"
)

// Config says how.
type Config struct {
	Spec      service.Spec // what all are told; Name and the addresses are filled in
	Processes bool         // each service in a process of its own
	Mains     map[string]service.Main
	Log       io.Writer // of what dies
}

// Supervisor holds running services.
type Supervisor struct {
	cfg Config

	mu    sync.Mutex
	units map[string]*unit // guarded by mu, as are the fields of units below it
	order []string
}

// unit is one service.
type unit struct {
	spec  service.Spec
	apart bool // in a process of its own
	stop  context.CancelFunc
	ended chan struct{}

	started  bool // once
	pid      int
	process  *os.Process // nil: a goroutine
	restarts int
}

// Status is how a service stands.
type Status struct {
	Name     string
	Address  string
	PID      int
	Restarts int
	Process  bool // it is a process of its own
}

// New returns a supervisor without services.
func New(cfg Config) *Supervisor {
	return &Supervisor{cfg: cfg, units: map[string]*unit{}}
}

// Start starts a service and returns when it serves. Services get the addresses of those started before.
func (s *Supervisor) Start(ctx context.Context, name string) error {
	return s.start(ctx, name, "127.0.0.1:0", s.cfg.Processes)
}

// StartHere starts a service at an address, in this process in any case.
func (s *Supervisor) StartHere(ctx context.Context, name, address string) error {
	return s.start(ctx, name, address, false)
}

func (s *Supervisor) start(ctx context.Context, name, address string, apart bool) error {
	spec := s.cfg.Spec
	spec.Name, spec.Address, spec.Control = name, address, "127.0.0.1:0"
	spec.Seed += uint64(len(s.order))
	spec.Peers = map[string]string{}
	s.mu.Lock()
	for _, other := range s.order {
		spec.Peers[other] = s.units[other].spec.Address
	}
	life, stop := context.WithCancel(context.Background())
	u := &unit{spec: spec, apart: apart, stop: stop, ended: make(chan struct{})}
	s.units[name] = u
	s.order = append(s.order, name)
	s.mu.Unlock()

	serving := make(chan struct{})
	failed := make(chan error, 1)
	go s.keep(life, u, serving, failed)
	select {
	case <-serving:
		return nil
	case err := <-failed:
		stop()
		return fmt.Errorf("%s does not start: %w", name, err)
	case <-ctx.Done():
		stop()
		return ctx.Err()
	}
}

// restartAfter is how long a service stays dead.
const restartAfter = 300 * time.Millisecond

// keep runs a service, and runs it again at the same addresses when it ends before its time.
func (s *Supervisor) keep(ctx context.Context, u *unit, serving chan<- struct{}, failed chan<- error) {
	defer close(u.ended)
	run := s.inside
	if u.apart {
		run = s.outside
	}
	for ctx.Err() == nil {
		err := run(ctx, u, func(a service.Addresses) {
			s.mu.Lock()
			defer s.mu.Unlock()
			u.spec.Address, u.spec.Control = a.Service, a.Control
			if u.started {
				u.restarts++ // it serves again
				return
			}
			u.started = true
			close(serving)
		})
		s.mu.Lock()
		started := u.started
		s.mu.Unlock()
		switch {
		case ctx.Err() != nil:
			return
		case !started:
			failed <- err
			return
		}
		fmt.Fprintf(s.cfg.Log, "shop: %s ended: %v; it is started again\n", u.spec.Name, err)
		select {
		case <-time.After(restartAfter):
		case <-ctx.Done():
		}
	}
}

// inside runs a service in this process.
func (s *Supervisor) inside(ctx context.Context, u *unit, ready func(service.Addresses)) error {
	s.mu.Lock()
	u.pid = os.Getpid()
	spec := u.spec
	s.mu.Unlock()
	return service.Run(ctx, spec, s.cfg.Mains[spec.Name], ready)
}

// Stop ends the services in the reverse order of their start, so that each finds those that it calls until it has ended.
func (s *Supervisor) Stop() {
	s.mu.Lock()
	order := s.order
	s.mu.Unlock()
	for _, name := range slices.Backward(order) {
		s.mu.Lock()
		u := s.units[name]
		s.mu.Unlock()
		u.stop()
		<-u.ended
	}
}

// Names returns the services in the order of their start.
func (s *Supervisor) Names() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string{}, s.order...)
}

// Remote returns how to reach a service.
func (s *Supervisor) Remote(name string) service.Remote {
	s.mu.Lock()
	defer s.mu.Unlock()
	return service.Remote{Name: name, Control: s.units[name].spec.Control}
}

// Address returns where a service serves.
func (s *Supervisor) Address(name string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.units[name].spec.Address
}

// Status returns how all stand.
func (s *Supervisor) Status() []Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]Status, 0, len(s.order))
	for _, name := range s.order {
		u := s.units[name]
		all = append(all, Status{name, u.spec.Address, u.pid, u.restarts, u.apart})
	}
	return all
}

// Protect switches the protection of all services, and of those that start later.
func (s *Supervisor) Protect(ctx context.Context, on bool) error {
	s.mu.Lock()
	for _, u := range s.units {
		u.spec.Protection = on
	}
	s.mu.Unlock()
	for _, name := range s.Names() {
		if err := s.Remote(name).Put(ctx, "/protection", on); err != nil {
			return err
		}
	}
	return nil
}

// Kill ends a service's process at once, as kill -9 does.
func (s *Supervisor) Kill(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.units[name]
	switch {
	case u == nil:
		return fmt.Errorf("there is no service %q", name)
	case !u.apart:
		return fmt.Errorf("%s is no process of its own: start the shop with -processes", name)
	case u.process == nil:
		return fmt.Errorf("%s is not running just now", name)
	}
	return u.process.Kill()
}

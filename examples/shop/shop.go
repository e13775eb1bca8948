package main

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/backstay-go/backstay/examples/shop/internal/broker"
	"github.com/backstay-go/backstay/examples/shop/internal/desk"
	"github.com/backstay-go/backstay/examples/shop/internal/gateway"
	"github.com/backstay-go/backstay/examples/shop/internal/inventory"
	"github.com/backstay-go/backstay/examples/shop/internal/load"
	"github.com/backstay-go/backstay/examples/shop/internal/notifications"
	"github.com/backstay-go/backstay/examples/shop/internal/orders"
	"github.com/backstay-go/backstay/examples/shop/internal/page"
	"github.com/backstay-go/backstay/examples/shop/internal/payments"
	"github.com/backstay-go/backstay/examples/shop/internal/service"
	"github.com/backstay-go/backstay/examples/shop/internal/shipping"
	"github.com/backstay-go/backstay/examples/shop/internal/store"
	"github.com/backstay-go/backstay/examples/shop/internal/supervisor"
)

// config is what the flags say.
type config struct {
	addr, data, postgres, nats   string
	seed                         uint64
	load                         float64
	processes, protection, fresh bool
}

// services are those that can be processes of their own.
func services() map[string]service.Main {
	return map[string]service.Main{
		"inventory":     inventory.Main,
		"payments":      payments.Main,
		"shipping":      shipping.Main,
		"notifications": notifications.Main,
		"orders":        orders.Main,
	}
}

// inOrder is the order in which they are started: a service after those that it calls.
var inOrder = []string{"inventory", "payments", "shipping", "notifications", "orders"}

// shop is everything that runs.
type shop struct {
	cfg      config
	unlock   func()
	broker   *broker.Broker
	services *supervisor.Supervisor
	desk     *desk.Desk
	load     *load.Generator
}

// open starts the shop; customers come when it is run.
func open(ctx context.Context, cfg config) (s *shop, err error) {
	s = &shop{cfg: cfg}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if s.unlock, err = prepare(ctx, cfg); err != nil {
		return s, err
	}
	if cfg.nats != "" {
		s.broker, err = broker.External(cfg.nats)
	} else {
		s.broker, err = broker.Embedded(cfg.data)
	}
	if err != nil {
		return s, err
	}
	if err := broker.Prepare(ctx, s.broker.URL(), cfg.fresh); err != nil {
		return s, err
	}
	mains := services()
	s.services = supervisor.New(supervisor.Config{
		Spec:      service.Spec{Data: cfg.data, Postgres: cfg.postgres, NATS: s.broker.URL(), Seed: cfg.seed, Protection: cfg.protection},
		Processes: cfg.processes, Mains: mains, Log: os.Stderr,
	})
	database := "SQLite"
	if cfg.postgres != "" {
		database = "PostgreSQL"
	}
	for _, name := range inOrder {
		if err := s.services.Start(ctx, name); err != nil {
			return s, err
		}
	}
	// The gateway serves the page, which needs the desk, which needs the customers, who need the gateway's address.
	late := &lateHandler{}
	mains["gateway"] = gateway.Main(late)
	if err := s.services.StartHere(ctx, "gateway", cfg.addr); err != nil {
		return s, err
	}
	s.load = load.New("http://"+s.services.Address("gateway"), cfg.load)
	s.desk = desk.New(desk.Config{
		Services: s.services, Broker: s.broker, Load: s.load, Seed: cfg.seed, Database: database, Processes: cfg.processes, Protected: cfg.protection,
	})
	late.set(page.New(page.Config{Snapshot: s.desk.Snapshot, Actions: s.desk, Order: s.desk.Order}))
	return s, nil
}

// prepare makes the folder, which is this shop's until unlock; with -fresh it forgets what there was.
func prepare(ctx context.Context, cfg config) (unlock func(), err error) {
	if err := os.MkdirAll(cfg.data, 0o700); err != nil {
		return nil, err
	}
	if unlock, err = store.Lock(ctx, cfg.data); err != nil || !cfg.fresh {
		return unlock, err
	}
	for _, name := range inOrder {
		for _, ending := range []string{".db", ".db-wal", ".db-shm"} {
			err = errors.Join(err, ignoreMissing(os.Remove(filepath.Join(cfg.data, name+ending))))
		}
	}
	err = errors.Join(err, os.RemoveAll(filepath.Join(cfg.data, "nats")))
	if cfg.postgres != "" {
		err = errors.Join(err, store.Drop(ctx, cfg.postgres, inOrder...))
	}
	if err != nil {
		unlock()
		return nil, err
	}
	return unlock, nil
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// run lets customers in and watches, until ctx is over.
func (s *shop) run(ctx context.Context) {
	var work sync.WaitGroup
	work.Go(func() { s.desk.Run(ctx) })
	work.Go(func() { s.load.Run(ctx, s.cfg.seed) })
	work.Wait()
}

// close ends the services and then the broker. Sagas that are open go on at the next start.
func (s *shop) close() {
	if s.services != nil {
		s.services.Stop()
	}
	if s.broker != nil {
		s.broker.Close()
	}
	if s.unlock != nil {
		s.unlock()
	}
}

// lateHandler is a handler that is there before what it serves.
type lateHandler struct{ to atomic.Pointer[http.Handler] }

func (l *lateHandler) set(h http.Handler) { l.to.Store(&h) }

// ServeHTTP implements http.Handler.
func (l *lateHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if h := l.to.Load(); h != nil {
		(*h).ServeHTTP(w, r)
		return
	}
	http.Error(w, "the shop is about to open", http.StatusServiceUnavailable)
}

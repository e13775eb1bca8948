// Shop is a small online shop of six services that call each other over real sockets, place orders by saga and publish events by outbox; and that can be broken
// by hand, on its page, while the books stay balanced.
//
//	go run ./examples/shop                                     # prints the page's address
//	go run ./examples/shop -processes                          # each service a process of its own, so that kill -9 is real
//	go run ./examples/shop -check 60s -chaos random -seed 7    # without hands: breaks itself, and fails if the books do not balance
//
// The services, and what each shows:
//
//	gateway        HTTP   the page and the order entry; follows inventory's stream
//	orders         HTTP   the saga of an order, the outbox of its events
//	payments       gRPC   authorise, capture, void, refund: once for each idempotency key, whatever is repeated or late
//	inventory      gRPC   reserve, release, commit; a server stream of the shelf
//	shipping       HTTP   a third party: 429 with Retry-After, a slow tail
//	notifications  NATS   handles each event once, by its inbox
//
// Everything listens on loopback only. Start reading at internal/orders/saga.go.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/backstay-go/backstay/examples/shop/internal/drill"
	"github.com/backstay-go/backstay/examples/shop/internal/headless"
	"github.com/backstay-go/backstay/examples/shop/internal/load"
	"github.com/backstay-go/backstay/examples/shop/internal/store"
	"github.com/backstay-go/backstay/examples/shop/internal/supervisor"
	"github.com/backstay-go/backstay/examples/shop/internal/tagged"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("shop: ")
	if len(os.Args) == 2 && os.Args[1] == supervisor.ServiceFlag {
		if err := supervisor.Serve(services()); err != nil {
			log.Fatal(err)
		}
		return
	}
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	var cfg config
	var check headless.Config
	flag.StringVar(&cfg.addr, "addr", "127.0.0.1:0", "where the page is served; port 0: any that is free")
	flag.StringVar(&cfg.data, "data", filepath.Join(os.TempDir(), "backstay-shop"), "folder of the databases and of the broker's streams; what is open there is resumed")
	flag.BoolVar(&cfg.fresh, "fresh", false, "begin with an empty shop")
	flag.StringVar(&cfg.postgres, "postgres", "", "URL of a PostgreSQL database for all services, a schema each, instead of SQLite files; builds its driver first, unless built with -tags postgres")
	flag.StringVar(&cfg.nats, "nats", "", "URL of a NATS server with JetStream, instead of the one inside")
	flag.Uint64Var(&cfg.seed, "seed", 1, "of customers and chaos")
	flag.Float64Var(&cfg.load, "load", 10, fmt.Sprintf("orders a second, %d to %d", load.MinRate, load.MaxRate))
	flag.BoolVar(&cfg.processes, "processes", false, "each service in a process of its own, so that kill -9 is real")
	flag.BoolVar(&cfg.protection, "protection", true, "call through Backstay; false: bare clients with blind retries")
	flag.DurationVar(&check.For, "check", 0, "run without hands for so long, report, and fail if the books do not balance")
	flag.StringVar(&check.Chaos, "chaos", "", "with -check: random, or a preset of the page")
	flag.BoolVar(&check.Compare, "compare", false, "with -check: twice, with protection off and on")
	flag.Parse()
	if flag.NArg() > 0 {
		return fmt.Errorf("what is %q? There are flags only: see -help", flag.Arg(0))
	}
	if _, ok := drill.Find(check.Chaos); check.Chaos != "" && check.Chaos != "random" && !ok {
		return fmt.Errorf("no chaos is called %q", check.Chaos)
	}
	if cfg.postgres != "" && !store.Postgres {
		return rebuilt()
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if check.For > 0 {
		return checked(ctx, cfg, check)
	}
	return serve(ctx, cfg)
}

// rebuilt is this program with the PostgreSQL driver, which takes a tenth of the time of a cold build and is of use to few.
func rebuilt() error {
	log.Print("building the PostgreSQL driver: go build -tags postgres")
	code, err := tagged.Run(context.Background(), "postgres", "github.com/backstay-go/backstay/examples/shop", os.Args[1:])
	if err == nil && code != 0 {
		os.Exit(code) // it has said why
	}
	return err
}

// serve runs the shop for a visitor.
func serve(ctx context.Context, cfg config) error {
	start := time.Now()
	s, err := open(ctx, cfg)
	if err != nil {
		return err
	}
	fmt.Printf("The shop is open after %.1f s: http://%s/  (Ctrl-C closes it)\n", time.Since(start).Seconds(), s.services.Address("gateway"))
	s.run(ctx)
	s.close()
	return nil
}

// checked runs the shop without a visitor, in a folder of its own.
func checked(ctx context.Context, cfg config, check headless.Config) error {
	cfg.fresh = true
	check.Seed, check.Processes, check.Out = cfg.seed, cfg.processes, os.Stdout
	one := func(protection bool) (headless.Report, error) {
		dir, err := os.MkdirTemp("", "backstay-shop-check")
		if err != nil {
			return headless.Report{}, err
		}
		defer os.RemoveAll(dir)
		cfg := cfg
		cfg.data, cfg.protection = dir, protection
		s, err := open(ctx, cfg)
		if err != nil {
			return headless.Report{}, err
		}
		life, end := context.WithCancel(ctx)
		done := make(chan struct{})
		go func() {
			defer close(done)
			s.run(life)
		}()
		check.Protection = protection
		report, err := headless.Run(ctx, check, s.desk, s.load, s.services)
		end()
		<-done
		s.close()
		return report, err
	}
	if !check.Compare {
		_, err := one(cfg.protection)
		return err
	}
	off, errOff := one(false)
	on, errOn := one(true)
	if err := errors.Join(errOff, errOn); err != nil {
		return err
	}
	fmt.Printf("goodput with protection off: %.1f %%, on: %.1f %% (seed %d, chaos %s, %v each)\n", 100*off.Goodput(), 100*on.Goodput(), cfg.seed, check.Chaos, check.For)
	return nil
}

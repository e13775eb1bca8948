package page_test

import (
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"testing"
	"time"

	"github.com/backstay-go/backstay/examples/shop/internal/page"
)

var serve = flag.String("serve", "", "serve the page of a simulated shop on this `address` until interrupted, to work on its looks, instead of testing")

func TestMain(m *testing.M) {
	flag.Parse()
	if *serve != "" {
		serveFake(*serve)
		return
	}
	os.Exit(m.Run())
}

func serveFake(address string) {
	f := newFake(time.Now().Add(-150*time.Second).Truncate(time.Second), 1)
	handler := page.New(page.Config{
		Snapshot: func() page.Snapshot { f.advance(time.Now()); return f.Snapshot() },
		Order:    f.Order,
		Actions:  f,
	})
	server := &http.Server{Addr: address, Handler: handler, ReadHeaderTimeout: 5 * time.Second}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt)
	go func() { <-stop; _ = server.Close() }()
	fmt.Println("http://" + address)
	_ = server.ListenAndServe()
}

// Per-host gives each host a breaker of its own: one bad host does not shut out the others, and five thousand hosts do not fill the memory.
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"time"

	"github.com/backstay-go/backstay/breaker"
	"github.com/backstay-go/backstay/httpclient"
)

func main() {
	if err := run(); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("shown: a breaker for each host, in bounded memory; an open one was not forgotten for healthy ones.")
}

func run() error {
	// One real server plays all hosts; whatever is called bad.* answers 503.
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.Host, "bad.") {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer server.Close()
	base := &http.Transport{
		DisableKeepAlives: true, // five thousand hosts would keep as many connections
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, server.Listener.Addr().String())
		},
	}

	breakers := httpclient.PerHost(breaker.Config{Consecutive: 5, Spread: -1, OpenFor: 20 * time.Second})
	client := &http.Client{Transport: httpclient.New(base, breakers)}

	get := func(host string) error {
		res, err := client.Get("http://" + host + "/")
		if err != nil {
			return err
		}
		return res.Body.Close()
	}
	refused := 0
	for range 20 {
		if err := get("bad.example"); errors.Is(err, breaker.ErrOpen) {
			refused++
		}
		if err := get("good.example"); err != nil {
			return err
		}
	}
	fmt.Printf("20 calls each: good.example refused 0, bad.example refused %d\n", refused)
	for key, b := range breakers.All() {
		s := b.Snapshot()
		fmt.Printf("   %-25s %v, %d failures in the window\n", key, s.State, s.Failures)
	}

	for i := range 5000 {
		if err := get(fmt.Sprintf("host-%d.example", i)); err != nil {
			return err
		}
	}
	stats := breakers.Stats()
	fmt.Printf("after 5000 more hosts: %d breakers held, %d forgotten\n", stats.Keys, stats.Evicted)
	err := get("bad.example")
	fmt.Printf("bad.example, called again: %v\n", err)
	if refused != 15 || stats.Keys > 1024 || !errors.Is(err, breaker.ErrOpen) {
		return errors.New("this is not what was to be shown")
	}
	return nil
}

// Hedge-tail calls a real server of which two answers in a hundred are slow, once as it is and once with a hedge.
package main

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/hedge"
	"github.com/backstay-go/backstay/httpclient"
)

func main() {
	if err := run(); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("shown: a few per cent more requests, and the slow answers are gone.")
}

func run() error {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		wait := 2 * time.Millisecond
		if rand.IntN(100) < 2 {
			wait = 300 * time.Millisecond // a pause, a lost packet, a busy neighbour
		}
		select {
		case <-time.After(wait):
			_, _ = io.WriteString(w, "in stock")
		case <-r.Context().Done(): // this attempt lost
		}
	}))
	defer server.Close()

	// Without a delay of its own the hedge waits for as long as 95 % of the calls take.
	h := hedge.New(hedge.Config{})
	plain := measure(server.URL, backstay.Chain())
	hedged := measure(server.URL, h)
	s := h.Snapshot()
	fmt.Printf("              p50        p99\nwithout  %8v %10v\nhedged   %8v %10v\n", plain(0.5), plain(0.99), hedged(0.5), hedged(0.99))
	fmt.Printf("%d of %d calls had a further request (%.1f %%), after %v; it won %d times\n",
		s.Hedges, s.Calls, 100*float64(s.Hedges)/float64(s.Calls), s.Delay.Round(100*time.Microsecond), s.Wins)
	if hedged(0.99) > plain(0.99)/2 || s.Hedges > s.Calls/8 {
		return errors.New("this is not what was to be shown")
	}
	return nil
}

// measure makes 3,000 calls, twenty at once, and returns the quantiles of their times.
func measure(url string, p backstay.Policy) func(q float64) time.Duration {
	transport := &http.Transport{MaxIdleConnsPerHost: 50}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: httpclient.New(transport, p)}
	const workers, calls = 20, 150
	took := make([]time.Duration, workers*calls)
	var all sync.WaitGroup
	for w := range workers {
		all.Go(func() {
			for i := range calls {
				start := time.Now()
				if resp, err := client.Get(url); err == nil { // a GET may be repeated, so it may be hedged
					_, _ = io.Copy(io.Discard, resp.Body)
					_ = resp.Body.Close()
				}
				took[w*calls+i] = time.Since(start)
			}
		})
	}
	all.Wait()
	slices.Sort(took)
	return func(q float64) time.Duration { return took[int(q*float64(len(took)))].Round(100 * time.Microsecond) }
}

// Overload sends a real server more than it can do, and draws how an adaptive limit finds out how much that is, and finds it again when half
// of the server is lost.
package main

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/backstay-go/backstay/adaptive"
	"github.com/backstay-go/backstay/httpclient"
)

func main() {
	if err := run(); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("shown: the limit settles near the number of workers, and the answers stay quick under any load.")
}

const service = 20 * time.Millisecond

func run() error {
	// A server of 24 workers; who comes when all are busy waits for one.
	workers := make(chan struct{}, 24)
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		workers <- struct{}{}
		time.Sleep(service)
		<-workers
	}))
	defer server.Close()

	limit := adaptive.New(adaptive.Config{})
	base := &http.Transport{MaxIdleConnsPerHost: 200}
	defer base.CloseIdleConnections()
	client := &http.Client{Transport: httpclient.New(base, limit)}

	var good, refused, spent atomic.Int64
	stop := make(chan struct{})
	var all sync.WaitGroup
	for range 150 { // callers that never tire
		all.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				start := time.Now()
				if resp, err := client.Get(server.URL); err == nil {
					_ = resp.Body.Close()
					good.Add(1)
					spent.Add(int64(time.Since(start)))
				} else if errors.Is(err, adaptive.ErrLimited) {
					refused.Add(1)
					time.Sleep(service)
				}
			}
		})
	}
	for tick := range 16 {
		if tick == 8 {
			for range 12 { // the other half is lost
				workers <- struct{}{}
			}
			fmt.Println("       --- half of the workers are lost ---")
		}
		time.Sleep(500 * time.Millisecond)
		n, took := good.Swap(0), spent.Swap(0)
		at := limit.Snapshot().Limit
		fmt.Printf("%4.1fs  limit %3d %-48s %5d/s in %v, %d refused\n", float64(tick+1)/2, at, strings.Repeat("▪", min(at, 48)),
			2*n, time.Duration(took/max(n, 1)).Round(time.Millisecond), refused.Swap(0))
	}
	close(stop)
	all.Wait()
	if s := limit.Snapshot(); s.Limit > 60 || s.RTT > 5*service {
		return fmt.Errorf("this is not what was to be shown: limit %d, response time %v", s.Limit, s.RTT)
	}
	return nil
}

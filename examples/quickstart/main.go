// Quickstart calls a server that fails, stalls, answers 429, goes down and comes back, with a bare http.Client and with a Backstay client side by
// side, 40 times a second each. Each row is half a second.
package main

import (
	"fmt"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/backstay-go/backstay/httpclient"
	"github.com/backstay-go/backstay/standard"
)

// numbers are what became of some calls.
type numbers struct {
	good, failed int
	slowest      time.Duration
}

func (n *numbers) add(ok bool, took time.Duration) {
	if ok {
		n.good++
	} else {
		n.failed++
	}
	n.slowest = max(n.slowest, took)
}

// side is one of the two clients.
type side struct {
	client *http.Client
	server *server

	mu    sync.Mutex
	row   numbers             // since the last row; guarded by mu
	parts map[string]*numbers // by part of the story; guarded by mu
	asked map[string]int64    // requests at the server by part; main's own
	seen  int64               // requests at the server before this row; main's own
}

func newSide(phase *atomic.Int64, rt http.RoundTripper) *side {
	return &side{server: newServer(phase), client: &http.Client{Transport: rt}, parts: map[string]*numbers{}, asked: map[string]int64{}}
}

// call makes one call and files how it ended under the part in which it began.
func (s *side) call(part string) {
	start := time.Now()
	res, err := s.client.Get(s.server.URL)
	if err == nil {
		res.Body.Close()
	}
	ok, took := err == nil && res.StatusCode == http.StatusOK, time.Since(start)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.parts[part] == nil {
		s.parts[part] = &numbers{}
	}
	s.parts[part].add(ok, took)
	s.row.add(ok, took)
}

// print returns the numbers since the last row.
func (s *side) print(part string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.server.requests.Load()
	text := fmt.Sprintf("%5d %6d %6dms %6d", s.row.good, s.row.failed, s.row.slowest.Milliseconds(), n-s.seen)
	s.asked[part] += n - s.seen
	s.row, s.seen = numbers{}, n
	return text
}

const header = " good failed  slowest  asked"

func main() {
	var phase atomic.Int64
	bare := newSide(&phase, nil)
	// httpclient.New(nil) would do; the attempt is bounded more tightly here, so that a stall is given up before you look away.
	protected := newSide(&phase, httpclient.New(nil, standard.New(standard.Config{Attempt: 300 * time.Millisecond})))
	fmt.Printf("%-16s | %-29s | %s\n%-16s | %s | %s\n", "", "bare http.Client", "Backstay", "server", header, header)
	var calls sync.WaitGroup
	tick := time.NewTicker(25 * time.Millisecond)
	for i, p := range phases {
		for n := 1; n <= int(p.lasts/(25*time.Millisecond)); n++ {
			<-tick.C
			phase.Store(int64(i))
			calls.Go(func() { bare.call(p.part) })
			calls.Go(func() { protected.call(p.part) })
			if n%20 == 0 {
				fmt.Printf("%-16s | %s | %s\n", p.name, bare.print(p.part), protected.print(p.part))
			}
		}
	}
	calls.Wait()
	fmt.Println()
	for _, part := range []string{single, down, back} {
		b, p := bare.parts[part], protected.parts[part]
		fmt.Printf("%-16s | %5d %6d %6dms %6d | %5d %6d %6dms %6d\n", part,
			b.good, b.failed, b.slowest.Milliseconds(), bare.asked[part], p.good, p.failed, p.slowest.Milliseconds(), protected.asked[part])
	}
	if protected.parts[single].failed >= bare.parts[single].failed || protected.asked[down] >= bare.asked[down]*3/4 || protected.parts[back].good == 0 {
		fmt.Println("this is not what was to be shown")
		os.Exit(1)
	}
	fmt.Println("shown: single faults seldom reach the caller; a server that was down was left alone, and found again by probes.")
}

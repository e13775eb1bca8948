// Chaos-test asks of an order service what it does when its payment service fails, answers late, and loses answers: the last is the one that
// charges a customer twice.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/chaos"
	"github.com/backstay-go/backstay/retry"
	"github.com/backstay-go/backstay/timeout"
)

// payments is the other service: it charges once for each key, or, if it does not look at keys, each time.
type payments struct {
	looksAtKeys bool

	mu      sync.Mutex
	charges map[string]int // guarded by mu
}

func (p *payments) charge(key string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.looksAtKeys && p.charges[key] > 0 {
		return nil
	}
	p.charges[key]++
	return nil
}

func main() {
	twice := map[bool]int{}
	for _, looks := range []bool{false, true} {
		paid, double := rehearse(looks)
		twice[looks] = double
		fmt.Printf("payments look at the key: %-5v  orders paid %d of 300, charged twice %d\n", looks, paid, double)
	}
	if twice[false] == 0 || twice[true] != 0 {
		fmt.Println("this is not what was to be shown")
		os.Exit(1)
	}
	fmt.Println("shown: a lost answer and a retry charge twice, unless the other side knows the key.")
}

// rehearse pays 300 orders with faults switched on and returns how many were paid, and how many twice.
func rehearse(looksAtKeys bool) (paid, double int) {
	service := &payments{looksAtKeys: looksAtKeys, charges: map[string]int{}}
	faults := chaos.New(chaos.Config{
		Seed:      1, // the same calls are hit each time
		FaultRate: 0.1, Fault: errors.New("connection refused"),
		LostRate:    0.1, // the charge is made, and nobody hears of it
		LatencyRate: 0.02, Latency: 30 * time.Millisecond,
	})
	pipeline := backstay.Chain(
		retry.New(retry.Config{Attempts: 5, Delay: time.Millisecond}),
		timeout.New(20*time.Millisecond),
		faults, // innermost: in place of what fails in earnest
	)
	faults.Switch(true) // it does nothing until told
	fmt.Print(pipeline)

	for i := range 300 {
		key := fmt.Sprint("order-", i)
		err := backstay.Run(context.Background(), pipeline, func(context.Context) error { return service.charge(key) })
		if err == nil {
			paid++
		}
		if service.charges[key] > 1 {
			double++
		}
	}
	return paid, double
}

package drill

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/backstay-go/backstay/examples/shop/internal/fault"
)

// Random is a schedule of faults that follows from its seed: one after another, with pauses, and where services are processes a kill now and then, each in
// turn.
type Random struct {
	Plant    Plant
	Services []string
	Kill     bool                             // services are processes
	Log      func(format string, args ...any) // of what is done

	rng   *rand.Rand
	kills int
}

// killEvery is how many faults there are for each kill.
const killEvery = 3

// Run breaks and mends until ctx is over, and leaves everything mended. It returns how many faults there were.
func (r *Random) Run(ctx context.Context, seed uint64) (faults int) {
	r.rng = rand.New(rand.NewPCG(seed, 0xc4a05))
	for ; pause(ctx, r.between(1, 4)); faults++ {
		if r.Kill && faults%killEvery == killEvery-1 {
			service := r.Services[r.kills%len(r.Services)]
			r.kills++
			r.Log("kill -9 %s", service)
			if err := r.Plant.Kill(service); err != nil {
				r.Log("kill %s: %v", service, err)
			}
			continue
		}
		r.one(ctx)
	}
	return faults
}

// one breaks something for a few seconds.
func (r *Random) one(ctx context.Context) {
	what, do := r.draw()
	length := r.between(2, 8)
	r.Log("%s for %.1f s", what, length.Seconds())
	if err := do(ctx, true); err != nil {
		r.Log("%s: %v", what, err) // a service that was killed a moment ago
	}
	pause(ctx, length)
	// Also when ctx is over: nothing stays broken.
	mend, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
	defer cancel()
	for mend.Err() == nil {
		err := do(mend, false)
		if err == nil {
			return
		}
		r.Log("mending %s: %v", what, err)
		pause(mend, 300*time.Millisecond)
	}
}

func (r *Random) draw() (what string, do func(ctx context.Context, on bool) error) {
	service := r.Services[r.rng.IntN(len(r.Services))]
	some := func(name string, s fault.Set) (string, func(context.Context, bool) error) {
		return service + " " + name, func(ctx context.Context, on bool) error {
			if !on {
				return r.Plant.Faults(ctx, service, fault.Set{})
			}
			return r.Plant.Faults(ctx, service, s)
		}
	}
	share := 0.2 + 0.6*r.rng.Float64()
	switch r.rng.IntN(9) {
	case 0:
		return some("is down", fault.Set{Down: true})
	case 1:
		return some("hangs", fault.Set{Hang: true})
	case 2:
		return some(fmt.Sprintf("fails %.0f %%", 100*share), fault.Set{Errors: share})
	case 3:
		return some(fmt.Sprintf("takes %.0f ms more", 1000*share), fault.Set{Latency: time.Duration(share * float64(time.Second))})
	case 4:
		return some(fmt.Sprintf("loses %.0f %% of its answers", 100*share), fault.Set{LoseReply: share})
	case 5:
		return some("flaps", fault.Set{Flap: true})
	case 6:
		return "broker is down", func(_ context.Context, on bool) error { return r.Plant.Broker(!on) }
	case 7:
		return "relay is paused", func(ctx context.Context, on bool) error { return r.Plant.Relay(ctx, !on) }
	default:
		return "poison event", r.Plant.Poison
	}
}

// between draws a number of seconds.
func (r *Random) between(from, to float64) time.Duration {
	return time.Duration((from + (to-from)*r.rng.Float64()) * float64(time.Second))
}

// pause waits for d, and reports whether ctx is not over.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

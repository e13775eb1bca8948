package sqlstore

import (
	"context"
	"sync"
	"time"
)

// restless is how long a connection may be at rest before it is asked whether
// it still lives, as pgxpool does too: a server that was started anew, or a
// firewall, does not tell.
const restless = time.Second

// Resting are connections that a store keeps for its engines and that nobody
// uses now. The zero value is empty; safe for concurrent use.
type Resting[C any] struct {
	mu  sync.Mutex
	all []resting[C] // guarded by mu
}

type resting[C any] struct {
	c     C
	since time.Time
}

// Take returns the connection that was used last and lives; false if there is
// none. Those that ping finds dead are handed to drop.
func (r *Resting[C]) Take(ctx context.Context, ping func(C, context.Context) error, drop func(C)) (c C, ok bool) {
	for {
		r.mu.Lock()
		n := len(r.all)
		if n == 0 {
			r.mu.Unlock()
			return c, false
		}
		last := r.all[n-1]
		r.all = r.all[:n-1]
		r.mu.Unlock()
		if time.Since(last.since) < restless || ping(last.c, ctx) == nil {
			return last.c, true
		}
		drop(last.c)
	}
}

// Keep takes c unless there are as many as that, and reports whether it did.
func (r *Resting[C]) Keep(c C, most int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.all) >= most {
		return false
	}
	r.all = append(r.all, resting[C]{c, time.Now()})
	return true
}

// Empty takes all of them out.
func (r *Resting[C]) Empty() []C {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]C, 0, len(r.all))
	for _, x := range r.all {
		all = append(all, x.c)
	}
	r.all = nil
	return all
}

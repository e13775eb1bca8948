package sqlstore

import (
	"context"
	"sync"

	"github.com/backstay-go/backstay/saga"
)

// hub hands hints to the engines of this process, and to the way to other
// processes where there is one.
type hub struct {
	out func(saga.Hint) // set before the store is used; nil: none

	mu   sync.Mutex
	ears map[*func(saga.Hint)]struct{} // guarded by mu
}

// SendHints has every hint handed to out as well, which must not block. To be
// called before the store is used.
func (s *Store) SendHints(out func(saga.Hint)) { s.hub.out = out }

// Hints hands the hints of this process on until ctx ends.
func (s *Store) Hints(ctx context.Context, hint func(saga.Hint)) error {
	h := &s.hub
	h.mu.Lock()
	if h.ears == nil {
		h.ears = map[*func(saga.Hint)]struct{}{}
	}
	h.ears[&hint] = struct{}{}
	h.mu.Unlock()
	defer func() {
		h.mu.Lock()
		delete(h.ears, &hint)
		h.mu.Unlock()
	}()
	hint(saga.Hint{}) // whatever came before
	<-ctx.Done()
	return context.Cause(ctx)
}

func (s *Store) hint(hint saga.Hint) {
	s.hub.mu.Lock()
	ears := make([]func(saga.Hint), 0, len(s.hub.ears))
	for f := range s.hub.ears {
		ears = append(ears, *f)
	}
	s.hub.mu.Unlock()
	for _, f := range ears {
		f(hint)
	}
	if s.hub.out != nil {
		s.hub.out(hint)
	}
}

// hintStarted tells of instances that nobody owns yet.
func (s *Store) hintStarted(made []saga.Started, soon bool) {
	for i := range made {
		if !made[i].Existing && !made[i].Owned {
			s.hint(saga.Hint{Soon: soon})
			return
		}
	}
}

// hintReleased tells of instances that are due for others at once.
func (s *Store) hintReleased(batch []saga.Checkpoint, out []saga.Committed) {
	for i := range batch {
		cp := &batch[i]
		if cp.Release && out[i].Err == nil && !cp.State.Terminal() && !cp.State.Parked() && cp.Wake == 0 {
			s.hint(saga.Hint{})
			return
		}
	}
}

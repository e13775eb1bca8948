package sagamem

import (
	"context"
	"maps"

	"github.com/backstay-go/backstay/saga"
)

const txKind = "memory"

// Tx is the transaction of a TxStep: a view of the store's own small map, as it was at the beginning
// with the step's own writes. It is valid until the body returns, on one goroutine.
type Tx struct {
	s     *Store
	wrote map[string]string
}

// Get returns the value of key, or "".
func (t *Tx) Get(key string) string {
	if v, ok := t.wrote[key]; ok {
		return v
	}
	t.s.mu.Lock()
	defer t.s.mu.Unlock()
	return t.s.data[key]
}

// Put sets the value of key when the step commits.
func (t *Tx) Put(key, value string) { t.wrote[key] = value }

// Value returns the committed value of key, or "".
func (s *Store) Value(key string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.data[key]
}

// Draft is a transactional step whose kind has not been said: see saga.Draft.
type Draft[I, O any] struct{ *saga.Draft[I, O] }

// TxStep adds a step whose writes to the Tx and whose record become durable together or not at all.
func TxStep[I, O any](b *saga.Builder[I], name string, fn func(c *saga.Ctx, tx *Tx, in I) (O, error), opts ...saga.StepOption) Draft[I, O] {
	return Draft[I, O]{saga.BindTx(b, txKind, name, func(c *saga.Ctx, tx any, in I) (O, error) {
		return fn(c, tx.(*Tx), in)
	}, opts...)}
}

// CompensateTx gives the step an undo in a transaction of the store.
func (d Draft[I, O]) CompensateTx(fn func(c *saga.Ctx, tx *Tx, in I, res saga.Result[O]) error, opts ...saga.StepOption) *saga.StepRef[O] {
	return d.Draft.CompensateTx(func(c *saga.Ctx, tx any, in I, res saga.Result[O]) error {
		return fn(c, tx.(*Tx), in, res)
	}, opts...)
}

// TxKind is saga.Transactor.
func (s *Store) TxKind() string { return txKind }

// InTx is saga.Transactor. The body runs without the store's lock; meanwhile the instance counts
// as locked, so that nobody takes it over.
func (s *Store) InTx(ctx context.Context, at saga.Fence, body func(saga.Tx) (saga.Checkpoint, error)) (saga.Committed, error) {
	if err := ctx.Err(); err != nil {
		return saga.Committed{}, err
	}
	s.mu.Lock()
	in := s.all[at.ID]
	if in == nil || in.State.Terminal() || in.epoch != at.Epoch || int64(len(in.log)) != at.Seq || in.busy {
		s.mu.Unlock()
		return saga.Committed{}, saga.ErrFenced
	}
	in.busy = true
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		in.busy = false
		s.mu.Unlock()
	}()
	tx := &Tx{s, map[string]string{}}
	var locked []string
	cp, err := body(saga.Tx{Handle: tx, Lock: func(_ context.Context, resource string) error {
		s.mu.Lock()
		defer s.mu.Unlock()
		if _, held := s.locks[resource]; !held {
			locked = append(locked, resource)
		}
		return s.lock(at.ID, resource)
	}})
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		for _, resource := range locked {
			delete(s.locks, resource)
		}
		return saga.Committed{}, err
	}
	maps.Copy(s.data, tx.wrote)
	return s.write(in, &cp), nil
}

var (
	_ saga.Store      = (*Store)(nil)
	_ saga.Reader     = (*Store)(nil)
	_ saga.Mailbox    = (*Store)(nil)
	_ saga.Keeper     = (*Store)(nil)
	_ saga.Transactor = (*Store)(nil)
	_ saga.Locker     = (*Store)(nil)
	_ saga.Listener   = (*Store)(nil)
)

package sagamem

import (
	"context"
	"slices"
	"time"

	"github.com/backstay-go/backstay/saga"
)

// Register is saga.Keeper.
func (s *Store) Register(_ context.Context, def saga.Ref, hash string, _ []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.init()
	if old, ok := s.shapes[def]; ok && old != hash {
		return saga.ErrShape
	}
	s.shapes[def] = hash
	return nil
}

// Retain is saga.Keeper.
func (s *Store) Retain(_ context.Context, age time.Duration, limit int) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, before := 0, s.now().Add(-age)
	for _, in := range s.all {
		if n == limit {
			break
		}
		if in.State.Terminal() && in.Ended.Before(before) {
			s.forget(in)
			n++
		}
	}
	s.order = slices.DeleteFunc(s.order, func(id string) bool { return s.all[id] == nil })
	return n, nil
}

// Erase is saga.Keeper.
func (s *Store) Erase(_ context.Context, tenant, def, key string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	in := s.all[s.keys[bizKey{tenant, def, key}]]
	switch {
	case in == nil:
		return saga.ErrNotFound
	case !in.State.Terminal():
		return saga.ErrBusy
	}
	s.forget(in)
	s.order = slices.DeleteFunc(s.order, func(id string) bool { return id == in.ID })
	return nil
}

// forget deletes all that is kept of in. Under mu.
func (s *Store) forget(in *instance) {
	delete(s.all, in.ID)
	delete(s.keys, bizKey{in.Tenant, in.Ref.Def, in.Key})
}

// Lock is saga.Locker.
func (s *Store) Lock(_ context.Context, at saga.Fence, resource string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	in := s.all[at.ID]
	if in == nil || in.epoch != at.Epoch || in.State.Terminal() {
		return saga.ErrFenced
	}
	return s.lock(at.ID, resource)
}

func (s *Store) lock(id, resource string) error {
	holder, held := s.locks[resource]
	if held && holder != id {
		return saga.ErrLocked
	}
	if !held {
		s.locks[resource] = id
		s.all[id].locks = append(s.all[id].locks, resource)
	}
	return nil
}

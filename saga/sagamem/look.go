package sagamem

import (
	"context"
	"slices"

	"github.com/backstay-go/backstay/saga"
)

// Get is saga.Reader.
func (s *Store) Get(_ context.Context, id string) (saga.Instance, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if in := s.all[id]; in != nil {
		return in.Instance, nil
	}
	return saga.Instance{}, saga.ErrNotFound
}

// Find is saga.Reader.
func (s *Store) Find(_ context.Context, tenant, def, key string) (saga.Instance, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if in := s.all[s.keys[bizKey{tenant, def, key}]]; in != nil {
		return in.Instance, nil
	}
	return saga.Instance{}, saga.ErrNotFound
}

// List is saga.Reader.
func (s *Store) List(_ context.Context, f saga.Filter) ([]saga.Instance, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stale {
		slices.Sort(s.order)
		s.stale = false
	}
	limit := f.Limit
	if limit <= 0 {
		limit = 100
	}
	at, found := slices.BinarySearch(s.order, f.After)
	if found {
		at++
	}
	var out []saga.Instance
	for _, id := range s.order[at:] {
		in := s.all[id]
		if in == nil || !s.matches(in, f) {
			continue
		}
		if out = append(out, in.Instance); len(out) == limit {
			break
		}
	}
	return out, nil
}

func (s *Store) matches(in *instance, f saga.Filter) bool {
	switch {
	case f.Tenant != "" && in.Tenant != f.Tenant,
		f.Ref.Def != "" && in.Ref.Def != f.Ref.Def,
		f.Ref.Ver != 0 && in.Ref.Ver != f.Ref.Ver,
		len(f.States) > 0 && !slices.Contains(f.States, in.State),
		f.Step != "" && in.Step != f.Step,
		f.Older > 0 && s.now().Sub(in.Created) < f.Older,
		f.Except != nil && (in.State.Terminal() || slices.Contains(f.Except, in.Ref)):
		return false
	}
	return true
}

// History is saga.Reader.
func (s *Store) History(_ context.Context, id string, after int64, limit int) ([]saga.Entry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	in := s.all[id]
	if in == nil {
		return nil, saga.ErrNotFound
	}
	from := min(max(after, 0), int64(len(in.log)))
	to := min(from+int64(limit), int64(len(in.log)))
	return slices.Clone(in.log[from:to]), nil
}

// Deliver is saga.Mailbox.
func (s *Store) Deliver(_ context.Context, m saga.Mail) (saga.Delivered, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	in := s.all[m.ID]
	switch {
	case in == nil:
		return saga.Delivered{}, saga.ErrNotFound
	case in.State.Terminal():
		return saga.Delivered{State: in.State, Pivot: in.Pivot}, saga.ErrTerminal
	}
	d := saga.Delivered{State: in.State, Pivot: in.Pivot}
	for _, l := range in.inbox {
		if l.MailKey == m.MailKey {
			d.Seen = true
			return d, nil
		}
	}
	m.Data = slices.Clone(m.Data)
	in.inbox = append(in.inbox, letter{Mail: m})
	in.mail++
	if n := s.nodes[in.Owner]; n != nil {
		n.mail[in.ID] = true
	} else if !in.State.Parked() {
		s.sleep(in, s.now())
	}
	return d, nil
}

// Mail is saga.Mailbox.
func (s *Store) Mail(_ context.Context, id string) ([]saga.Mail, int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	in := s.all[id]
	if in == nil {
		return nil, 0, saga.ErrNotFound
	}
	var out []saga.Mail
	for _, l := range in.inbox {
		if !l.consumed {
			out = append(out, l.Mail)
		}
	}
	return out, in.mail, nil
}

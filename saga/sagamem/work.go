package sagamem

import (
	"container/heap"
	"context"
	"slices"

	"github.com/backstay-go/backstay/saga"
)

// Claim is saga.Store.
func (s *Store) Claim(ctx context.Context, want saga.Claim) ([]saga.Claimed, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.init()
	s.bury()
	if want.ID != "" {
		return s.claimOne(want)
	}
	claimer := s.nodes[want.Node]
	if claimer == nil || claimer.dead {
		return nil, nil
	}
	var found []*instance
	for id, n := range s.nodes {
		if !n.dead || id == want.Node {
			continue
		}
		for _, in := range n.owned {
			if !in.busy && slices.Contains(want.Refs, in.Ref) && len(found) < want.Max {
				found = append(found, in)
			}
		}
	}
	found = append(found, s.dueNow(want.Refs, want.Max-len(found))...)
	out := make([]saga.Claimed, 0, len(found))
	for _, in := range found {
		out = append(out, s.take(in, want.Node))
	}
	return out, nil
}

// dueNow picks the oldest due instances, of those the ones of the highest priority.
func (s *Store) dueNow(refs []saga.Ref, limit int) []*instance {
	now := s.now()
	var popped []*item
	for len(popped) < 4*limit {
		var first *queue
		for _, ref := range refs {
			q := s.due[ref]
			if q == nil || q.Len() == 0 || (*q)[0].at.After(now) {
				continue
			}
			if first == nil || (*q)[0].at.Before((*first)[0].at) {
				first = q
			}
		}
		if first == nil {
			break
		}
		popped = append(popped, heap.Pop(first).(*item))
	}
	slices.SortStableFunc(popped, func(a, b *item) int { return b.in.Priority - a.in.Priority })
	var out []*instance
	for _, it := range popped {
		if len(out) < limit && !it.in.busy {
			it.in.entry = nil
			out = append(out, it.in)
			continue
		}
		heap.Push(s.due[it.in.Ref], it)
	}
	return out
}

func (s *Store) claimOne(want saga.Claim) ([]saga.Claimed, error) {
	in := s.all[want.ID]
	switch {
	case in == nil:
		return nil, saga.ErrNotFound
	case in.State.Terminal():
		return nil, saga.ErrTerminal
	case in.busy:
		return nil, saga.ErrBusy
	}
	if n := s.nodes[in.Owner]; n != nil && !n.dead && in.Owner != want.Node {
		return nil, saga.ErrBusy
	}
	return []saga.Claimed{s.take(in, want.Node)}, nil
}

// take hands in out. Under mu.
func (s *Store) take(in *instance, to string) saga.Claimed {
	in.epoch++
	c := saga.Claimed{
		Instance: in.Instance, Epoch: in.epoch, Input: slices.Clone(in.input), Codec: in.codec, Mail: in.mail, Now: s.now(),
		Log: slices.Clone(in.log),
	}
	for _, l := range in.inbox {
		if !l.consumed {
			c.Inbox = append(c.Inbox, l.Mail)
		}
	}
	if to != "" {
		s.own(in, to)
		if in.State == saga.Ready || in.State == saga.Waiting {
			in.State = saga.Running
		}
		c.Owner = to
	}
	return c
}

// Commit is saga.Store.
func (s *Store) Commit(ctx context.Context, batch []saga.Checkpoint) ([]saga.Committed, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.init()
	out := make([]saga.Committed, len(batch))
	for i := range batch {
		out[i] = s.commit(&batch[i])
	}
	return out, nil
}

func (s *Store) commit(cp *saga.Checkpoint) saga.Committed {
	in := s.all[cp.ID]
	if in == nil {
		return saga.Committed{Err: saga.ErrFenced}
	}
	last := int64(len(in.log))
	if end := cp.Seq + int64(len(cp.Log)); len(cp.Log) > 0 && last >= end && in.log[end-1].Epoch == cp.Epoch {
		return saga.Committed{Mail: in.mail} // written before
	}
	if in.State.Terminal() || in.epoch != cp.Epoch || last != cp.Seq || in.busy {
		return saga.Committed{Err: saga.ErrFenced}
	}
	return s.write(in, cp)
}

// write carries out a checkpoint that has passed the fence. Under mu.
func (s *Store) write(in *instance, cp *saga.Checkpoint) saga.Committed {
	now := s.now()
	in.log = append(in.log, cp.Log...)
	stamp(in.log[len(in.log)-len(cp.Log):], now, cp.Epoch)
	in.State, in.Step, in.Pivot = cp.State, cp.Step, cp.Pivot
	for _, k := range cp.Consume {
		for i := range in.inbox {
			if in.inbox[i].MailKey == k {
				in.inbox[i].consumed = true
			}
		}
	}
	switch {
	case cp.State.Terminal():
		s.disown(in)
		s.unqueue(in)
		in.Ended = now
		for _, resource := range in.locks {
			if s.locks[resource] == in.ID {
				delete(s.locks, resource)
			}
		}
		in.locks = nil
	case !cp.Release:
	case cp.Seen < in.mail && !cp.State.Parked(), cp.Wake == 0:
		s.sleep(in, now)
	case cp.Wake > 0:
		s.sleep(in, now.Add(cp.Wake))
	default:
		s.disown(in)
		s.unqueue(in)
	}
	return saga.Committed{Mail: in.mail}
}

// Beat is saga.Store.
func (s *Store) Beat(ctx context.Context, b saga.Beat) (saga.Pulse, error) {
	if err := ctx.Err(); err != nil {
		return saga.Pulse{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.init()
	p := saga.Pulse{Now: s.now()}
	n := s.nodes[b.Node]
	switch {
	case n == nil && b.TTL == 0:
		return p, nil
	case n == nil:
		n = &node{owned: map[string]*instance{}, mail: map[string]bool{}}
		s.nodes[b.Node] = n
	case n.dead:
		p.Lost = true
		return p, nil
	}
	n.until = p.Now.Add(b.TTL)
	if b.TTL == 0 {
		n.dead = true
		for _, in := range n.owned {
			s.sleep(in, p.Now)
		}
		return p, nil
	}
	for id := range n.mail {
		p.Mail = append(p.Mail, id)
	}
	clear(n.mail)
	return p, nil
}

// bury declares nodes dead whose lease is over. They are never forgotten: a node is some bytes, and
// here no transaction can be late.
func (s *Store) bury() {
	now := s.now()
	for _, n := range s.nodes {
		if !n.dead && !now.Before(n.until) {
			n.dead = true
		}
	}
}

// Package sagamem keeps sagas in memory: for tests, for trying things out, and for sagas that need
// order, retries and compensation but no memory beyond the process.
//
// It has every ability of a store, semantic locks and transactional steps included ([TxStep], over a
// small map of its own), and keeps to the contract of [saga.Store]; time is time.Now, so that it
// runs on virtual time inside testing/synctest. Nothing survives the process.
package sagamem

import (
	"container/heap"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/backstay-go/backstay/saga"
)

// Store is an empty store when zero. It is safe for concurrent use and must not be copied.
type Store struct {
	// Skew is added to the clock: for tests of what happens when the store's clock and the
	// worker's disagree. Set it before use.
	Skew time.Duration

	mu     sync.Mutex // guards everything below
	all    map[string]*instance
	keys   map[bizKey]string
	order  []string // ids ascending, for lists; rebuilt when stale
	stale  bool
	due    map[saga.Ref]*queue
	nodes  map[string]*node
	locks  map[string]string // resource → instance
	shapes map[saga.Ref]string
	data   map[string]string // of TxStep
	hears  map[chan struct{}]struct{}
}

// New returns an empty store.
func New() *Store { return &Store{} }

type bizKey struct{ tenant, def, key string }

// instance is one saga: what all stores keep in saga_instance, saga_run, saga_log and saga_signal.
type instance struct {
	saga.Instance
	hash, codec string
	input       []byte
	log         []saga.Entry
	epoch       int64
	entry       *item
	mail        int64 // counter
	inbox       []letter
	busy        bool     // inside InTx: its row is locked
	locks       []string // resources that it took; a rollback may have taken some away again
}

type letter struct {
	saga.Mail
	consumed bool
}

type node struct {
	until time.Time
	dead  bool
	owned map[string]*instance
	mail  map[string]bool // nudges since the last beat
}

func (s *Store) now() time.Time { return time.Now().Add(s.Skew) }

// init makes the maps. Under mu.
func (s *Store) init() {
	if s.all != nil {
		return
	}
	s.all, s.keys, s.due = map[string]*instance{}, map[bizKey]string{}, map[saga.Ref]*queue{}
	s.nodes, s.locks, s.shapes = map[string]*node{}, map[string]string{}, map[saga.Ref]string{}
	s.data, s.hears = map[string]string{}, map[chan struct{}]struct{}{}
}

// Start is saga.Starter.
func (s *Store) Start(ctx context.Context, batch []saga.NewInstance) ([]saga.Started, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.init()
	return s.start(batch), nil
}

func (s *Store) start(batch []saga.NewInstance) []saga.Started {
	now := s.now()
	out := make([]saga.Started, len(batch))
	for i := range batch {
		n := &batch[i]
		key := bizKey{n.Tenant, n.Ref.Def, n.Key}
		if id, ok := s.keys[key]; ok {
			out[i] = saga.Started{ID: id, Existing: true, Hash: s.all[id].hash, Now: now}
			continue
		}
		in := &instance{
			Instance: saga.Instance{
				ID: n.ID, Ref: n.Ref, Tenant: n.Tenant, Key: n.Key, State: saga.Ready, Priority: n.Priority, Created: now,
			},
			hash: n.Hash, codec: n.Codec, input: slices.Clone(n.Input), log: slices.Clone(n.Log),
		}
		stamp(in.log, now, 0)
		if n.Deadline > 0 {
			in.Deadline = now.Add(n.Deadline)
		}
		s.all[n.ID], s.keys[key] = in, n.ID
		if k := len(s.order); k > 0 && s.order[k-1] > n.ID {
			s.stale = true
		}
		s.order = append(s.order, n.ID)
		owner := s.nodes[n.Node]
		out[i] = saga.Started{ID: n.ID, Hash: n.Hash, Now: now}
		if n.Node != "" && owner != nil && !owner.dead {
			in.State, in.epoch, out[i].Owned = saga.Running, 1, true
			in.log[0].Epoch = 1
			s.own(in, n.Node)
			continue
		}
		s.sleep(in, now)
	}
	return out
}

// stamp makes the entries the store's own.
func stamp(log []saga.Entry, now time.Time, epoch int64) {
	for i := range log {
		log[i].At, log[i].Epoch = now, epoch
		log[i].Data, log[i].Note = slices.Clone(log[i].Data), slices.Clone(log[i].Note)
		log[i].Next = slices.Clone(log[i].Next)
	}
}

// own gives in to a node. Under mu.
func (s *Store) own(in *instance, id string) {
	s.disown(in)
	s.unqueue(in)
	in.Owner = id
	s.nodes[id].owned[in.ID] = in
}

func (s *Store) disown(in *instance) {
	if n := s.nodes[in.Owner]; n != nil {
		delete(n.owned, in.ID)
	}
	in.Owner = ""
}

// sleep leaves in without an owner until at. Under mu.
func (s *Store) sleep(in *instance, at time.Time) {
	s.disown(in)
	s.unqueue(in)
	in.Wake = at
	q := s.due[in.Ref]
	if q == nil {
		q = &queue{}
		s.due[in.Ref] = q
	}
	in.entry = &item{in: in, at: at}
	heap.Push(q, in.entry)
	if !at.After(s.now()) {
		for c := range s.hears {
			select {
			case c <- struct{}{}:
			default:
			}
		}
	}
}

func (s *Store) unqueue(in *instance) {
	if in.entry != nil {
		heap.Remove(s.due[in.Ref], in.entry.index)
		in.entry = nil
	}
	in.Wake = time.Time{}
}

// Listen is saga.Listener.
func (s *Store) Listen(ctx context.Context, wake func()) error {
	c := make(chan struct{}, 1)
	s.mu.Lock()
	s.init()
	s.hears[c] = struct{}{}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.hears, c)
		s.mu.Unlock()
	}()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-c:
			wake()
		}
	}
}

// queue is a heap of due times.
type queue []*item

type item struct {
	in    *instance
	at    time.Time
	index int
}

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i].at.Before(q[j].at) }
func (q queue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i, j
}
func (q *queue) Push(x any) {
	it := x.(*item)
	it.index = len(*q)
	*q = append(*q, it)
}
func (q *queue) Pop() any {
	old := *q
	it := old[len(old)-1]
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	return it
}

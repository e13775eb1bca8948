package backstay

import (
	"context"
	"errors"
	"hash/maphash"
	"iter"
	"sync"
	"sync/atomic"
	"time"
)

// Keeper is the optional ability of a [Policy] to say what would be lost if [Keyed] forgot it.
type Keeper interface {
	// Keep reports whether the policy is in use beyond its Handler (a permit held for a response body), and for how much longer it
	// has something to remember: 0 when a new instance would behave alike, a moment for an open breaker that is due for a probe,
	// the time left for one that is open. It must be quick and must not call back into Keyed.
	Keep() (busy bool, left time.Duration)
}

// Around is the optional ability of a [Policy] to act without a closure around the next Handler: Wrap(next)(ctx, call) and
// Around(ctx, call, next) do the same. [Keyed], which picks a policy for each call, saves an allocation by it.
type Around interface {
	Around(ctx context.Context, call *Call, next Handler) Outcome
}

// KeyedConfig sets how many instances a [Keyed] holds. The zero value works.
type KeyedConfig struct {
	// Max bounds the number of keys. Default 1,024, which is about 1 MiB of breakers; range 1 to 1<<20.
	Max int
	// Idle is how long after its last call a key with nothing to remember may be forgotten although there is room. Default 10 min; negative: never.
	Idle time.Duration
	// Key picks the key of a call. Default: the call's own, [Call.Key]. Calls with an empty key share one instance.
	Key func(*Call) string
	// Observer is told of keys that are forgotten and of calls without protection.
	Observer Observer
}

// Validate reports every field that is out of range.
func (c KeyedConfig) Validate() error {
	var errs []error
	if c.Max < 0 || c.Max > 1<<20 {
		errs = append(errs, errors.New("backstay: KeyedConfig.Max must be between 1 and 1048576, or 0 for the default"))
	}
	return errors.Join(errs...)
}

// Keyed is a policy that holds one instance of a policy for each key: a breaker per host, a bulkhead per tenant. Its memory is bounded and it starts no
// goroutine. When a new key comes and there is no room it forgets, in this order, an instance with nothing to remember that has
// been idle longest (of a sample), open breakers that are due for a probe, the open breaker nearest its end. One with calls in flight is never
// forgotten: when all are, a new key's call runs without the policy, and is counted. Strangers never share an instance.
//
// All methods are safe for concurrent use.
type Keyed[P Policy] struct {
	make   func(key string) P
	key    func(*Call) string
	obs    Observer
	max    int
	idle   time.Duration
	seed   maphash.Seed
	shards [32]shard[P]

	unkeyed  atomic.Int64
	evicted  atomic.Int64
	watchers *Watchers // apart, so that an instance that lives on does not keep the others

	mu   sync.Mutex  // taken before a shard's
	all  []*entry[P] // guarded by mu
	hand int         // guarded by mu; where the next sample starts
}

type shard[P Policy] struct {
	recent atomic.Pointer[entry[P]] // the entry asked for last, forgotten or not: most clients talk to one host most of the time
	mu     sync.RWMutex
	m      map[string]*entry[P] // guarded by mu
	_      [24]byte             // shards of two processors do not share a cache line
}

type entry[P Policy] struct {
	key    string
	policy P
	around Around       // nil: policy has no such ability
	used   atomic.Int64 // when the latest call began, since epoch
	flight atomic.Int32 // calls in flight; far below zero: forgotten
}

// End implements [Ender]: a call that was let go as Pending is over.
func (e *entry[P]) End(out Outcome) Outcome {
	e.flight.Add(-1)
	return out
}

// forgotten is added to an entry's count of calls when it is evicted: whoever raises the count then still finds it negative.
const forgotten = -1 << 30

// NewKeyed returns a Keyed whose instances come from make, which gets the key and may be called for one key more than once, the extra
// instances being dropped unused. It panics when the config is not valid or make is nil.
func NewKeyed[P Policy](c KeyedConfig, make func(key string) P) *Keyed[P] {
	if err := c.Validate(); err != nil {
		panic(err)
	}
	if make == nil {
		panic(errors.New("backstay: NewKeyed needs a function that makes a policy"))
	}
	k := &Keyed[P]{make: make, key: c.Key, obs: c.Observer, max: c.Max, idle: c.Idle, seed: maphash.MakeSeed(), watchers: &Watchers{}}
	if k.key == nil {
		k.key = (*Call).Key
	}
	if k.max == 0 {
		k.max = 1024
	}
	if k.idle == 0 {
		k.idle = 10 * time.Minute
	}
	for i := range k.shards {
		k.shards[i].m = map[string]*entry[P]{}
	}
	return k
}

// Wrap implements [Policy].
func (k *Keyed[P]) Wrap(next Handler) Handler {
	if k == nil {
		return next
	}
	return func(ctx context.Context, call *Call) Outcome { return k.Around(ctx, call, next) }
}

// Around implements [Around].
func (k *Keyed[P]) Around(ctx context.Context, call *Call, next Handler) Outcome {
	key := k.key(call)
	e, gone := k.acquire(key, call.began)
	if gone != "" {
		call.Emit(ctx, k.obs, Event{Kind: EventEvict, Policy: "keyed", Key: gone, Reason: "full"})
	}
	if e == nil {
		k.unkeyed.Add(1)
		call.Emit(ctx, k.obs, Event{Kind: EventUnkeyed, Policy: "keyed", Key: key, Reason: "all keys in use"})
		return next(ctx, call)
	}
	kept := false
	defer func() {
		if !kept {
			e.flight.Add(-1)
		}
	}()
	var out Outcome
	if e.around != nil {
		out = e.around.Around(ctx, call, next)
	} else {
		out = e.policy.Wrap(next)(ctx, call)
	}
	if p, ok := out.Held.(Pending); ok {
		kept = true
		p.Then(e)
	}
	return out
}

// Get returns the instance of key, which is made if there is none. ok is false when there is no room and the
// instance is not kept. It may be forgotten later; calls that matter go through the Keyed.
func (k *Keyed[P]) Get(key string) (p P, ok bool) {
	e, _ := k.acquire(key, time.Since(epoch))
	if e == nil {
		return k.make(key), false
	}
	e.flight.Add(-1)
	return e.policy, true
}

// Lookup returns the instance of key, if there is one.
func (k *Keyed[P]) Lookup(key string) (p P, ok bool) {
	s := k.shard(key)
	s.mu.RLock()
	defer s.mu.RUnlock()
	if e := s.m[key]; e != nil {
		return e.policy, true
	}
	return p, false
}

// All yields the keys and their instances as they were when it was called, in no order.
func (k *Keyed[P]) All() iter.Seq2[string, P] {
	return func(yield func(string, P) bool) {
		k.mu.Lock()
		all := append([]*entry[P](nil), k.all...)
		k.mu.Unlock()
		for _, e := range all {
			if !yield(e.key, e.policy) {
				return
			}
		}
	}
}

// KeyedStats counts what a [Keyed] holds and has done.
type KeyedStats struct {
	Keys    int   // instances held
	Evicted int64 // instances forgotten so far
	Unkeyed int64 // calls that ran without the policy, since all instances were in use
}

// Stats returns the counts.
func (k *Keyed[P]) Stats() KeyedStats {
	k.mu.Lock()
	defer k.mu.Unlock()
	return KeyedStats{Keys: len(k.all), Evicted: k.evicted.Load(), Unkeyed: k.unkeyed.Load()}
}

// Describe says what stands behind a key.
func (k *Keyed[P]) Describe() Description {
	inner := describe(k.make(""))
	return Description{Kind: "per key", Pends: inner.Pends, Inner: []Description{inner}}
}

func (k *Keyed[P]) shard(key string) *shard[P] {
	return &k.shards[maphash.String(k.seed, key)%uint64(len(k.shards))]
}

// acquire returns the entry of key with its count of calls raised, or nil when there is no room. gone is the key forgotten for it. now may be a
// little while ago.
func (k *Keyed[P]) acquire(key string, now time.Duration) (e *entry[P], gone string) {
	s := k.shard(key)
	if e = s.recent.Load(); e != nil && e.key == key && e.take(now) {
		return e, ""
	}
	s.mu.RLock()
	e = s.m[key]
	s.mu.RUnlock()
	if e != nil && e.take(now) {
		s.recent.Store(e)
		return e, ""
	}
	return k.insert(key, s)
}

// take raises e's count of calls, and reports false when e has been forgotten.
func (e *entry[P]) take(now time.Duration) bool {
	if e.flight.Add(1) <= 0 {
		e.flight.Add(-1)
		return false
	}
	if e.used.Load() < int64(now) {
		e.used.Store(int64(now))
	}
	return true
}

func (k *Keyed[P]) insert(key string, s *shard[P]) (e *entry[P], gone string) {
	fresh := &entry[P]{key: key, policy: k.make(key)} // the user's function, so before the lock
	fresh.around, _ = any(fresh.policy).(Around)
	if w, ok := any(fresh.policy).(Watchable); ok {
		w.Watch(&keyWatcher{key, k.watchers})
	}
	fresh.flight.Store(1)

	k.mu.Lock()
	defer k.mu.Unlock()
	now := time.Since(epoch)
	fresh.used.Store(int64(now))
	s.mu.RLock()
	e = s.m[key]
	s.mu.RUnlock()
	if e != nil && e.take(now) {
		return e, ""
	}
	if i := k.victim(int64(now)); i >= 0 {
		gone = k.all[i].key
		k.remove(i)
	}
	if len(k.all) >= k.max {
		return nil, ""
	}
	k.all = append(k.all, fresh)
	s.mu.Lock()
	s.m[key] = fresh
	s.mu.Unlock()
	return fresh, gone
}

// sample is how many entries an insertion looks at before it looks at all of them. Taking the oldest of a few is
// close to least recently used and needs no list that every call reorders.
const sample = 16

// victim picks an entry to forget, marks it so, and returns its index; -1: none. With room left it takes only one that is past its idle time.
func (k *Keyed[P]) victim(now int64) int {
	n := len(k.all)
	full := n >= k.max
	if !full && k.idle < 0 {
		return -1
	}
	for { // again only if a call has just taken the best
		best, bestUsed, bestLeft := -1, int64(0), time.Duration(0)
		for j := range n {
			if j == sample && (!full || best >= 0 && bestLeft == 0) {
				break
			}
			i := (k.hand + j) % n
			e := k.all[i]
			if e.flight.Load() != 0 {
				continue
			}
			used := e.used.Load()
			if !full && now-used <= int64(k.idle) {
				continue
			}
			var left time.Duration
			if keeper, ok := any(e.policy).(Keeper); ok {
				busy, l := keeper.Keep()
				if busy || !full && l > 0 {
					continue
				}
				left = max(l, 0)
			}
			if best < 0 || left < bestLeft || left == bestLeft && used < bestUsed {
				best, bestUsed, bestLeft = i, used, left
			}
		}
		if n > 0 {
			k.hand = (k.hand + sample) % n
		}
		if best < 0 {
			return -1
		}
		if k.all[best].flight.CompareAndSwap(0, forgotten) {
			return best
		}
	}
}

// remove drops the entry at i. Called with mu held.
func (k *Keyed[P]) remove(i int) {
	e := k.all[i]
	last := len(k.all) - 1
	k.all[i] = k.all[last]
	k.all[last] = nil
	k.all = k.all[:last]
	s := k.shard(e.key)
	s.mu.Lock()
	if s.m[e.key] == e {
		delete(s.m, e.key)
	}
	s.mu.Unlock()
	s.recent.CompareAndSwap(e, nil) // or it would keep the policy alive
	k.evicted.Add(1)
}

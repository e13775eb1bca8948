package backstay

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
)

// Watchable is the optional ability of a [Policy] to tell of what no call does: a breaker that is tripped by hand, or by a body that broke after its call
// had ended. Package telemetry watches what it collects the gauges of.
type Watchable interface {
	// Watch has o told, until stop is called, of events that the observer of no call is told of. A policy in several pipelines tells each that watches.
	Watch(o Observer) (stop func())
}

// Watchers is who watches a policy, for policies that are [Watchable]. The zero value is nobody. All methods are safe for concurrent use.
type Watchers struct{ list atomic.Pointer[watchList] }

// watchList is apart from its Watchers, so that a stop function does not keep the policy alive.
type watchList struct {
	mu  sync.Mutex
	all []*watcher // guarded by mu; never changed in place
}

type watcher struct{ Observer }

// Watch implements [Watchable]. A nil o watches nothing.
func (w *Watchers) Watch(o Observer) (stop func()) {
	if o == nil {
		return func() {}
	}
	l := w.list.Load()
	for l == nil {
		w.list.CompareAndSwap(nil, &watchList{})
		l = w.list.Load()
	}
	one := &watcher{o}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(slices.Clip(l.all), one)
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.all = slices.DeleteFunc(slices.Clone(l.all), func(w *watcher) bool { return w == one })
	}
}

// Any reports whether somebody watches.
func (w *Watchers) Any() bool { return len(w.now()) > 0 }

func (w *Watchers) now() []*watcher {
	l := w.list.Load()
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all
}

// Observe tells all of them of e.
func (w *Watchers) Observe(ctx context.Context, e Event) {
	for _, one := range w.now() {
		observe(ctx, one.Observer, &e)
	}
}

// Watch implements [Watchable]: all policies that can are watched.
func (p *Pipeline) Watch(o Observer) (stop func()) {
	var stops []func()
	if p != nil {
		for _, policy := range p.policies {
			if w, ok := policy.(Watchable); ok {
				stops = append(stops, w.Watch(o))
			}
		}
	}
	return func() {
		for _, stop := range stops {
			stop()
		}
	}
}

// Watch implements [Watchable]: every instance is watched, those made later included. Events get its key where they have none.
func (k *Keyed[P]) Watch(o Observer) (stop func()) {
	if k == nil {
		return func() {}
	}
	return k.watchers.Watch(o)
}

// keyWatcher hands on what an instance of a [Keyed] tells.
type keyWatcher struct {
	key string
	to  *Watchers
}

// Observe implements [Observer].
func (k *keyWatcher) Observe(ctx context.Context, e Event) {
	if e.Key == "" {
		e.Key = k.key
	}
	k.to.Observe(ctx, e)
}

package deadline

// Follower is told when a context has ended. Ended must not block: it is called by whoever ends the context.
type Follower interface{ Ended() }

// Link is a follower's place in the list of those that a context tells of its end. The zero Link is in no list; it may be used once.
type Link struct {
	owner      *Ctx
	prev, next *Link // guarded by owner.mu, as is in
	in         bool
	follower   Follower
}

// link is the place of a context inside another.
type link struct {
	Link
	kid  *Ctx
	more *link // another place of the same kid
}

// Ended ends the kid as its owner has ended.
func (l *link) Ended() { l.kid.end(state(l.owner.state.Load()), l.owner.why) }

// fn is a function that is told.
type fn func()

// Ended calls the function.
func (f fn) Ended() { f() }

// AfterFunc has f called once the context has ended, unless stop is called before; it is what package context asks a foreign context for, and
// makes a context derived from this one cost no goroutine. f must not block: it is called by whoever ends the context.
func (c *Ctx) AfterFunc(f func()) (stop func() bool) {
	c.realize(nil)
	c.mu.Lock()
	if state(c.state.Load()) != alive {
		c.mu.Unlock()
		go f() // whoever asks may hold a lock that f wants
		return func() bool { return false }
	}
	l := &c.live.first
	if l.owner != nil { // it has served before: its Stop may still be called
		l = &Link{}
	}
	c.add(l, fn(f))
	c.mu.Unlock()
	return l.Stop
}

// Tell has f told when the context ends, unless l is stopped before, and reports false when it has ended already; f is not told then. l is memory that f
// provides.
func (c *Ctx) Tell(l *Link, f Follower) bool {
	c.realize(nil)
	c.mu.Lock()
	defer c.mu.Unlock()
	if state(c.state.Load()) != alive {
		return false
	}
	c.add(l, f)
	return true
}

// add puts l in the list. Called with mu held.
func (c *Ctx) add(l *Link, f Follower) {
	l.owner, l.follower, l.in, l.next = c, f, true, c.told
	if c.told != nil {
		c.told.prev = l
	}
	c.told = l
}

// Stop takes l out of its list, and reports false when it was in none.
func (l *Link) Stop() bool {
	l.owner.mu.Lock()
	defer l.owner.mu.Unlock()
	if !l.in {
		return false
	}
	if l.prev == nil {
		l.owner.told = l.next
	} else {
		l.prev.next = l.next
	}
	if l.next != nil {
		l.next.prev = l.prev
	}
	l.in, l.prev, l.next = false, nil, nil
	return true
}

// notice is what is left to do, without the lock, for a context that has ended. The zero notice is nothing.
type notice struct {
	told *Link
	stop func() bool
	ups  *link
}

func (n notice) tell() {
	for l := n.told; l != nil; l = l.next {
		l.follower.Ended()
	}
	if n.stop != nil {
		n.stop()
	}
	for l := n.ups; l != nil; l = l.more {
		l.Stop()
	}
}

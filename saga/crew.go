package saga

import "sync"

// crew are the goroutines that drive instances. A new one has a stack of 2 to 8 KB, too short for a call of a database's driver; each time it
// grows, all its frames are moved, which takes a saga alone 50 µs and is a fifth of the processor time that a saga costs on the memory store. So one that
// has driven an instance waits for the next.
type crew struct {
	mu    sync.Mutex
	idle  []chan func() // guarded by mu; the one that worked last is the last
	over  bool          // guarded by mu: nobody is to wait any more
	hands sync.WaitGroup
}

// mostIdle bounds those who wait. Their stacks are halved at each garbage collection, as long as they wait.
const mostIdle = 256

// do has fn called on a goroutine of the crew.
func (c *crew) do(fn func()) {
	c.mu.Lock()
	if n := len(c.idle); n > 0 {
		w := c.idle[n-1]
		c.idle = c.idle[:n-1]
		c.mu.Unlock()
		w <- fn
		return
	}
	c.mu.Unlock()
	c.hands.Go(func() { c.work(fn) })
}

func (c *crew) work(fn func()) {
	for w := make(chan func(), 1); fn != nil; fn = <-w {
		fn()
		if !c.wait(w) {
			return
		}
	}
}

// wait puts w on the list of those who wait, and reports whether there is room.
func (c *crew) wait(w chan func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over || len(c.idle) == mostIdle {
		return false
	}
	c.idle = append(c.idle, w)
	return true
}

// end sends home who waits, and waits for the others. Nothing is to be done after it.
func (c *crew) end() {
	c.mu.Lock()
	c.over = true
	for _, w := range c.idle {
		close(w)
	}
	c.idle = nil
	c.mu.Unlock()
	c.hands.Wait()
}

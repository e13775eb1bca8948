package deadline

// ShareInBubbles lets contexts of l share a timer in a bubble too; all of them must be of one.
func (l *Limit) ShareInBubbles() { l.everywhere = true }

// Timed reports whether c has a timer of its own.
func (c *Ctx) Timed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.real.Load() && c.live.timer != nil
}

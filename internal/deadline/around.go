package deadline

import "context"

// outside returns how the contexts around this one have ended; nil: they have not. Once somebody waits on it, it keeps the deadlines of those of ours by a timer itself,
// and the clock need not be read.
func (c *Ctx) outside() error {
	if !c.real.Load() {
		return c.parent.Err()
	}
	parent := c.parent
	for outer := directly(parent); outer != nil; outer = directly(parent) {
		if s := state(outer.state.Load()); s != alive {
			return s.err()
		}
		parent = outer.parent
	}
	return parent.Err()
}

// foreign returns the first context around this one that is none of ours.
func (c *Ctx) foreign() context.Context {
	parent := c.parent
	for outer := directly(parent); outer != nil; outer = directly(parent) {
		parent = outer.parent
	}
	return parent
}

// parentEnded ends the context with the first around it that is none of ours.
func (c *Ctx) parentEnded() {
	parent := c.foreign()
	c.end(stateOf(parent.Err()), context.Cause(parent))
}

// directly returns ctx, or the one that it hands everything on to, as a Ctx; else nil.
func directly(ctx context.Context) *Ctx {
	for {
		switch p := ctx.(type) {
		case *Ctx:
			return p
		case interface{ Parent() context.Context }:
			ctx = p.Parent()
		default:
			return nil
		}
	}
}

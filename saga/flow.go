package saga

import (
	"fmt"
	"time"
)

// Parallel runs branches at the same time and goes on when all have ended. When one fails, the
// others' running bodies end (see CancelSiblings) and all branches are undone, at the same time, each in reverse.
func (b *Builder[I]) Parallel(name string, branches func(p *Branches[I]), opts ...StepOption) {
	n := b.s.add(kindParallel, name, opts)
	branches(&Branches[I]{n})
	if len(n.kids) < 2 {
		n.in.def.fault(n.static, "Parallel with fewer than two branches")
	}
}

// Branches collects the branches of a Parallel.
type Branches[I any] struct{ n *node }

// Branch adds a branch.
func (p *Branches[I]) Branch(name string, build func(b *Builder[I])) {
	if !validName(name) {
		p.n.in.def.fault(p.n.static, "the branch name %q is not 1 to 64 letters, digits, '_', '.', '-'", name)
	}
	build(&Builder[I]{p.n.branch(name)})
}

// If asks cond once, keeps the answer, and goes on with then or with els, which may be nil. cond has
// no effect of its own; an error is retried like a step's.
func (b *Builder[I]) If(name string, cond func(c *Ctx, in I) (bool, error), then, els func(b *Builder[I]), opts ...StepOption) {
	n := b.s.add(kindIf, name, opts)
	n.mode, n.reason = modeNothing, "a choice"
	read := inputOf[I]()
	n.action = func(c *Ctx) ([]byte, error) {
		in, err := read(c)
		if err != nil {
			return nil, err
		}
		yes, err := cond(c, in)
		if err != nil {
			return nil, err
		}
		return c.def.encode("choice of "+n.static, yes)
	}
	then(&Builder[I]{n.branch("then")})
	s := n.branch("else")
	if els != nil {
		els(&Builder[I]{s})
	}
}

// Each asks list once, keeps the answer, and runs body's steps for each element, in order, or several
// at once with AtOnce. Keys and paths carry the element's number from 0: ship[3]/pack. On a failure
// the elements begun are undone in reverse order (those of AtOnce at the same time).
func Each[I, E any](b *Builder[I], name string, list func(c *Ctx, in I) ([]E, error), body func(b *Builder[E]), opts ...StepOption) {
	n := b.s.add(kindEach, name, opts)
	n.mode, n.reason = modeNothing, "a list"
	read := inputOf[I]()
	n.action = func(c *Ctx) ([]byte, error) {
		in, err := read(c)
		if err != nil {
			return nil, err
		}
		all, err := list(c, in)
		if err != nil {
			return nil, err
		}
		if len(all) > maxElements {
			return nil, &codecError{"list of " + n.static, fmt.Errorf("%w: %d elements, at most %d", ErrTooLarge, len(all), maxElements)}
		}
		items := make([][]byte, len(all))
		for i, e := range all {
			if items[i], err = c.def.encode(fmt.Sprintf("element %d of %s", i, n.static), e); err != nil {
				return nil, err
			}
		}
		return c.def.encode("list of "+n.static, items)
	}
	body(&Builder[E]{n.branch("")})
}

// maxElements bounds Each: an instance's whole state is kept in memory while it runs.
const maxElements = 1_000

// Child runs the steps of another definition as a part of this one, with an input made by input. They
// belong to this instance: they are undone with it, in order, even after the child's last step. So
// a child has no pivot, and its shape is part of this definition's shape.
func Child[I, CI any](b *Builder[I], name string, child *Definition[CI], input func(c *Ctx, in I) (CI, error), opts ...StepOption) {
	n := b.s.add(kindChild, name, opts)
	n.mode, n.reason = modeNothing, "an input"
	read := inputOf[I]()
	n.action = func(c *Ctx) ([]byte, error) {
		in, err := read(c)
		if err != nil {
			return nil, err
		}
		ci, err := input(c, in)
		if err != nil {
			return nil, err
		}
		return c.def.encode("input of "+n.static, ci)
	}
	if child == nil {
		n.in.def.fault(n.static, "Child without a definition")
		return
	}
	child.d.root.graft(n.branch(""))
}

// Wait waits for a signal and gives its payload. Signals sent before the wait are kept; several waits
// for one name take one signal each, in the order of sending.
func Wait[T, I any](b *Builder[I], name, signal string, opts ...StepOption) *StepRef[T] {
	n := b.s.add(kindWait, name, opts)
	n.mode, n.reason, n.signal, n.typed = modeNothing, "a wait", signal, typed[T](n)
	if !validName(signal) {
		n.in.def.fault(n.static, "the signal's name %q is not 1 to 64 letters, digits, '_', '.', '-'", signal)
	}
	if n.act.GoOn && n.act.Within == 0 {
		n.in.def.fault(n.static, "OrGoOn without Within")
	}
	n.in.def.signals[signal] = true
	return &StepRef[T]{n}
}

// Delay waits for d. The time counts from the moment the step before ended, across restarts.
func (b *Builder[I]) Delay(name string, d time.Duration) {
	n := b.s.add(kindDelay, name, nil)
	n.mode, n.reason = modeNothing, "a delay"
	if d <= 0 {
		n.in.def.fault(n.static, "Delay(%v) is not positive", d)
	}
	n.act.Within = d
}

// graft copies the nodes of s into to, with the paths and the codec of the definition that to is in.
func (s *seq) graft(to *seq) {
	copies := map[*node]*node{}
	var copySeq func(from, to *seq)
	copySeq = func(from, to *seq) {
		for _, n := range from.nodes {
			m := to.add(n.kind, n.name, nil)
			m.mode, m.reason, m.act, m.back = n.mode, n.reason, n.act, n.back
			m.txKind, m.txUndo, m.action, m.undo, m.signal, m.typed = n.txKind, n.txUndo, n.action, n.undo, n.signal, n.typed
			m.origin = n
			if n.origin != nil {
				m.origin = n.origin
			}
			copies[n] = m
			if m.signal != "" {
				to.def.signals[m.signal] = true
			}
			for _, need := range n.needs {
				if c := copies[need]; c != nil {
					m.needs = append(m.needs, c)
				}
			}
			for _, k := range n.kids {
				copySeq(k, m.branch(k.name))
			}
		}
	}
	copySeq(s, to)
}

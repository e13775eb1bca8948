package saga

import "fmt"

// StepRef is a step's result to be: what later steps read with Get after declaring it with Needs.
type StepRef[O any] struct{ n *node }

// Needed is any *StepRef, whatever its type.
type Needed interface{ needed() *node }

func (r *StepRef[O]) needed() *node { return r.n }

// Get returns the step's output. The caller's step must have declared it with Needs; otherwise the
// instance parks with ErrDefinition. A Wait that went on without a signal gives the zero value.
func (r *StepRef[O]) Get(c *Ctx) O {
	v, _ := r.Lookup(c)
	return v
}

// Lookup is Get, and reports whether there is a value: false after a Wait that went on without a signal.
func (r *StepRef[O]) Lookup(c *Ctx) (O, bool) {
	var v O
	in, ok := c.need(r.n)
	if !ok {
		panic(&misuse{fmt.Errorf("%w: step %q reads %q without Needs", ErrDefinition, c.n.static, r.n.static)})
	}
	if !in.known {
		return v, false
	}
	if err := c.def.decode("result of "+r.n.static, in.data, &v); err != nil {
		panic(&misuse{err})
	}
	return v, true
}

// misuse is a panic of ours inside a body, which becomes its error.
type misuse struct{ err error }

// Result is what an undo knows of its step's action.
type Result[O any] struct {
	value O
	known bool
}

// Value returns the action's output, and true when it is known. False means that the action's outcome is in
// doubt: it may have had effect or not, so the undo must work by the action's key (Ctx.ActionKey).
func (r Result[O]) Value() (O, bool) { return r.value, r.known }

package saga

import "slices"

// next lists the ops that may begin (or begin again) and have no durable intent yet, in the order
// of the graph, and reports whether the walk has come to its end: everything done, or everything undone. The list is
// valid until the next call.
func (r *run) next() (begin []*op, end bool) {
	r.begin = r.begin[:0]
	if r.closed {
		return nil, true
	}
	if !r.undo {
		end = r.forward(r.def.root, r.root)
		if r.parked > 0 {
			return nil, end
		}
		return r.begin, end
	}
	if r.waitSiblings() {
		return nil, false
	}
	end = r.backward(r.def.root, r.root)
	if r.halted {
		return nil, end
	}
	return r.begin, end
}

func (r *run) emit(o *op) { r.begin = append(r.begin, o) }

// forward walks s and reports whether it is done.
func (r *run) forward(s *seq, f *frame) bool {
	for _, n := range s.nodes {
		if !r.forwardNode(n, f) {
			return false
		}
	}
	return true
}

func (r *run) forwardNode(n *node, f *frame) bool {
	if n.kind == kindParallel {
		all := true
		for _, k := range n.kids {
			all = r.forward(k, f) && all
		}
		return all
	}
	o := r.op(n, f)
	switch o.status {
	case idle, backoff:
		r.emit(o)
		return false
	case done:
	default:
		return false
	}
	switch n.kind {
	case kindIf:
		return r.forward(n.chosen(o), f)
	case kindChild:
		return r.forward(n.kids[0], r.frame(o.path+"/"))
	case kindEach:
		open := 0
		for i := o.low; i < o.items && open < n.act.Width; i++ {
			if !r.forward(n.kids[0], r.element(o, i)) {
				open++
			} else if i == o.low {
				o.low++
			}
		}
		return open == 0
	}
	return true
}

// backward walks s from its end and reports whether it is undone.
func (r *run) backward(s *seq, f *frame) bool {
	for _, n := range slices.Backward(s.nodes) {
		if !r.backwardNode(n, f) {
			return false
		}
	}
	return true
}

func (r *run) backwardNode(n *node, f *frame) bool {
	if n.kind == kindParallel {
		all := true
		for _, k := range n.kids {
			all = r.backward(k, f) && all
		}
		return all
	}
	o := r.ops[f.path(n)]
	if o == nil || o.status == idle {
		return true
	}
	if n.kind != kindStep {
		return o.status != done || r.backwardInto(n, f, o)
	}
	switch o.status {
	case undone:
		return true
	case undoFailed:
		return n.back.Others
	case undoIntended:
		return false
	case undoBackoff:
		r.emit(o)
		return false
	}
	switch {
	case o.running: // its late result decides what the undo is told
		return false
	case n.mode != modeCompensate:
		return true
	case o.status == failed && !o.doubt, o.status == backoff && !o.doubt, o.status == parked && !o.doubt:
		return true // provably without effect
	}
	r.emit(o)
	return false
}

func (r *run) backwardInto(n *node, f *frame, o *op) bool {
	switch n.kind {
	case kindIf:
		return r.backward(n.chosen(o), f)
	case kindChild:
		return r.backward(n.kids[0], r.frame(o.path+"/"))
	case kindEach:
		all := true
		for i := o.items - 1; i >= 0; i-- {
			if !r.backward(n.kids[0], r.element(o, i)) {
				all = false
				if n.act.Width == 1 {
					break // in strict reverse
				}
			}
		}
		return all
	}
	return true
}

func (n *node) chosen(o *op) *seq {
	if o.choice {
		return n.kids[0]
	}
	return n.kids[1]
}

// waitSiblings reports whether running bodies have to end before anything is undone.
func (r *run) waitSiblings() bool {
	for _, o := range r.all {
		if o.running && !o.undoing() && !o.n.cancelled() {
			return true
		}
	}
	return false
}

// undoing reports whether the op's present direction is backward.
func (o *op) undoing() bool {
	return o.status == undoIntended || o.status == undoBackoff || o.status == undone || o.status == undoFailed
}

// cancelled reports whether a Parallel or Each around n asks to cancel siblings.
func (n *node) cancelled() bool {
	for up := n.in.up; up != nil; up = up.in.up {
		if up.act.Cancel {
			return true
		}
	}
	return false
}

// state says where the instance stands. ended is what next reported.
func (r *run) state(ended bool) State {
	if r.closed {
		return Resolved
	}
	busy, waits, others := false, 0, 0
	for _, o := range r.all {
		switch {
		case o.running:
			busy = true
		case o.status == intended && (o.n.kind == kindWait || o.n.kind == kindDelay):
			waits++
		case o.status == intended, o.status == backoff:
			others++
		}
	}
	switch {
	case r.undo && busy:
		return Compensating
	case r.undo && (r.halted || ended && r.stuck > 0):
		return ParkedUndo
	case r.undo && ended:
		return Compensated
	case r.undo:
		return Compensating
	case r.parked > 0 && !busy:
		return ParkedFwd
	case ended:
		return Completed
	case waits > 0 && others == 0 && !busy:
		return Waiting
	default:
		return Running
	}
}

// step names the first step that is under way, for lists.
func (r *run) step() string {
	best := ""
	for _, o := range r.all {
		switch o.status {
		case intended, backoff, parked, undoIntended, undoBackoff, undoFailed:
			if best == "" || o.path < best {
				best = o.path
			}
		}
	}
	return best
}

func (r *run) element(o *op, i int) *frame { return r.frame(elementPrefix(o.path, i)) }

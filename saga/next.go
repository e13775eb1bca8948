package saga

import "slices"

// next lists the ops that may begin (or begin again) and have no durable intent yet, in the order
// of the graph, and reports whether the walk has come to its end: everything done, or everything undone.
func (r *run) next() (begin []*op, end bool) {
	emit := func(o *op) { begin = append(begin, o) }
	if r.closed {
		return nil, true
	}
	if !r.undo {
		end = r.forward(r.def.root, r.frames[""], emit)
		if r.parked > 0 {
			begin = nil
		}
		return begin, end
	}
	if r.waitSiblings() {
		return nil, false
	}
	end = r.backward(r.def.root, r.frames[""], emit)
	if r.halted {
		begin = nil
	}
	return begin, end
}

// forward walks s and reports whether it is done.
func (r *run) forward(s *seq, f *frame, emit func(*op)) bool {
	for _, n := range s.nodes {
		if !r.forwardNode(n, f, emit) {
			return false
		}
	}
	return true
}

func (r *run) forwardNode(n *node, f *frame, emit func(*op)) bool {
	if n.kind == kindParallel {
		all := true
		for _, k := range n.kids {
			all = r.forward(k, f, emit) && all
		}
		return all
	}
	o := r.op(n, f)
	switch o.status {
	case idle, backoff:
		emit(o)
		return false
	case done:
	default:
		return false
	}
	switch n.kind {
	case kindIf:
		return r.forward(n.chosen(o), f, emit)
	case kindChild:
		return r.forward(n.kids[0], r.frames[o.path+"/"], emit)
	case kindEach:
		open := 0
		for i := o.low; i < o.items && open < n.act.Width; i++ {
			if !r.forward(n.kids[0], r.element(o, i), emit) {
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
func (r *run) backward(s *seq, f *frame, emit func(*op)) bool {
	for _, n := range slices.Backward(s.nodes) {
		if !r.backwardNode(n, f, emit) {
			return false
		}
	}
	return true
}

func (r *run) backwardNode(n *node, f *frame, emit func(*op)) bool {
	if n.kind == kindParallel {
		all := true
		for _, k := range n.kids {
			all = r.backward(k, f, emit) && all
		}
		return all
	}
	o := r.ops[f.path(n)]
	if o == nil || o.status == idle {
		return true
	}
	if n.kind != kindStep {
		return o.status != done || r.backwardInto(n, f, o, emit)
	}
	switch o.status {
	case undone:
		return true
	case undoFailed:
		return n.back.Others
	case undoIntended:
		return false
	case undoBackoff:
		emit(o)
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
	emit(o)
	return false
}

func (r *run) backwardInto(n *node, f *frame, o *op, emit func(*op)) bool {
	switch n.kind {
	case kindIf:
		return r.backward(n.chosen(o), f, emit)
	case kindChild:
		return r.backward(n.kids[0], r.frames[o.path+"/"], emit)
	case kindEach:
		all := true
		for i := o.items - 1; i >= 0; i-- {
			if !r.backward(n.kids[0], r.element(o, i), emit) {
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
	for _, o := range r.ops {
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
	for _, o := range r.ops {
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
	for _, o := range r.ops {
		switch o.status {
		case intended, backoff, parked, undoIntended, undoBackoff, undoFailed:
			if best == "" || o.path < best {
				best = o.path
			}
		}
	}
	return best
}

func (r *run) element(o *op, i int) *frame { return r.frames[elementPrefix(o.path, i)] }

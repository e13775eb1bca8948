package saga

import "fmt"

// side says on which sides of the pivot a place of the graph can be reached.
type side uint8

const (
	before side = 1 << iota
	after
)

// check finds what is illegal in the whole graph; builders have reported what they saw themselves.
func (d *definition) check() {
	if len(d.root.nodes) == 0 {
		d.fault("", "no steps")
	}
	d.checkSeq(d.root, before, "")
}

// checkSeq walks s, reached on the sides at, and reports the sides on which it ends. enclosed names
// what forbids a pivot here.
func (d *definition) checkSeq(s *seq, at side, enclosed string) side {
	for _, n := range s.nodes {
		d.checkNeeds(n)
		if n.act.Attempts < 0 && at&before != 0 && n.mode != modeRetriable {
			d.fault(n.static, "attempts without limit before the pivot: it would neither go on nor back")
		}
		switch n.kind {
		case kindStep:
			at = d.checkStep(n, at, enclosed)
		case kindParallel, kindEach, kindChild:
			for _, k := range n.kids {
				if len(k.nodes) == 0 {
					d.fault(n.static, "a branch without steps")
				}
				d.checkSeq(k, at, fmt.Sprintf("%s %q", n.kind, n.static))
			}
		case kindIf:
			var out side
			for _, k := range n.kids {
				out |= d.checkSeq(k, at, enclosed)
			}
			at = out
		}
	}
	return at
}

func (d *definition) checkStep(n *node, at side, enclosed string) side {
	switch n.mode {
	case modeNone:
		d.fault(n.static, "no kind: end it with Compensate, NothingToUndo, Pivot or Retriable")
	case modeCompensate:
		if at&after != 0 {
			d.fault(n.static, "a compensatable step after the pivot: nothing is undone there")
		}
		if n.back.Attempts < 0 {
			d.fault(n.static, "an undo without a limit of attempts would never ask for help")
		}
	case modeNothing:
		if at&before != 0 {
			d.warnings = append(d.warnings, fmt.Sprintf("step %q has no way back: if others see its effect, put it behind the pivot", n.static))
		}
	case modePivot:
		if at&after != 0 {
			d.fault(n.static, "a second pivot on one path")
		}
		if enclosed != "" {
			d.fault(n.static, "a pivot inside %s: the rest of the saga could still fail", enclosed)
		}
		return after
	case modeRetriable:
		if at&before != 0 {
			d.fault(n.static, "a retriable step that can be reached before the pivot: it has no undo")
		}
	}
	return at
}

func (d *definition) checkNeeds(n *node) {
	for _, need := range n.needs {
		switch {
		case need == nil:
			d.fault(n.static, "Needs of a nil reference")
		case d.nodes[need.static] != need:
			d.fault(n.static, "Needs %q, which is a step of another definition", need.static)
		case !dominates(need, n):
			d.fault(n.static, "Needs %q, which is not certain to have ended by then", need.static)
		}
	}
}

// dominates reports whether x has always ended when y begins.
func dominates(x, y *node) bool {
	line := map[*seq]int{} // the sequences around y, with y's place in each
	for n := y; ; n = n.in.up {
		line[n.in] = n.index
		if n.in.up == nil {
			break
		}
	}
	for n := x; ; n = n.in.up {
		if at, ok := line[n.in]; ok {
			return n.index < at
		}
		if n.in.up == nil || n.in.up.kind == kindIf || n.in.up.kind == kindEach {
			return false
		}
	}
}

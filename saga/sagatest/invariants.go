package sagatest

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/backstay-go/backstay/saga"
)

// Invariants reads an instance's log and says which of the rules it breaks that hold for every
// saga, whatever crashed on the way: numbers without gaps; epochs that never fall; no body begun without an
// intent; no forward step begun after the first undo; no undo after the pivot; undos in the reverse order
// of the graph; at rest, nothing left open. shape is the definition's; nil when all hold.
func Invariants(ctx context.Context, store saga.Reader, shape saga.Shape, id string) error {
	in, err := store.Get(ctx, id)
	if err != nil {
		return err
	}
	log, err := store.History(ctx, id, 0, 1_000_000)
	if err != nil {
		return err
	}
	a := &audit{places: map[string]place{}, intents: map[string]bool{}}
	a.walk(shape.Nodes, "", nil)
	for i := range log {
		if err := a.entry(i, &log[i]); err != nil {
			return fmt.Errorf("instance %s, entry %d (%s %s): %w", id, i+1, log[i].Event, log[i].Step, err)
		}
	}
	if err := a.order(); err != nil {
		return fmt.Errorf("instance %s: %w", id, err)
	}
	switch {
	case in.State == saga.Completed && a.undoing:
		return fmt.Errorf("instance %s is completed and has undone something", id)
	case in.State == saga.Compensated && a.pivot:
		return fmt.Errorf("instance %s is compensated although its pivot is done", id)
	case in.State.Terminal() && in.Ended.IsZero():
		return fmt.Errorf("instance %s is %s and has no end", id, in.State)
	}
	return nil
}

// place is where a step stands in the graph: the sequences around it, outermost first.
type place struct {
	at   []spot
	ends string
}

// spot is one sequence around a step.
type spot struct {
	seq       string // which: prefix of static paths
	index     int
	each      bool
	unordered bool // elements at once
}

type audit struct {
	places  map[string]place
	intents map[string]bool // as in Entry.Next, without the attempt
	undos   []string        // paths, in order of their first intent
	undoing bool
	pivot   bool
	epoch   int64
}

func (a *audit) walk(nodes []saga.ShapeNode, seq string, above []spot) {
	for i, n := range nodes {
		at := append(append([]spot(nil), above...), spot{seq: seq, index: i})
		last := &at[len(at)-1]
		last.each, last.unordered = n.Kind == "each", n.Policy != nil && n.Policy.AtOnce > 1
		a.places[n.Path] = place{at, n.Ends}
		for j, b := range n.Branches {
			a.walk(b.Nodes, fmt.Sprintf("%s/%d", n.Path, j), at)
		}
	}
}

func (a *audit) entry(i int, e *saga.Entry) error {
	if e.Seq != int64(i+1) {
		return fmt.Errorf("it has number %d: a gap", e.Seq)
	}
	if e.Epoch < a.epoch {
		return fmt.Errorf("its epoch %d is below %d", e.Epoch, a.epoch)
	}
	a.epoch = e.Epoch
	place := a.places[static(e.Step)]
	switch e.Event {
	case saga.EventDone, saga.EventRetry, saga.EventFailed, saga.EventUndoFailed, saga.EventParked:
		sign := "+"
		if e.Op == saga.Undo {
			sign = "-"
		}
		if e.Step != "" && !a.intents[sign+e.Step] {
			return fmt.Errorf("no intent came before it")
		}
	}
	if (e.Event == saga.EventDone || e.Event == saga.EventOperator && e.Verb == saga.VerbDone) && e.Op != saga.Undo && place.ends == "pivot" {
		if a.undoing {
			return fmt.Errorf("the pivot was done after an undo")
		}
		a.pivot = true
	}
	for _, s := range e.Next {
		path, op, _, err := saga.ParseIntent(s)
		if err != nil {
			return err
		}
		switch {
		case op == saga.Undo && a.pivot:
			return fmt.Errorf("undo of %q after the pivot", path)
		case op == saga.Undo:
			if !a.intents["+"+path] {
				return fmt.Errorf("undo of %q, which was never begun", path)
			}
			a.undoing = true
			if !a.intents["-"+path] {
				a.undos = append(a.undos, path)
			}
			a.intents["-"+path] = true
		case a.undoing:
			return fmt.Errorf("step %q begun after an undo", path)
		default:
			a.intents["+"+path] = true
		}
	}
	return nil
}

// order checks every two undos that have an order: the later step of a sequence is undone first.
func (a *audit) order() error {
	for i, x := range a.undos {
		for _, y := range a.undos[i+1:] {
			if a.before(x, y) {
				return fmt.Errorf("step %q was undone before %q, which comes after it", x, y)
			}
		}
	}
	return nil
}

// before reports whether the graph puts x before y.
func (a *audit) before(x, y string) bool {
	px, py := a.places[static(x)].at, a.places[static(y)].at
	ex, ey := elements(x), elements(y)
	for i := range min(len(px), len(py)) {
		switch {
		case px[i].seq != py[i].seq:
			return false // other branches of one node
		case px[i].index != py[i].index:
			return px[i].index < py[i].index
		case px[i].each && len(ex) > 0 && len(ey) > 0:
			if ex[0] != ey[0] {
				return !px[i].unordered && ex[0] < ey[0]
			}
			ex, ey = ex[1:], ey[1:]
		}
	}
	return false
}

// static takes the element numbers out of a path.
func static(path string) string {
	for _, n := range elements(path) {
		path = strings.Replace(path, fmt.Sprintf("[%d]", n), "[]", 1)
	}
	return path
}

// elements lists the element numbers in a path.
func elements(path string) []int {
	var all []int
	for _, part := range strings.Split(path, "[")[1:] {
		digits, _, _ := strings.Cut(part, "]")
		if n, err := strconv.Atoi(digits); err == nil {
			all = append(all, n)
		}
	}
	return all
}

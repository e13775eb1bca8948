package page

import (
	"math"
	"time"
)

// timelineWidth is the length of an order's timeline in its own units; it is stretched to the width there is.
const timelineWidth = 1000

// orderView is an order with its steps placed on a line of time.
type orderView struct {
	Order
	Icon   string
	Filter string // which list it is in besides all
	Took   time.Duration
	Open   bool
	Bars   []bar
	Now    time.Time
}

// bar is a step in the timeline.
type bar struct {
	Step
	X, W  float64
	Class string // done, undone, failed, running, waiting, doubt
	Icon  string
	Took  time.Duration
	After time.Duration // the start of the order
}

// PivotX is where the mark at the pivot's end stands.
func (b bar) PivotX() float64 { return min(b.X+b.W, timelineWidth-5) }

func viewOrder(o Order, now time.Time) orderView {
	v := orderView{Order: o, Now: now}
	end := o.Ended
	if end.IsZero() {
		end, v.Open = now, true
	}
	for _, s := range o.Steps {
		if s.Ended.After(end) {
			end = s.Ended
		}
	}
	v.Took = max(end.Sub(o.Started), 0)
	span := max(float64(v.Took), 1)
	for _, s := range o.Steps {
		if s.Started.IsZero() {
			continue
		}
		ended := s.Ended
		if ended.IsZero() {
			ended = end
		}
		b := bar{Step: s, Took: max(ended.Sub(s.Started), 0), After: max(s.Started.Sub(o.Started), 0)}
		b.W = math.Round(max(float64(b.Took)/span*timelineWidth, 8))
		b.X = math.Round(min(max(float64(b.After)/span*timelineWidth, 0), timelineWidth-b.W))
		b.Class, b.Icon = stepLook(s)
		v.Bars = append(v.Bars, b)
		v.undone(s)
	}
	switch o.State {
	case "confirmed":
		v.Icon, v.Filter = "ok", "confirmed"
	case "cancelled", "returned":
		v.Icon, v.Filter = "undo", "undone"
	case "returning":
		v.Icon, v.Filter = "wait", "undone"
	case "needs a human":
		v.Icon, v.Filter = "doubt", "parked"
	default:
		v.Icon = "wait"
		if v.Filter == "" {
			v.Filter = "open"
		}
	}
	return v
}

// undone moves an open order that is being undone to that list.
func (v *orderView) undone(s Step) {
	if s.Undo {
		v.Filter = "undone"
	}
}

func stepLook(s Step) (class, icon string) {
	switch {
	case s.State == "failed":
		return "failed", "bad"
	case s.State == "in doubt":
		return "doubt", "doubt"
	case s.State == "waiting":
		return "waiting", "wait"
	case s.State == "running":
		return "running", "wait"
	case s.Undo:
		return "undone", "undo"
	default:
		return "done", "ok"
	}
}

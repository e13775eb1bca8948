package page

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// The graph's box, and its nodes' places in it: three columns and as many rows as needed.
const (
	graphWidth = 480
	nodeWidth  = 118
	nodeHeight = 54
)

var (
	columns = []float64{62, 240, 418}
	rows    = []float64{32, 150, 288}

	// places are where the shop's services stand: customers come from the top left, events leave at the right.
	places = map[string][2]int{
		"customers": {0, 0}, "gateway": {0, 1}, "orders": {1, 1}, "broker": {2, 1}, "notifications": {2, 0},
		"inventory": {0, 2}, "payments": {1, 2}, "shipping": {2, 2},
	}
)

// graph is the system as a picture.
type graph struct {
	Width, Height float64
	Nodes         []node
	Lines         []arrow
	Title         string
}

type node struct {
	Name, Kind string
	X, Y       float64 // its centre
	Health     Health
	Word       string
	Faults     string // what is wrong on purpose
	Virtual    bool   // not a service of ours: the customers, the broker
}

// Left and Top are the corner of a node's box.
func (n node) Left() float64 { return n.X - nodeWidth/2 }

// Top is documented at Left.
func (n node) Top() float64 { return n.Y - nodeHeight/2 }

// W and H are the size of a node's box.
func (n node) W() float64 { return nodeWidth }

// H is documented at W.
func (n node) H() float64 { return nodeHeight }

// NameY is the first line's place.
func (n node) NameY() float64 { return n.Y - 5 }

// WordY is the second line's place.
func (n node) WordY() float64 { return n.Y + 14 }

// FaultY is the place of the line below the box.
func (n node) FaultY() float64 { return n.Y + nodeHeight/2 + 13 }

// IconX and IconY are the corner of the icon, on the box's corner.
func (n node) IconX() float64 { return n.Left() + nodeWidth - 10 }

// IconY is documented at IconX.
func (n node) IconY() float64 { return n.Top() - 5 }

// arrow is one node calling another.
type arrow struct {
	From, To string
	Health   Health
	Path     string
	Width    float64
	LX, LY   float64 // the label's place
	Label    string
	Second   string
	Queue    bool // events, not calls
	level    bool // drawn from left to right
}

// SecondY is the place of the label's second line.
func (a arrow) SecondY() float64 {
	if a.level {
		return a.LY + 24 // below the line
	}
	return a.LY + 13
}

// BackX, BackY, BackW and BackH are the box behind the label of an arrow that is not level, so that it is read above its line.
func (a arrow) BackX() float64 { return a.LX - a.BackW()/2 }

// BackY is documented at BackX.
func (a arrow) BackY() float64 { return a.LY - 10 }

// BackW is documented at BackX.
func (a arrow) BackW() float64 {
	if a.level {
		return 0 // above and below the line
	}
	const letter = 6.4 // about a letter's width
	return math.Round(letter*float64(max(utf8.RuneCountInString(a.Label), utf8.RuneCountInString(a.Mark()+a.Second))) + 6)
}

// BackH is documented at BackX.
func (a arrow) BackH() float64 {
	if a.Second == "" {
		return 14
	}
	return 27
}

// Mark is the sign before the second line, for who does not see the colour.
func (a arrow) Mark() string {
	switch a.Health {
	case Down:
		return "✕ "
	case Degraded:
		return "▲ "
	default:
		return ""
	}
}

func newGraph(s Snapshot) graph {
	f := recent(s.Traffic)
	g := graph{Width: graphWidth}
	at := map[string]int{}
	extra := 0
	add := func(n node) {
		place, ok := places[n.Name]
		if !ok {
			place = [2]int{extra % len(columns), len(rows) + extra/len(columns)}
			extra++
		}
		n.X, n.Y = columns[place[0]], rows[min(place[1], len(rows)-1)]+138*float64(max(0, place[1]-len(rows)+1))
		at[n.Name] = len(g.Nodes)
		g.Nodes = append(g.Nodes, n)
		g.Height = max(g.Height, n.Y+nodeHeight/2+18)
	}
	customers := OK
	if f.Good+f.Failed > 0 && f.GoodShare < 0.99 {
		customers = Degraded
		if f.GoodShare < 0.5 {
			customers = Down
		}
	}
	add(node{Name: "customers", Kind: formatRate(f.Offered) + " orders/s", Health: OK, Virtual: true})
	for _, x := range s.Services {
		add(node{Name: x.Name, Kind: x.Protocol, Health: x.Health, Word: healthWord(x.Health), Faults: faults(x.Chaos)})
	}
	broker, word := OK, "up"
	switch {
	case !s.Outbox.BrokerUp:
		broker, word = Down, "down"
	case s.Outbox.Paused:
		word = "up, relay paused"
	}
	add(node{Name: "broker", Kind: "NATS", Health: broker, Word: word, Virtual: true})

	link := func(a arrow, callsPerSecond float64) {
		from, ok := at[a.From]
		to, ok2 := at[a.To]
		if !ok || !ok2 || from == to {
			return
		}
		a.Width = math.Round(min(9, 1.4+1.5*math.Log2(1+callsPerSecond/2))*10) / 10
		a.draw(g.Nodes[from], g.Nodes[to])
		g.Lines = append(g.Lines, a)
	}
	link(arrow{From: "customers", To: "gateway", Health: customers, Label: formatRate(f.Good) + "/s good", Second: failedWord(f.Failed)}, f.Offered)
	for _, e := range s.Edges {
		if e.Events() {
			continue // drawn by way of the broker
		}
		link(arrow{From: e.From, To: e.To, Health: e.Health, Label: formatRate(e.Calls) + "/s", Second: edgeWord(e)}, e.Calls)
	}
	queue := OK
	if s.Outbox.Oldest > 2*time.Second {
		queue = Degraded
	}
	if broker == Down {
		queue = Down
	}
	label, second := "in step", ""
	if s.Outbox.Depth > 0 {
		label, second = formatNumber(s.Outbox.Depth)+" wait", formatDuration(s.Outbox.Oldest)
	}
	link(arrow{From: "orders", To: "broker", Health: queue, Label: label, Second: second, Queue: true}, f.Offered)
	link(arrow{From: "broker", To: "notifications", Health: broker, Label: "events", Queue: true}, f.Offered)
	g.Title = describe(g)
	return g
}

func failedWord(failed float64) string {
	if failed < 0.05 {
		return ""
	}
	return formatRate(failed) + "/s failed"
}

// edgeWord is the second line of an edge's label: what is wrong, or how many attempts a call takes.
func edgeWord(e Edge) string {
	switch {
	case e.Breaker == "open", e.Breaker == "half-open":
		return e.Breaker
	case e.Failures >= 0.005:
		return formatShare(e.Failures) + " fail"
	case e.Attempts > 0:
		return fmt.Sprintf("%.2f×", e.Attempts)
	default:
		return ""
	}
}

// draw sets the path from one box's border to the other's, and the label's place.
func (a *arrow) draw(from, to node) {
	const gap = 7 // room for the head
	dx, dy := to.X-from.X, to.Y-from.Y
	if math.Abs(dy) < nodeHeight { // beside each other
		side := math.Copysign(1, dx)
		x1, x2 := from.X+side*nodeWidth/2, to.X-side*(nodeWidth/2+gap)
		a.Path = fmt.Sprintf("M%s,%s L%s,%s", coordinate(x1), coordinate(from.Y), coordinate(x2), coordinate(to.Y))
		a.LX, a.LY, a.level = (x1+x2)/2, from.Y-8, true
		return
	}
	side := math.Copysign(1, dy)
	shift := max(-38, min(38, dx*0.2))
	x1, y1 := from.X+shift, from.Y+side*nodeHeight/2
	x2, y2 := to.X-shift*0.6, to.Y-side*(nodeHeight/2+gap)
	middle := (y1 + y2) / 2
	a.Path = fmt.Sprintf("M%s,%s C%s,%s %s,%s %s,%s", coordinate(x1), coordinate(y1), coordinate(x1), coordinate(middle+side*8), coordinate(x2), coordinate(middle-side*8), coordinate(x2), coordinate(y2))
	a.LX, a.LY = (x1+x2)/2+dx*0.12, middle
	a.LX = math.Round(a.LX)
}

// describe says the graph in words, worst first.
func describe(g graph) string {
	var bad []string
	for _, n := range g.Nodes {
		if n.Health != OK {
			bad = append(bad, n.Name+" is "+n.Word)
		}
	}
	for _, a := range g.Lines {
		if a.Health != OK && !a.Queue {
			bad = append(bad, strings.TrimSuffix("from "+a.From+" to "+a.To+" "+string(a.Health)+": "+a.Second, ": "))
		}
	}
	if len(bad) == 0 {
		return "The services and who calls whom: all healthy."
	}
	return "The services and who calls whom: " + strings.Join(slices.Compact(bad), "; ") + "."
}

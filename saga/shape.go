package saga

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// Shape is a definition as data: enough to draw it, to compare versions and to run its bodies by
// name from another engine.
type Shape struct {
	Ref
	Nodes []ShapeNode `json:"nodes"`
}

// ShapeNode is one node of a Shape.
type ShapeNode struct {
	Path     string        `json:"path"`           // elements of Each stand as []
	Kind     string        `json:"kind"`           // step, parallel, if, each, child, wait, delay
	Ends     string        `json:"ends,omitempty"` // compensate, nothing-to-undo, pivot, retriable
	Tx       string        `json:"tx,omitempty"`   // kind of transaction
	Signal   string        `json:"signal,omitempty"`
	Needs    []string      `json:"needs,omitempty"`
	Branches []ShapeBranch `json:"branches,omitempty"`
	Policy   *ShapePolicy  `json:"policy,omitempty"` // not compared: may change within a version
	Undo     *ShapePolicy  `json:"undo,omitempty"`   // likewise
}

// ShapeBranch is a sequence within a node.
type ShapeBranch struct {
	Name  string      `json:"name,omitempty"`
	Nodes []ShapeNode `json:"nodes"`
}

// ShapePolicy is how a body is repeated. Durations are strings such as "1.5s".
type ShapePolicy struct {
	Timeout  string `json:"timeout,omitempty"`
	Attempts int    `json:"attempts,omitempty"`
	First    string `json:"first,omitempty"`
	Cap      string `json:"cap,omitempty"`
	Within   string `json:"within,omitempty"`
	AtOnce   int    `json:"atOnce,omitempty"` // of Each: more than 1
}

// Shape returns the definition as data; it marshals to stable JSON.
func (d *Definition[I]) Shape() Shape { return d.d.shape(true) }

// Mermaid returns the graph as a Mermaid flowchart.
func (d *Definition[I]) Mermaid() string { return d.d.mermaid() }

func (d *definition) shape(policies bool) Shape {
	return Shape{d.ref, shapeNodes(d.root, policies)}
}

func (d *definition) hash() (string, []byte) {
	s := d.shape(false)
	data, err := json.Marshal(s)
	if err != nil {
		panic(err) // strings and numbers only
	}
	return s.Hash(), data
}

// Hash identifies the graph, without its policies: what must not change within a version.
func (s Shape) Hash() string {
	s.Nodes = bare(s.Nodes)
	data, err := json.Marshal(s)
	if err != nil {
		panic(err) // strings and numbers only
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// bare leaves the policies out.
func bare(nodes []ShapeNode) []ShapeNode {
	out := make([]ShapeNode, len(nodes))
	for i, n := range nodes {
		n.Policy, n.Undo = nil, nil
		branches := make([]ShapeBranch, len(n.Branches))
		for j, b := range n.Branches {
			branches[j] = ShapeBranch{b.Name, bare(b.Nodes)}
		}
		n.Branches = branches
		out[i] = n
	}
	return out
}

func shapeNodes(s *seq, policies bool) []ShapeNode {
	nodes := []ShapeNode{}
	for _, n := range s.nodes {
		sn := ShapeNode{Path: n.static, Kind: string(n.kind), Tx: n.txKind, Signal: n.signal}
		if n.kind == kindStep {
			sn.Ends = string(n.mode)
		}
		for _, need := range n.needs {
			sn.Needs = append(sn.Needs, need.static)
		}
		for _, k := range n.kids {
			sn.Branches = append(sn.Branches, ShapeBranch{k.name, shapeNodes(k, policies)})
		}
		if policies {
			sn.Policy = n.act.shape(n)
			if n.undo != nil {
				sn.Undo = n.back.shape(n)
			}
		}
		nodes = append(nodes, sn)
	}
	return nodes
}

func (o *options) shape(n *node) *ShapePolicy {
	text := func(d time.Duration) string {
		if d == 0 {
			return ""
		}
		return d.String()
	}
	switch n.kind {
	case kindParallel:
		return nil
	case kindWait, kindDelay:
		return &ShapePolicy{Within: text(o.Within)}
	default:
		p := &ShapePolicy{Timeout: text(o.Timeout), Attempts: o.Attempts, First: text(o.First), Cap: text(o.Cap)}
		if n.kind == kindEach && o.Width > 1 {
			p.AtOnce = o.Width
		}
		return p
	}
}

// mermaid draws each node as a box; fork and join are where branches leave and meet.
func (d *definition) mermaid() string {
	m := &drawing{}
	fmt.Fprintf(&m.out, "flowchart TD\n")
	last := m.seq(d.root, []edge{{m.box("start((start))"), ""}})
	end := m.box("done((done))")
	m.link(last, end)
	return m.out.String()
}

type drawing struct {
	out strings.Builder
	n   int
}

type edge struct{ from, label string }

func (m *drawing) box(form string) string {
	id := fmt.Sprintf("n%d", m.n)
	m.n++
	at := strings.IndexAny(form, "([{")
	fmt.Fprintf(&m.out, "  %s%s\n", id, form[at:])
	return id
}

func (m *drawing) link(from []edge, to string) {
	for _, e := range from {
		if e.label != "" {
			fmt.Fprintf(&m.out, "  %s -->|%s| %s\n", e.from, e.label, to)
		} else {
			fmt.Fprintf(&m.out, "  %s --> %s\n", e.from, to)
		}
	}
}

func (m *drawing) seq(s *seq, from []edge) []edge {
	for _, n := range s.nodes {
		from = m.node(n, from)
	}
	return from
}

func (m *drawing) node(n *node, from []edge) []edge {
	var id string
	switch n.kind {
	case kindStep:
		label := map[mode]string{modeCompensate: "undo", modeNothing: "nothing to undo", modePivot: "pivot", modeRetriable: "retriable"}[n.mode]
		open, end := `["`, `"]`
		if n.mode == modePivot {
			open, end = `{{"`, `"}}`
		}
		id = m.box("n" + open + n.name + "<br/>" + label + end)
	case kindIf:
		id = m.box(`n{"` + n.name + `"}`)
	default:
		id = m.box(`n("` + string(n.kind) + " " + n.name + `")`)
	}
	m.link(from, id)
	if len(n.kids) == 0 {
		return []edge{{id, ""}}
	}
	var out []edge
	for _, k := range n.kids {
		label := k.name
		if n.kind == kindEach {
			label = "each"
		}
		out = append(out, m.seq(k, []edge{{id, label}})...)
	}
	return out
}

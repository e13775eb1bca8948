package saga

import (
	"errors"
	"fmt"
	"slices"

	"github.com/backstay-go/backstay/internal/deadline"
)

// Definition is a saga's graph: typed by its input, immutable, safe for concurrent use.
type Definition[I any] struct{ d *definition }

// Registrable is any *Definition, whatever its input.
type Registrable interface{ definition() *definition }

func (d *Definition[I]) definition() *definition { return d.d }

// Ref reports name and version.
func (d *Definition[I]) Ref() Ref { return d.d.ref }

// definition is the graph without types. Everything in it is written by Define and read-only after.
type definition struct {
	ref        Ref
	root       *seq
	codec      Codec
	maxPayload int
	nodes      map[string]*node // by static path
	faults     []error          // while defining
	warnings   []string
	signals    map[string]bool // names that some Wait listens to
	first      []string        // the intents with which every instance starts
	begin      beginning
}

// seq is a sequence of nodes with one input: the main line, a branch, the body of Each or Child.
type seq struct {
	def   *definition
	nodes []*node
	up    *node  // the node that this sequence belongs to; nil for the main line
	rel   string // prefix of the paths of its nodes, from the nearest Each
	name  string // of the branch
}

type nodeKind string

const (
	kindStep     nodeKind = "step"
	kindParallel nodeKind = "parallel"
	kindIf       nodeKind = "if"
	kindEach     nodeKind = "each"
	kindChild    nodeKind = "child"
	kindWait     nodeKind = "wait"
	kindDelay    nodeKind = "delay"
)

// mode is how a step ends: what becomes of it when the saga fails later.
type mode string

const (
	modeNone       mode = ""
	modeCompensate mode = "compensate"
	modeNothing    mode = "nothing-to-undo"
	modePivot      mode = "pivot"
	modeRetriable  mode = "retriable"
)

type node struct {
	kind   nodeKind
	name   string
	rel    string // path from the nearest Each
	static string // path with [] for the element: unique in the definition, for people
	in     *seq
	index  int // in in.nodes
	kids   []*seq
	kid    map[string]bool // branch names in use
	mode   mode
	reason string // of NothingToUndo
	needs  []*node
	act    options // of the action
	back   options // of the undo
	txKind string  // "": plain body
	txUndo bool

	// The bodies, with encoded input and output. For If the output is a bool, for Each a [][]byte
	// (encoded inputs of the elements), for Child the child's input.
	action func(c *Ctx) ([]byte, error)
	undo   func(c *Ctx) error

	// typed decodes an output from outside into the step's type: a signal, an operator's value.
	typed func(d *definition, data []byte) error

	signal string // of a Wait
	origin *node  // of a node copied by Child: what its StepRef names
}

func (n *node) doubtful() bool { return n.kind == kindStep } // only steps have effects

// Define builds and checks the graph of one version. build is called once, at once; it only
// declares. The error joins every fault found, each naming its step, and is ErrDefinition.
//
// The version is a positive number of your own. Instances keep theirs to their end: change the
// graph, and the version goes up and the old definition stays registered until no instance is
// left of it. Names are up to 64 letters, digits, '_', '.' and '-'.
func Define[I any](name string, version int, build func(b *Builder[I]), opts ...DefineOption) (*Definition[I], error) {
	d := &definition{
		ref: Ref{name, version}, codec: JSON{}, maxPayload: maxPayload,
		nodes: map[string]*node{}, signals: map[string]bool{},
	}
	if !validName(name) {
		d.fault("", "the definition's name %q is not 1 to 64 letters, digits, '_', '.', '-'", name)
	}
	if version < 1 {
		d.fault("", "version %d is below 1", version)
	}
	for _, o := range opts {
		o(d)
	}
	d.root = &seq{def: d}
	build(&Builder[I]{d.root})
	d.check()
	if len(d.faults) > 0 {
		return nil, fmt.Errorf("%w %q: %w", ErrDefinition, name, errors.Join(d.faults...))
	}
	for _, n := range d.nodes {
		for _, o := range []*options{&n.act, &n.back} {
			o.limit = &deadline.Limit{Cause: errTimeout, Shared: true}
		}
	}
	begin, _ := newRun(d, "", nil).next()
	for _, o := range begin {
		d.first = append(d.first, intent{o.path, false, 1}.String())
	}
	d.first = slices.Clip(d.first)
	d.begin = newBeginning(name)
	return &Definition[I]{d}, nil
}

// Must returns d, and panics when err is not nil: for definitions in package variables.
func Must[I any](d *Definition[I], err error) *Definition[I] {
	if err != nil {
		panic(err)
	}
	return d
}

// Warnings reports what is legal and still worth a look: a step without a way back, other than a
// plain read, before the pivot.
func (d *Definition[I]) Warnings() []string { return append([]string(nil), d.d.warnings...) }

// DefineOption changes a definition as a whole.
type DefineOption func(*definition)

// WithCodec replaces JSON. Instances remember the codec's name; one that was started with another
// name parks when it is claimed.
func WithCodec(c Codec) DefineOption { return func(d *definition) { d.codec = c } }

// MaxPayload limits each encoded payload, in bytes; default 1 MiB.
func MaxPayload(bytes int) DefineOption {
	return func(d *definition) {
		if bytes < 1 {
			d.fault("", "MaxPayload(%d) is below 1", bytes)
			return
		}
		d.maxPayload = bytes
	}
}

// Builder collects the nodes of one sequence, whose input is an I. It is used inside the function
// that got it, on one goroutine.
type Builder[I any] struct{ s *seq }

func (d *definition) fault(at, format string, args ...any) {
	err := fmt.Errorf(format, args...)
	if at != "" {
		err = fmt.Errorf("step %q: %w", at, err)
	}
	d.faults = append(d.faults, err)
}

// add appends a node to the sequence.
func (s *seq) add(kind nodeKind, name string, opts []StepOption) *node {
	n := &node{kind: kind, name: name, in: s, index: len(s.nodes), rel: s.rel + name, static: s.static() + name, kid: map[string]bool{}}
	d := s.def
	if !validName(name) {
		d.fault(n.static, "the name %q is not 1 to 64 letters, digits, '_', '.', '-'", name)
	}
	if d.nodes[n.static] != nil {
		d.fault(n.static, "duplicate name")
	}
	if len(n.static) > maxPath {
		d.fault(n.static, "the path is longer than %d bytes", maxPath)
	}
	n.act = actionDefaults
	for _, o := range opts {
		o(n, &n.act)
	}
	d.nodes[n.static] = n
	s.nodes = append(s.nodes, n)
	return n
}

// branch makes a sequence below n.
func (n *node) branch(name string) *seq {
	s := &seq{def: n.in.def, up: n, name: name}
	switch {
	case n.kind == kindEach: // paths below start anew: the element's prefix is put before them
	case name != "":
		s.rel = n.rel + "." + name + "/"
	default:
		s.rel = n.rel + "/"
	}
	if n.kid[name] {
		s.def.fault(n.static, "duplicate branch %q", name)
	}
	n.kid[name] = true
	n.kids = append(n.kids, s)
	return s
}

// static is the prefix of static paths in s.
func (s *seq) static() string {
	switch {
	case s.up == nil:
		return ""
	case s.up.kind == kindEach:
		return s.up.static + "[]/"
	case s.name != "":
		return s.up.static + "." + s.name + "/"
	default:
		return s.up.static + "/"
	}
}

// maxPath leaves room for element numbers and the instance's id within the 255 bytes that
// idempotency keys may commonly have.
const maxPath = 160

func validName(s string) bool {
	if len(s) == 0 || len(s) > 64 {
		return false
	}
	for _, c := range []byte(s) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '_', c == '.', c == '-':
		default:
			return false
		}
	}
	return true
}

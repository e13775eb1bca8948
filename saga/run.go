package saga

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// run is the state of one instance as its log tells it: apply replays an entry, next says what may
// begin. It holds no clock, no lock and no goroutine; the live engine and a recovery go through the
// same code, so that they cannot disagree.
type run struct {
	def    *definition
	id     string
	input  []byte
	seq    int64
	ops    map[string]*op // by path
	frames map[string]*frame
	undo   bool  // compensating
	pivot  bool  // done
	noted  Event // a cancel or deadline that waits for the pivot's answer
	closed bool  // resolved by an operator
	late   bool  // the deadline has passed and is dealt with

	parked int  // ops in doubt about how to go on
	stuck  int  // undos that failed for good
	halted bool // one of them stops the others

	failedStep string
	cause      []byte // note
	parkNote   []byte
	undone     []string
}

// frame is a sequence at run time: which element's paths, which input.
type frame struct {
	prefix string // of paths: "" or "ship[3]/"
	input  []byte
}

type status uint8

const (
	idle     status = iota
	intended        // its intent is durable: the action may have begun
	backoff         // a failed attempt; the next has no intent yet
	done
	failed // gave up; doubt says whether it may have had effect
	parked
	undoIntended
	undoBackoff
	undone
	undoFailed
)

// op is a node of the graph in one frame.
type op struct {
	n       *node
	f       *frame
	path    string
	status  status
	attempt int // number of the last attempt intended, of the present direction
	base    int // attempts before the operator's last retry, which do not count
	doubt   bool
	known   bool
	data    []byte
	first   time.Time // store's clock: when the first attempt was intended
	due     time.Time // store's clock: not before
	items   int       // of Each
	low     int       // of Each: elements below are done
	choice  bool      // of If
	running bool      // live only: a body of ours is at work
}

func newRun(d *definition, id string, input []byte) *run {
	r := &run{def: d, id: id, input: input, ops: map[string]*op{}, frames: map[string]*frame{}}
	r.frames[""] = &frame{input: input}
	return r
}

// intent is a body that may have begun.
type intent struct {
	path    string
	undo    bool
	attempt int
}

// ParseIntent reads one of Entry.Next: which step's body may have begun, in which direction, and
// the number of the attempt.
func ParseIntent(s string) (step string, op Op, attempt int, err error) {
	i, ok := parseIntent(s)
	if !ok {
		return "", "", 0, fmt.Errorf("saga: malformed intent %q", s)
	}
	op = Action
	if i.undo {
		op = Undo
	}
	return i.path, op, i.attempt, nil
}

func (i intent) String() string {
	sign := "+"
	if i.undo {
		sign = "-"
	}
	return sign + i.path + "#" + strconv.Itoa(i.attempt)
}

func parseIntent(s string) (intent, bool) {
	at := strings.LastIndexByte(s, '#')
	if at < 2 || s[0] != '+' && s[0] != '-' {
		return intent{}, false
	}
	n, err := strconv.Atoi(s[at+1:])
	return intent{s[1:at], s[0] == '-', n}, err == nil && n > 0
}

// path is where n lies in a frame.
func (f *frame) path(n *node) string {
	if f.prefix == "" {
		return n.rel
	}
	return f.prefix + n.rel
}

// op returns the state of n in f, making it when it is new.
func (r *run) op(n *node, f *frame) *op {
	path := f.path(n)
	o := r.ops[path]
	if o == nil {
		o = &op{n: n, f: f, path: path}
		r.ops[path] = o
	}
	return o
}

// locate finds the op of a path in the log.
func (r *run) locate(path string) (*op, error) {
	if o := r.ops[path]; o != nil {
		return o, nil
	}
	n := r.def.nodes[staticPath(path)]
	if n == nil {
		return nil, fmt.Errorf("%w: the log names step %q, which %s %d has not", ErrDefinition, path, r.def.ref.Def, r.def.ref.Ver)
	}
	key := ""
	if at := strings.LastIndex(path, "]/"); at >= 0 {
		key = path[:at+2]
	}
	if up := n.scope(); up != nil && up.kind == kindChild {
		key += up.rel + "/"
	}
	f := r.frames[key]
	if f == nil {
		return nil, fmt.Errorf("%w: the log names step %q before its sequence", ErrDefinition, path)
	}
	return r.op(n, f), nil
}

// scope is the nearest node around n that gives it an input.
func (n *node) scope() *node {
	for up := n.in.up; up != nil; up = up.in.up {
		if up.kind == kindEach || up.kind == kindChild {
			return up
		}
	}
	return nil
}

// staticPath takes the element numbers out of a path.
func staticPath(path string) string {
	if !strings.Contains(path, "[") {
		return path
	}
	var b strings.Builder
	skip := false
	for _, c := range path {
		switch {
		case c == '[':
			skip = true
			b.WriteByte('[')
		case c == ']':
			skip = false
			b.WriteByte(']')
		case !skip:
			b.WriteRune(c)
		}
	}
	return b.String()
}

// needPath is the path of a node needed by one whose path begins with prefix: the enclosing elements are the
// same as far as the needed one has any.
func needPath(prefix string, need *node) string {
	depth := strings.Count(need.static, "[]/")
	at := 0
	for range depth {
		at += strings.Index(prefix[at:], "]/") + 2
	}
	return prefix[:at] + need.rel
}

// elementPrefix begins the paths of an element's steps.
func elementPrefix(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]/" }

package saga

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
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
	all    []*op          // the same, in the order in which they were met
	room   []op           // where the next ones come to lie
	root   *frame
	frames map[string]*frame // the others, by prefix; nil: none
	begin  []*op             // scratch of next
	undo   bool              // compensating
	pivot  bool              // done
	noted  Event             // a cancel or deadline that waits for the pivot's answer
	closed bool              // resolved by an operator
	late   bool              // the deadline has passed and is dealt with

	started []byte // trace context of the start, encoded

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
	prefix  string // of paths: "" or "ship[3]/"
	input   []byte
	decoded atomic.Value // input, if bodies may share it: see inputOf
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
	first   time.Time               // store's clock: when the first attempt was intended
	due     time.Time               // store's clock: not before
	items   int                     // of Each
	low     int                     // of Each: elements below are done
	choice  bool                    // of If
	running bool                    // live only: a body of ours is at work
	cancel  context.CancelCauseFunc // of that body
}

func newRun(d *definition, id string, input []byte) *run {
	return &run{def: d, id: id, input: input, ops: make(map[string]*op, min(len(d.nodes), mostRoom)), all: make([]*op, 0, min(len(d.nodes), mostRoom)), root: &frame{input: input}}
}

// mostRoom bounds the room made for ops at a time: a graph may have many nodes of which an instance meets few.
const mostRoom = 16

// frame finds the sequence at run time whose paths begin with prefix.
func (r *run) frame(prefix string) *frame {
	if prefix == "" {
		return r.root
	}
	return r.frames[prefix]
}

func (r *run) addFrame(key string, f *frame) {
	if r.frames == nil {
		r.frames = map[string]*frame{}
	}
	r.frames[key] = f
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
		if len(r.room) == cap(r.room) {
			r.room = make([]op, 0, min(len(r.def.nodes), mostRoom))
		}
		r.room = append(r.room, op{n: n, f: f, path: path})
		o = &r.room[len(r.room)-1]
		r.ops[path] = o
		r.all = append(r.all, o)
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
	f := r.frame(key)
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

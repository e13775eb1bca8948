package saga

import (
	"context"
	"sync/atomic"

	"github.com/backstay-go/backstay"
)

// Ctx is the context of one attempt of a step's body, with what the body may know of its saga. As
// a context.Context it ends with the attempt's timeout, with a cancel (not for undos), or when the
// instance is fenced: context.Cause tells which. It carries the step's idempotency key: the first
// unsafe request of httpclient or grpcclient made with it sends the key, and a second one fails with
// ErrKeyReused unless made with a context of Part. It is valid until the body returns.
type Ctx struct {
	context.Context
	*facts

	ends context.Context // what Context ends with, without the values put on it
	used atomic.Bool     // the key was handed to a request
}

// body is a Ctx with its facts.
type body struct {
	Ctx
	facts facts
}

// facts are what the calls of one attempt have in common.
type facts struct {
	def     *definition
	n       *node
	id      string
	ref     Ref
	bizKey  string
	tenant  string
	path    string
	op      Op
	attempt int
	epoch   int64
	frame   *frame
	result  needed   // of an undo: its action's output
	needs   []needed // in the order of n.needs
	tx      *Tx      // of a transactional body
	fence   Fence    // position for locks
	locker  Locker   // nil: the store has none
	counts  counts
	started []byte // trace context of the saga's start, encoded
}

// counts is what is known of a body's requests.
type counts struct {
	taken   atomic.Int32 // operations handed to requests, those of Part included
	effects backstay.Effects
}

// needed is a result as the log has it.
type needed struct {
	data  []byte
	known bool
}

// UndoSuffix ends the idempotency key of an undo, which is otherwise its action's. Ordinary servers take two
// requests with one key for the same request, so the two must differ; saga/guard takes the suffix off.
const UndoSuffix = "/undo"

// Key is the idempotency key of this body: the same for every attempt, on every node. For an action it is
// <instance>/<path>, for its undo the same with UndoSuffix.
func (c *Ctx) Key() string {
	if c.op == Undo {
		return c.ActionKey() + UndoSuffix
	}
	return c.ActionKey()
}

// ActionKey is the idempotency key of the step's action, in both directions: by it an undo in
// doubt finds what there is to undo.
func (c *Ctx) ActionKey() string { return c.id + "/" + c.path }

// ID is the instance's id. BusinessKey and Tenant are those it was started with.
func (c *Ctx) ID() string { return c.id }

// BusinessKey is the key that the instance was started with.
func (c *Ctx) BusinessKey() string { return c.bizKey }

// Tenant is the tenant that the instance was started for; may be empty.
func (c *Ctx) Tenant() string { return c.tenant }

// Step is the step's path, such as "ship[3]/pack".
func (c *Ctx) Step() string { return c.path }

// Op tells the action from its undo.
func (c *Ctx) Op() Op { return c.op }

// Attempt is this attempt's number, from 1.
func (c *Ctx) Attempt() int { return c.attempt }

// Epoch is the owner's fencing number: a later owner has a higher one.
func (c *Ctx) Epoch() int64 { return c.epoch }

// Part returns a context for one further unsafe request of the same body, under a key of its own:
// the step's key, a dot and name. The name must be the same in every attempt and differ within the body.
func (c *Ctx) Part(name string) context.Context {
	var used atomic.Bool
	return backstay.WithOperation(c.Context, func() (backstay.Operation, error) {
		c.counts.taken.Add(1)
		if used.Swap(true) {
			return backstay.Operation{}, ErrKeyReused
		}
		key := c.ActionKey() + "." + name
		if c.op == Undo {
			key += UndoSuffix
		}
		return backstay.Operation{Key: key, Op: string(c.op), Epoch: c.epoch}, nil
	})
}

// take hands the key to the first unsafe request.
func (c *Ctx) take() (backstay.Operation, error) {
	c.counts.taken.Add(1)
	if c.used.Swap(true) {
		return backstay.Operation{}, ErrKeyReused
	}
	return backstay.Operation{Key: c.Key(), Op: string(c.op), Epoch: c.epoch}, nil
}

// Lock takes a semantic lock: until the saga ends (not merely this step; not while it is parked), no
// other instance of any definition in this store gets resource. ErrLocked when another instance has it:
// return it, wrapped or not, and the step is repeated as after any error without effect. Take
// locks in one order everywhere; two sagas that wait for each other's are told apart only by their deadlines.
func (c *Ctx) Lock(resource string) error {
	var err error
	switch {
	case c.tx != nil && c.tx.Lock != nil:
		err = c.tx.Lock(c, resource)
	case c.tx == nil && c.locker != nil:
		err = c.locker.Lock(c, c.fence, resource)
	default:
		return Park(ErrUnsupported)
	}
	if err == ErrLocked && c.counts.taken.Load() == 0 && !c.counts.effects.Possible() {
		return NoEffect(err)
	}
	return err
}

type ctxKey struct{}

// Value finds the Ctx itself for FromContext, and else asks the context below.
func (c *Ctx) Value(key any) any {
	if key == (ctxKey{}) {
		return c
	}
	return c.Context.Value(key)
}

// AfterFunc is what package context asks a context for, so that one derived from this costs no goroutine. Call
// context.AfterFunc instead.
func (c *Ctx) AfterFunc(f func()) (stop func() bool) { return context.AfterFunc(c.ends, f) }

// FromContext returns the Ctx of the body that ctx was derived from, for policies and clients that
// want to know whom they serve.
func FromContext(ctx context.Context) (*Ctx, bool) {
	c, ok := ctx.Value(ctxKey{}).(*Ctx)
	return c, ok
}

// with is c for one call of the body, on ctx: calls that a policy repeats do not share the use of the key.
func (c *Ctx) with(ctx context.Context) *Ctx {
	d := &Ctx{facts: c.facts, ends: ctx}
	d.Context = backstay.WithOperation(ctx, d.take)
	return d
}

// need finds a declared result; a node that Child copied answers to the name of its origin.
func (c *Ctx) need(n *node) (needed, bool) {
	for i, m := range c.n.needs {
		if m == n || m.origin != nil && (m.origin == n || m.origin == n.origin) {
			return c.needs[i], true
		}
	}
	return needed{}, false
}

// body makes the Ctx of an op's next body. It copies what the body may read, since the run goes on
// beside it.
func (t *task) body(parent context.Context, o *op, undo bool) *Ctx {
	b := &body{facts: facts{
		def: t.r.def, n: o.n, id: t.r.id, ref: t.r.def.ref, bizKey: t.inst.Key, tenant: t.inst.Tenant,
		path: o.path, op: Action, attempt: o.attempt, epoch: t.epoch, frame: o.f,
		fence: Fence{ID: t.r.id, Epoch: t.epoch, Seq: t.r.seq}, locker: t.e.locker,
		started: t.r.started,
	}}
	c := &b.Ctx
	c.facts, c.ends = &b.facts, parent
	if undo {
		c.op = Undo
		c.result = needed{o.data, o.known}
	}
	for _, n := range o.n.needs {
		if from := t.r.ops[needPath(o.f.prefix, n)]; from != nil {
			c.needs = append(c.needs, needed{from.data, from.known})
		} else {
			c.needs = append(c.needs, needed{})
		}
	}
	c.Context = backstay.WithEffects(parent, &c.counts.effects)
	return c
}

// clean reports whether what the body's requests say of themselves leaves it to the error whether anything happened.
func (c *Ctx) clean() bool { return c.counts.taken.Load() <= 1 && !c.counts.effects.Possible() }

package saga

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// task drives one instance while this node owns it. Its fields belong to the goroutine of drive, except
// where they say otherwise; bodies run on goroutines of their own and report through events.
type task struct {
	e      *Engine
	r      *run
	inst   Instance
	epoch  int64
	life   context.Context // ends when the node's lease is lost, or grace is over
	events chan ended
	wakes  chan struct{}
	mailed atomic.Bool // any goroutine: there is mail to read

	here    *op         // its body is to run on this goroutine: see runHere
	away    atomic.Bool // the driver is in that body: whoever swaps it to false drives on
	out     *write      // the checkpoint on its way
	log     []Entry     // of the next checkpoint
	consume []MailKey
	inbox   []Mail
	mail    int64    // the mail counter known
	bodies  []*op    // at work
	ready   []*op    // scratch of start
	next    []string // scratch of propose
	begin   []*op    // their intents are in log, or durable; to be started after the commit
	state   State    // as last told to the observer
	cause   error    // why the saga turned round, as it was in this process
	stopped error    // what parked it
}

// ended is the end of a body.
type ended struct {
	o     *op
	undo  bool
	data  []byte
	err   error
	clean bool // no request of the body may have had an effect, as far as they are counted
}

func (e *Engine) newTask(life context.Context, inst Instance, epoch int64) *task {
	t := &task{
		e: e, inst: inst, epoch: epoch, life: life, state: inst.State,
		events: make(chan ended, 1), wakes: make(chan struct{}, 1),
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.running.Load() || life.Err() != nil {
		return nil // it is due for others once the lease has ended
	}
	e.tasks.Add(1)
	e.live[inst.ID] = t
	return t
}

// nudge makes drive look up. Any goroutine.
func (t *task) nudge() {
	select {
	case t.wakes <- struct{}{}:
	default:
	}
	t.takeOver()
}

// leave takes the task off the engine's list.
func (t *task) leave() {
	t.e.mu.Lock()
	if t.e.live[t.inst.ID] == t {
		delete(t.e.live, t.inst.ID)
		t.e.askAgain(t.inst.ID)
	}
	wake := t.e.short || t.mailed.Load() // told of mail after its last look, it is due at once by duty 8
	t.e.short = false
	t.e.mu.Unlock()
	if wake {
		t.e.Wake()
	}
	t.e.tasks.Done()
}

// resume replays the log of an instance just claimed and drives it on.
func (t *task) resume(c *Claimed) {
	d := t.e.defs[c.Ref]
	t.epoch, t.inbox, t.mail, t.log, t.consume, t.begin = c.Epoch, c.Inbox, c.Mail, nil, nil, nil
	t.r = newRun(d, c.ID, c.Input)
	if err := t.replay(d, c); err != nil {
		t.unreadable(err, c)
		t.leave()
		return
	}
	t.drive()
}

// first drives an instance that was started under this node.
func (t *task) first(d *definition, n *NewInstance) {
	t.r = newRun(d, n.ID, n.Input)
	start := n.Log[0]
	start.At = t.inst.Created
	if err := t.r.apply(&start); err != nil {
		panic(err) // an entry of our own making
	}
	t.recover(true)
	t.drive()
}

// over ends the task, or, when it does not know how its last commit ended, takes the instance anew.
func (t *task) over(err error) {
	if errors.Is(err, ErrUnknown) {
		if c := t.again(); c != nil {
			t.resume(c)
			return
		}
	}
	t.leave()
}

// again takes the instance anew, to learn how a commit ended.
func (t *task) again() *Claimed {
	for wait := 10 * time.Millisecond; sleep(t.life, wait); wait = min(2*wait, time.Second) {
		got, err := t.e.store.Claim(t.life, Claim{Node: t.e.nodeID(), ID: t.inst.ID, Max: 1})
		switch {
		case err == nil && len(got) == 1:
			return &got[0]
		case errors.Is(err, ErrTerminal), errors.Is(err, ErrNotFound), errors.Is(err, ErrBusy):
			t.e.recheck(t.inst.ID)
			return nil
		}
	}
	return nil
}

func (t *task) replay(d *definition, c *Claimed) error {
	if d == nil {
		return ErrUnclaimable
	}
	if c.Codec != d.codec.Name() {
		return &codecError{"instance", errors.New("written by codec " + c.Codec + ", registered is " + d.codec.Name())}
	}
	for i := range c.Log {
		if err := t.r.apply(&c.Log[i]); err != nil {
			return err
		}
	}
	t.recover(c.State == Ready)
	return nil
}

// recover deals with the intents that the owner before may or may not have carried out. fresh says
// that there was no owner before.
func (t *task) recover(fresh bool) {
	var open []*op
	for _, o := range t.r.all {
		if (o.status == intended || o.status == undoIntended) && o.n.kind != kindWait && o.n.kind != kindDelay {
			open = append(open, o)
		}
	}
	slices.SortFunc(open, func(a, b *op) int { return strings.Compare(a.path, b.path) })
	if fresh {
		t.begin = open
		return
	}
	e := Entry{Event: EventRecovered}
	var spent []*op
	for _, o := range open {
		undo, limit := o.status == undoIntended, o.n.act.Attempts
		if undo {
			limit = o.n.back.Attempts
		}
		switch {
		case undo && t.r.halted, !undo && (t.r.undo || t.r.parked > 0):
		case limit >= 0 && o.attempt-o.base >= limit:
			spent = append(spent, o)
		default:
			e.Next = append(e.Next, intent{o.path, undo, o.attempt + 1}.String())
			t.begin = append(t.begin, o)
		}
	}
	if len(e.Next) > 0 {
		t.add(e)
	}
	for _, o := range spent {
		t.failed(o, o.status == undoIntended, errOwnerLost, verdict{})
	}
}

// errOwnerLost is the failure of a last attempt whose owner was lost.
var errOwnerLost = errors.New("saga: the owner was lost during the last attempt")

// add puts an entry into the next checkpoint and into the run, which stay in step.
func (t *task) add(e Entry) {
	e.Seq, e.Epoch = t.r.seq+1, t.epoch
	e.At = t.e.now()
	turned := t.r.undo
	if err := t.r.apply(&e); err != nil {
		panic(err) // an entry of our own making
	}
	t.log = append(t.log, e)
	if e.Event == EventCancel {
		t.cancelBodies(ErrCancelled, func(*op) bool { return true })
	}
	if e.Event == EventDeadline {
		t.cancelBodies(ErrDeadline, func(*op) bool { return true })
	}
	if !turned && t.r.undo && e.Event == EventFailed {
		t.cancelBodies(ErrCancelled, func(o *op) bool { return o.n.cancelled() })
	}
}

func (t *task) cancelBodies(cause error, which func(*op) bool) {
	for _, o := range t.bodies {
		if !o.undoing() && which(o) {
			o.cancel(cause)
		}
	}
}

// unreadable parks an instance whose log or codec this definition cannot follow.
func (t *task) unreadable(err error, c *Claimed) {
	state := ParkedFwd
	if c.State == Compensating || c.State == ParkedUndo {
		state = ParkedUndo
	}
	var seq int64
	if n := len(c.Log); n > 0 {
		seq = c.Log[n-1].Seq
	}
	var note []byte
	if d := t.e.defs[c.Ref]; d != nil {
		note = d.note(err.Error())
	}
	res := t.send(Checkpoint{
		ID: c.ID, Epoch: c.Epoch, Seq: seq, Log: []Entry{{Seq: seq + 1, Event: EventParked, Note: note}},
		State: state, Pivot: c.Pivot, Seen: c.Mail, Release: true, Wake: Forever,
	})
	if res.Err == nil {
		t.stopped = err
		t.tell(state)
		t.atRest(&Error{ID: c.ID, State: state, Cause: err, Parked: err})
	}
}

// send hands a checkpoint to a writer and waits for its fate. When no writer is at work and nobody waits for one,
// the task writes it itself: alone, it needs no other goroutine to wake up.
func (t *task) send(cp Checkpoint) Committed {
	for wait := 10 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		res := t.write(cp)
		if res.Err == nil || errors.Is(res.Err, ErrFenced) || t.life.Err() != nil || !sleep(t.life, wait) {
			return res
		}
		t.observeStore(res.Err)
	}
}

func (t *task) write(cp Checkpoint) Committed {
	if t.out == nil {
		t.out = &write{done: make(chan Committed, 1)}
	}
	w := t.out // one at a time; after the end of this life, which may leave an answer in it, the task is over
	w.cp[0] = cp
	if t.e.writers.try() {
		results, ok := t.e.commit(t.life, w.cp[:])
		t.e.writers.leave()
		if !ok {
			return Committed{Err: context.Cause(t.life)}
		}
		return results[0]
	}
	t.e.writers.queue()
	select {
	case t.e.writes <- w:
	case <-t.life.Done():
		t.e.writers.unqueue(1)
		return Committed{Err: context.Cause(t.life)}
	}
	select {
	case res := <-w.done:
		return res
	case <-t.life.Done():
		return Committed{Err: context.Cause(t.life)}
	}
}

package saga

import (
	"context"
	"errors"
	"slices"
	"time"
)

// drive takes the instance from checkpoint to checkpoint until it ends, waits, parks or is lost. The
// order within a round is the whole of the crash safety: decide, commit the results together with
// the intents of what follows, and only then begin what follows.
func (t *task) drive() { t.goOn(t.round()) }

// goOn is drive after a round. It may return while the instance goes on in another goroutine: see runHere.
func (t *task) goOn(wait time.Duration, err error) {
	for err == nil && wait != left {
		if o := t.here; o != nil {
			ev, ours := t.runHere(o, wait)
			if !ours {
				return
			}
			t.end(ev)
		} else if o := t.nextTx(); o != nil {
			wait, err = t.runTx(o)
			continue
		} else {
			t.await(wait)
		}
		wait, err = t.nextRound()
	}
	t.drain()
	t.over(err)
}

// nextRound is the round after something has happened.
func (t *task) nextRound() (time.Duration, error) {
	if t.life.Err() != nil {
		return 0, context.Cause(t.life)
	}
	return t.round()
}

// left means that the instance is not ours any more: ended, released or lost.
const left time.Duration = -1

// round brings everything that has happened into one checkpoint, commits it and starts what its
// intents allow. It reports how long there is nothing to do: left, or 0 for no limit.
func (t *task) round() (time.Duration, error) {
	if t.mailed.Swap(false) {
		t.readMail()
	}
	p := t.plan()
	if len(t.log) > 0 || p.release {
		res := t.send(t.point(p))
		if res.Err != nil {
			return 0, res.Err
		}
		t.committed(res)
	}
	return t.follow(p), nil
}

// plan is what the next checkpoint is going to do.
type plan struct {
	state   State
	release bool
	wake    time.Duration
	due     time.Time // when something is to be done unless something happens before; zero: never
}

// plan takes mail and time into the log, and the intents of what may begin.
func (t *task) plan() plan {
	now, stopping := t.e.now(), !t.e.running.Load()
	due := t.settle()
	t.forget()
	end, opened, later := t.propose(now, stopping)
	for opened { // a wait that has just begun may find its signal here already
		before := t.r.seq
		due = t.settle()
		if t.r.seq == before {
			break
		}
		t.forget()
		end, opened, later = t.propose(now, stopping)
	}
	due = earlier(due, later)
	state := t.r.state(end)
	release := len(t.bodies) == 0 && len(t.begin) == 0 && !state.Terminal()
	wake := Forever
	if release && !state.Parked() {
		if due = earlier(due, t.deadline()); !due.IsZero() {
			wake = max(due.Sub(now), 0)
		}
		if wake >= 0 && wake <= t.e.cfg.Hold && !stopping {
			release = false // not worth a claim
		}
	}
	return plan{state, release, wake, earlier(due, t.deadline())}
}

// propose writes the intents of what may begin now. It reports whether the walk has come to its end, whether a wait
// has begun, and when what may not begin yet is due.
func (t *task) propose(now time.Time, stopping bool) (end, opened bool, due time.Time) {
	begin, end := t.r.next()
	next := t.next[:0]
	for _, o := range begin {
		again := o.status == backoff || o.status == undoBackoff
		if wait := o.due.Sub(now); again && wait > 0 && (wait > t.e.cfg.Hold || stopping) {
			due = earlier(due, o.due)
			continue
		}
		if stopping {
			due = earlier(due, now) // the next owner writes this intent
			continue
		}
		i := intent{o.path, t.r.undo, 1}
		if again {
			i.attempt = o.attempt + 1
		}
		next = append(next, i.String())
		if o.n.kind == kindWait || o.n.kind == kindDelay {
			opened = true
		} else {
			t.begin = append(t.begin, o)
		}
	}
	if stopping && len(t.begin) > 0 {
		t.begin, due = nil, now
	}
	if len(next) > 0 {
		t.intend(next)
	}
	t.next = next
	return end, opened, due
}

// follow does what comes after the checkpoint: it starts bodies, or lets the instance go.
func (t *task) follow(p plan) time.Duration {
	t.tell(p.state)
	if p.state.Terminal() || p.state.Parked() && p.release {
		t.atRest(t.result(p.state))
	}
	if !p.state.Terminal() && !p.release {
		return t.start(p.due)
	}
	return left
}

// forget drops what was about to begin and shall not any more, since the saga has turned round or parked.
func (t *task) forget() {
	kept := t.begin[:0]
	for _, o := range t.begin {
		if o.status == undoIntended && !t.r.halted || o.status == intended && !t.r.undo && t.r.parked == 0 {
			kept = append(kept, o)
		}
	}
	t.begin = kept
}

// intend adds intents to the last entry, or makes an entry for them.
func (t *task) intend(next []string) {
	if len(t.log) == 0 {
		t.add(Entry{Event: EventRecovered, Next: slices.Clone(next)})
		return
	}
	last := &t.log[len(t.log)-1]
	if err := t.r.intend(&Entry{Next: next, At: last.At}); err != nil {
		panic(err) // an intent of our own making
	}
	last.Next = append(last.Next, next...)
}

func (t *task) point(p plan) Checkpoint {
	return Checkpoint{
		ID: t.r.id, Epoch: t.epoch, Seq: t.r.seq - int64(len(t.log)), Log: t.log, State: p.state, Step: t.r.step(),
		Pivot: t.r.pivot, Consume: t.consume, Seen: t.mail, Release: p.release, Wake: p.wake,
	}
}

func (t *task) committed(res Committed) {
	t.log, t.consume = t.log[:0], nil
	if res.Mail != t.mail {
		t.mailed.Store(true)
		t.nudge()
	}
}

// settle turns mail and passed times into entries and reports when the next time is.
func (t *task) settle() (due time.Time) {
	for kept := t.inbox; len(kept) > 0; {
		m := kept[0]
		kept = kept[1:]
		if t.take(m) {
			t.consume = append(t.consume, m.MailKey)
			for i := range t.inbox {
				if t.inbox[i].MailKey == m.MailKey {
					t.inbox = append(t.inbox[:i:i], t.inbox[i+1:]...)
					break
				}
			}
			kept = t.inbox // one signal may have opened the way for another
		}
	}
	if t.r.pivot && t.r.noted != "" {
		t.add(Entry{Event: EventRefused, Verb: string(t.r.noted)})
	}
	if at := t.inst.Deadline; !at.IsZero() && !t.r.late && !t.e.now().Before(at) {
		t.request(EventDeadline, "", t.r.def.note(ErrDeadline.Error()), ErrDeadline)
	}
	for {
		e, over, next := t.r.timed(t.e.now())
		if !over {
			return next
		}
		if e.Event == EventFailed {
			t.turn(ErrWaitTimeout)
		}
		t.add(e)
	}
}

// take deals with one piece of mail and reports whether it is read.
func (t *task) take(m Mail) bool {
	if m.Kind == MailSignal {
		if t.r.undo || t.r.parked > 0 {
			return false
		}
		o := t.r.waiter(m.Name)
		if o == nil {
			return false
		}
		t.add(Entry{Event: EventDone, Step: o.path, Op: Action, Attempt: o.attempt, Data: m.Data, Actor: m.Actor})
		return true
	}
	return t.request(EventCancel, m.Actor, m.Data, ErrCancelled)
}

// request takes a cancel or a passed deadline into the log and reports whether it could.
func (t *task) request(what Event, actor string, note []byte, cause error) bool {
	e, ok := t.r.requested(what, actor, note)
	if ok {
		if e.Event == what {
			t.turn(cause)
		}
		t.add(e)
	}
	return ok
}

// turn remembers why the saga turns round, if it is about to.
func (t *task) turn(cause error) {
	if !t.r.undo && t.cause == nil {
		t.cause = cause
	}
}

// deadline is when the saga's deadline has to be looked at; zero when it has no more to say.
func (t *task) deadline() time.Time {
	if t.r.late || t.r.undo || t.r.parked > 0 {
		return time.Time{}
	}
	return t.inst.Deadline
}

func (t *task) readMail() {
	mb, ok := t.e.store.(Mailbox)
	if !ok {
		return
	}
	inbox, counter, err := mb.Mail(t.life, t.r.id)
	if err != nil {
		if !errors.Is(err, ErrNotFound) && t.life.Err() == nil {
			t.mailed.Store(true) // once more, soon
			time.AfterFunc(t.e.cfg.Poll, t.nudge)
		}
		return
	}
	t.inbox, t.mail = inbox, counter
}

// await waits for the end of a body, for mail, for a timer or for the end of this life.
func (t *task) await(wait time.Duration) {
	var timeout <-chan time.Time
	if wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		timeout = timer.C
	}
	select {
	case ev := <-t.events:
		t.end(ev)
	case <-t.wakes:
	case <-timeout:
	case <-t.life.Done():
		return
	}
	for { // whatever else has ended shares the checkpoint
		select {
		case ev := <-t.events:
			t.end(ev)
		default:
			return
		}
	}
}

// drain waits for the bodies that still run; what they report belongs to the next owner now.
func (t *task) drain() {
	for _, o := range t.bodies {
		o.cancel(ErrFenced)
	}
	for len(t.bodies) > 0 {
		t.ended(<-t.events)
	}
}

func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

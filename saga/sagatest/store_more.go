package sagatest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/backstay-go/backstay/saga"
)

func signal(id, name, mail string) saga.Mail {
	return saga.Mail{ID: id, MailKey: saga.MailKey{Kind: saga.MailSignal, Name: name, Mail: mail}, Data: []byte("x\x00"), Actor: "ann"}
}

func (b *bench) mailbox() saga.Mailbox {
	m, ok := b.Store.(saga.Mailbox)
	if !ok {
		b.Skip("the store is no saga.Mailbox")
	}
	return m
}

// waiting makes an instance, claims it and releases it without a wake-up.
func (b *bench) waiting(state saga.State) saga.Claimed {
	b.Helper()
	b.start(b.fresh("k"))
	c := b.one(b.node("n1", time.Minute))
	cp := next(c)
	cp.State, cp.Release, cp.Wake = state, true, saga.Forever
	b.commitOK(cp)
	return c
}

var mailCases = []storeCase{
	{"Mail/wakes", "mail to a waiting instance makes it due, comes with the claim, once per id", func(b *bench) {
		mb := b.mailbox()
		c := b.waiting(saga.Waiting)
		d, err := mb.Deliver(b.Context(), signal(c.ID, "go", "1"))
		b.want(err == nil && !d.Seen && d.State == saga.Waiting && !d.Pivot, "got %+v, %v", d, err)
		d, err = mb.Deliver(b.Context(), signal(c.ID, "go", "1"))
		b.want(err == nil && d.Seen, "got %+v, %v, want it seen", d, err)
		got := b.one("n1")
		b.want(len(got.Inbox) == 1 && got.Mail == c.Mail+1, "got inbox %+v, counter %d", got.Inbox, got.Mail)
		m := got.Inbox[0]
		b.want(m.Name == "go" && m.Mail == "1" && m.Kind == saga.MailSignal && string(m.Data) == "x\x00" && m.Actor == "ann" && m.ID == c.ID, "got %+v", m)
	}},
	{"Mail/consumed", "mail that a checkpoint consumed is not read again, and its id stays known", func(b *bench) {
		mb := b.mailbox()
		b.start(b.fresh("k"))
		c := b.one(b.node("n1", time.Minute))
		for _, id := range []string{"1", "2"} {
			_, err := mb.Deliver(b.Context(), signal(c.ID, "go", id))
			b.is(err, nil)
		}
		cp := next(c, doneEntry)
		cp.Consume = []saga.MailKey{{Kind: saga.MailSignal, Name: "go", Mail: "1"}}
		res := b.commitOK(cp)
		b.want(res.Mail == c.Mail+2, "got counter %d, want %d", res.Mail, c.Mail+2)
		inbox, n, err := mb.Mail(b.Context(), c.ID)
		b.want(err == nil && len(inbox) == 1 && inbox[0].Mail == "2" && n == res.Mail, "got %+v, %d, %v", inbox, n, err)
		d, err := mb.Deliver(b.Context(), signal(c.ID, "go", "1"))
		b.want(err == nil && d.Seen, "got %+v, %v", d, err)
	}},
	{"Mail/race", "released without knowing of mail, an instance is due at once: no wake-up is lost", func(b *bench) {
		mb := b.mailbox()
		b.start(b.fresh("k"))
		c := b.one(b.node("n1", time.Minute))
		_, err := mb.Deliver(b.Context(), signal(c.ID, "go", "1"))
		b.is(err, nil)
		cp := next(c, doneEntry)
		cp.State, cp.Release, cp.Wake = saga.Waiting, true, saga.Forever
		b.commitOK(cp)
		got := b.one("n1")
		cp = next(got)
		cp.State, cp.Release, cp.Wake = saga.Waiting, true, saga.Forever
		b.commitOK(cp)
		b.want(len(b.claim("n1", 10)) == 0, "mail that is known made it due again")
	}},
	{"Mail/parked", "mail does not wake a parked instance, and waits for it", func(b *bench) {
		mb := b.mailbox()
		c := b.waiting(saga.ParkedFwd)
		_, err := mb.Deliver(b.Context(), signal(c.ID, "go", "1"))
		b.is(err, nil)
		b.want(len(b.claim("n1", 10)) == 0, "woken")
		got, err := b.Claim(b.Context(), saga.Claim{ID: c.ID, Max: 1})
		b.want(err == nil && len(got) == 1 && len(got[0].Inbox) == 1, "got %+v, %v", got, err)
	}},
	{"Mail/owner", "the owner hears of mail with its next beat", func(b *bench) {
		mb := b.mailbox()
		b.start(b.fresh("k"))
		c := b.one(b.node("n1", time.Minute))
		_, err := mb.Deliver(b.Context(), signal(c.ID, "go", "1"))
		b.is(err, nil)
		p, err := b.Beat(b.Context(), saga.Beat{Node: "n1", TTL: time.Minute})
		b.want(err == nil && len(p.Mail) > 0 && p.Mail[0] == c.ID, "got %+v, %v", p, err)
	}},
	{"Mail/errors", "mail to an ended instance gets ErrTerminal, to none ErrNotFound", func(b *bench) {
		mb := b.mailbox()
		b.start(b.fresh("k"))
		c := b.one(b.node("n1", time.Minute))
		cp := next(c)
		cp.State = saga.Completed
		b.commitOK(cp)
		_, err := mb.Deliver(b.Context(), signal(c.ID, "go", "1"))
		b.is(err, saga.ErrTerminal)
		_, err = mb.Deliver(b.Context(), signal("00000000-0000-7000-8000-00000000ffff", "go", "1"))
		b.is(err, saga.ErrNotFound)
	}},
}

var readCases = []storeCase{
	{"Read/pages", "lists go by id in pages, filtered; Find and Get agree", func(b *bench) {
		r := b.reader()
		var ids []string
		for i := range 7 {
			n := b.fresh(fmt.Sprint("k", i))
			if i == 3 {
				n.Tenant = "t"
				n.Ref = saga.Ref{Def: "other", Ver: 4}
			}
			b.start(n)
			ids = append(ids, n.ID)
		}
		var seen []string
		for after := ""; ; {
			page, err := r.List(b.Context(), saga.Filter{After: after, Limit: 3})
			b.is(err, nil)
			for _, in := range page {
				seen = append(seen, in.ID)
			}
			if len(page) < 3 {
				break
			}
			after = page[2].ID
		}
		b.want(fmt.Sprint(seen) == fmt.Sprint(ids), "got %v, want %v", seen, ids)
		count := func(f saga.Filter) int {
			page, err := r.List(b.Context(), f)
			b.is(err, nil)
			return len(page)
		}
		b.want(count(saga.Filter{Tenant: "t"}) == 1, "by tenant")
		b.want(count(saga.Filter{Ref: saga.Ref{Def: "order"}}) == 6 && count(saga.Filter{Ref: saga.Ref{Def: "other", Ver: 3}}) == 0, "by definition")
		b.want(count(saga.Filter{States: []saga.State{saga.Ready}}) == 7 && count(saga.Filter{States: []saga.State{saga.Completed, saga.Waiting}}) == 0, "by state")
		b.want(count(saga.Filter{Older: time.Hour}) == 0, "by age")
		b.want(count(saga.Filter{Step: "x"}) == 0, "by step")
		b.want(count(saga.Filter{Except: []saga.Ref{testRef}}) == 1 && count(saga.Filter{Except: []saga.Ref{}}) == 7, "by what cannot be claimed")
		in, err := r.Find(b.Context(), "t", "other", "k3")
		b.want(err == nil && in.ID == ids[3], "got %+v, %v", in, err)
		_, err = r.Find(b.Context(), "", "other", "k3")
		b.is(err, saga.ErrNotFound)
		_, err = r.Get(b.Context(), "00000000-0000-7000-8000-00000000ffff")
		b.is(err, saga.ErrNotFound)
	}},
	{"Read/history", "the log goes in pages by number", func(b *bench) {
		b.start(b.fresh("k"))
		c := b.one(b.node("n1", time.Minute))
		b.commitOK(next(c, doneEntry, doneEntry, doneEntry))
		page, err := b.reader().History(b.Context(), c.ID, 1, 2)
		b.want(err == nil && len(page) == 2 && page[0].Seq == 2 && page[1].Seq == 3, "got %+v, %v", page, err)
	}},
	{"Keep/shape", "a version has one shape", func(b *bench) {
		k := b.keeper()
		b.is(k.Register(b.Context(), testRef, "h", []byte("{}")), nil)
		b.is(k.Register(b.Context(), testRef, "h", []byte("{}")), nil)
		b.is(k.Register(b.Context(), testRef, "other", []byte("{}")), saga.ErrShape)
		b.is(k.Register(b.Context(), saga.Ref{Def: "order", Ver: 2}, "other", []byte("{}")), nil)
	}},
	{"Keep/delete", "retention and Erase delete ended instances whole, never live ones, and free the key", func(b *bench) {
		k := b.keeper()
		node := b.node("n1", time.Minute)
		finish := func(key string) saga.NewInstance {
			n := b.fresh(key)
			n.Node = node
			b.start(n)
			cp := next(saga.Claimed{Instance: saga.Instance{ID: n.ID}, Epoch: 1, Log: n.Log}, doneEntry)
			cp.State = saga.Completed
			b.commitOK(cp)
			return n
		}
		gone := finish("k1")
		b.start(b.fresh("live"))
		n, err := k.Retain(b.Context(), time.Hour, 100)
		b.want(err == nil && n == 0, "got %d, %v: deleted what is younger", n, err)
		b.eventually("it is old enough", func() bool {
			n, err := k.Retain(b.Context(), time.Millisecond, 100)
			b.is(err, nil)
			return n == 1
		})
		_, err = b.reader().Get(b.Context(), gone.ID)
		b.is(err, saga.ErrNotFound)
		again := b.fresh("k1")
		b.want(!b.start(again).Existing, "the key is still taken")
		b.is(k.Erase(b.Context(), "", "order", "live"), saga.ErrBusy)
		b.is(k.Erase(b.Context(), "", "order", "nobody"), saga.ErrNotFound)
		finish("k2")
		b.is(k.Erase(b.Context(), "", "order", "k2"), nil)
		_, err = b.reader().Find(b.Context(), "", "order", "k2")
		b.is(err, saga.ErrNotFound)
	}},
}

func (b *bench) keeper() saga.Keeper {
	k, ok := b.Store.(saga.Keeper)
	if !ok {
		b.Skip("the store is no saga.Keeper")
	}
	return k
}

var txCases = []storeCase{
	{"Tx/commit", "the body's checkpoint is written in its transaction; a body's error is returned as it is and leaves nothing; a fenced one is not called", func(b *bench) {
		tx, ok := b.Store.(saga.Transactor)
		if !ok {
			b.Skip("the store is no saga.Transactor")
		}
		b.want(tx.TxKind() != "", "TxKind is empty")
		b.start(b.fresh("k"))
		c := b.one(b.node("n1", time.Minute))
		at := saga.Fence{ID: c.ID, Epoch: c.Epoch, Seq: 1}
		boom := errors.New("boom")
		_, err := tx.InTx(b.Context(), at, func(saga.Tx) (saga.Checkpoint, error) { return saga.Checkpoint{}, boom })
		b.is(err, boom)
		b.want(len(b.history(c.ID)) == 1, "a failed body left something")
		res, err := tx.InTx(b.Context(), at, func(h saga.Tx) (saga.Checkpoint, error) {
			b.want(h.Handle != nil, "no handle")
			return next(c, doneEntry), nil
		})
		b.want(err == nil && res.Err == nil, "got %+v, %v", res, err)
		b.want(len(b.history(c.ID)) == 2, "not written")
		called := false
		body := func(saga.Tx) (saga.Checkpoint, error) { called = true; return next(c, doneEntry), nil }
		_, err = tx.InTx(b.Context(), at, body)
		b.is(err, saga.ErrFenced)
		at.Epoch++
		_, err = tx.InTx(b.Context(), at, body)
		b.is(err, saga.ErrFenced)
		b.want(!called, "a fenced body was called")
	}},
	{"Tx/lock", "a lock taken in a transaction that fails is not held", func(b *bench) {
		tx, ok := b.Store.(saga.Transactor)
		l, ok2 := b.Store.(saga.Locker)
		if !ok || !ok2 {
			b.Skip("the store has no transactions or no locks")
		}
		b.start(b.fresh("k1"))
		b.start(b.fresh("k2"))
		got := b.claim(b.node("n1", time.Minute), 10)
		at := func(i int) saga.Fence { return saga.Fence{ID: got[i].ID, Epoch: got[i].Epoch, Seq: 1} }
		boom := errors.New("boom")
		_, err := tx.InTx(b.Context(), at(0), func(h saga.Tx) (saga.Checkpoint, error) {
			b.is(h.Lock(b.Context(), "r"), nil)
			return saga.Checkpoint{}, boom
		})
		b.is(err, boom)
		b.is(l.Lock(b.Context(), at(1), "r"), nil)
		_, err = tx.InTx(b.Context(), at(0), func(h saga.Tx) (saga.Checkpoint, error) {
			return saga.Checkpoint{}, h.Lock(b.Context(), "r")
		})
		b.is(err, saga.ErrLocked)
	}},
	{"Lock/holder", "a lock has one holder, until that instance ends; a parked one keeps it", func(b *bench) {
		l, ok := b.Store.(saga.Locker)
		if !ok {
			b.Skip("the store is no saga.Locker")
		}
		b.start(b.fresh("k1"))
		b.start(b.fresh("k2"))
		got := b.claim(b.node("n1", time.Minute), 10)
		at := func(i int) saga.Fence { return saga.Fence{ID: got[i].ID, Epoch: got[i].Epoch, Seq: 1} }
		b.is(l.Lock(b.Context(), at(0), "r"), nil)
		b.is(l.Lock(b.Context(), at(0), "r"), nil)
		b.is(l.Lock(b.Context(), at(1), "r"), saga.ErrLocked)
		stale := at(1)
		stale.Epoch--
		b.is(l.Lock(b.Context(), stale, "free"), saga.ErrFenced)
		cp := next(got[0], doneEntry)
		cp.State, cp.Release, cp.Wake = saga.ParkedUndo, true, saga.Forever
		b.commitOK(cp)
		b.is(l.Lock(b.Context(), at(1), "r"), saga.ErrLocked)
		taken, err := b.Claim(b.Context(), saga.Claim{ID: got[0].ID, Max: 1})
		b.is(err, nil)
		cp = next(taken[0], doneEntry)
		cp.State = saga.Resolved
		b.commitOK(cp)
		b.is(l.Lock(b.Context(), at(1), "r"), nil)
	}},
	{"Listen/wakes", "a listener hears of a start", func(b *bench) {
		l, ok := b.Store.(saga.Listener)
		if !ok {
			b.Skip("the store is no saga.Listener")
		}
		ctx, stop := context.WithCancel(b.Context())
		heard := make(chan struct{}, 1)
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = l.Listen(ctx, func() {
				select {
				case heard <- struct{}{}:
				default:
				}
			})
		}()
		b.eventually("the listener hears", func() bool {
			b.start(b.fresh(fmt.Sprint("k", b.n)))
			select {
			case <-heard:
				return true
			default:
				return false
			}
		})
		stop()
		<-done
	}}, {"Listen/hints", "hints tell of starts, of mail and of a node's end", func(b *bench) {
		h, ok := b.Store.(saga.Hinter)
		if !ok {
			b.Skip("the store is no saga.Hinter")
		}
		ctx, stop := context.WithCancel(b.Context())
		heard := make(chan saga.Hint, 100)
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = h.Hints(ctx, func(h saga.Hint) {
				select {
				case heard <- h:
				default:
				}
			})
		}()
		want := func(what string, want saga.Hint) {
			b.Helper()
			b.eventually(what, func() bool {
				select {
				case got := <-heard:
					return got == want
				default:
					return false
				}
			})
		}
		want("hearing begins", saga.Hint{})
		id := b.start(b.fresh("k")).ID
		want("a start", saga.Hint{})
		if mb, ok := b.Store.(saga.Mailbox); ok {
			_, err := mb.Deliver(b.Context(), saga.Mail{ID: id, MailKey: saga.MailKey{Kind: saga.MailSignal, Name: "s", Mail: "1"}})
			b.is(err, nil)
			want("mail", saga.Hint{Mail: id})
		}
		node := b.node("n1", time.Minute)
		_, err := b.Beat(b.Context(), saga.Beat{Node: node})
		b.is(err, nil)
		want("a node's end", saga.Hint{})
		stop()
		<-done
	}},
}

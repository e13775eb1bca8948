package sagatest

import (
	"fmt"
	"sync"
	"time"

	"github.com/backstay-go/backstay/saga"
)

var claimCases = []storeCase{
	{"Claim/disjoint", "concurrent claims never hand out one instance twice, and miss none", func(b *bench) {
		const total = 200
		batch := make([]saga.NewInstance, total)
		for i := range batch {
			batch[i] = b.fresh(fmt.Sprint("k", i))
		}
		_, err := b.Start(b.Context(), batch)
		b.is(err, nil)
		var mu sync.Mutex
		seen := map[string]int{}
		var wg sync.WaitGroup
		for i := range 4 {
			node := b.node(fmt.Sprint("n", i), time.Minute)
			wg.Go(func() {
				for {
					got, err := b.Claim(b.Context(), saga.Claim{Node: node, Refs: []saga.Ref{testRef}, Max: 7})
					if err != nil {
						b.Errorf("Claim: %v", err)
						return
					}
					mu.Lock()
					for _, c := range got {
						seen[c.ID]++
					}
					all := len(seen) == total
					mu.Unlock()
					if len(got) == 0 && all || b.Context().Err() != nil {
						return
					}
				}
			})
		}
		wg.Wait()
		for id, n := range seen {
			b.want(n == 1, "%s was claimed %d times", id, n)
		}
	}},
	{"Claim/refs", "only wanted versions are handed out", func(b *bench) {
		n := b.fresh("k")
		n.Ref.Ver = 2
		b.start(n)
		node := b.node("n1", time.Minute)
		b.want(len(b.claim(node, 10)) == 0, "got version 2, want none of it")
		got, err := b.Claim(b.Context(), saga.Claim{Node: node, Refs: []saga.Ref{testRef, n.Ref}, Max: 10})
		b.want(err == nil && len(got) == 1, "got %v, %v", got, err)
	}},
	{"Claim/max and priority", "at most Max; of the due ones within four times Max those of higher priority first", func(b *bench) {
		for i := range 4 {
			n := b.fresh(fmt.Sprint("k", i))
			n.Priority = i
			b.start(n)
		}
		got := b.claim(b.node("n1", time.Minute), 2)
		b.want(len(got) == 2, "got %d, want 2", len(got))
		b.want(got[0].Priority+got[1].Priority == 5, "got priorities %d and %d, want 3 and 2", got[0].Priority, got[1].Priority)
	}},
	{"Claim/owned", "an owned instance is not handed out", func(b *bench) {
		b.start(b.fresh("k"))
		b.one(b.node("n1", time.Minute))
		b.want(len(b.claim("n1", 10)) == 0 && len(b.claim(b.node("n2", time.Minute), 10)) == 0, "claimed twice")
	}},
	{"Claim/id", "by ID: busy for others, again for its owner with a new epoch, without a node it stays unowned", func(b *bench) {
		n := b.fresh("k")
		b.start(n)
		take := func(node string) (saga.Claimed, error) {
			got, err := b.Claim(b.Context(), saga.Claim{Node: node, ID: n.ID, Max: 1})
			if err != nil {
				return saga.Claimed{}, err
			}
			b.want(len(got) == 1, "got %d", len(got))
			return got[0], nil
		}
		c, err := take("")
		b.is(err, nil)
		b.want(c.Epoch == 1 && c.State == saga.Ready && len(c.Log) == 1, "got %+v", c)
		c, err = take(b.node("n1", time.Minute))
		b.is(err, nil)
		again, err := take("n1")
		b.is(err, nil)
		b.want(again.Epoch == c.Epoch+1, "got epoch %d, want %d", again.Epoch, c.Epoch+1)
		b.is(b.commit(next(c, doneEntry))[0].Err, saga.ErrFenced)
		_, err = take(b.node("n2", time.Minute))
		b.is(err, saga.ErrBusy)
		_, err = take("")
		b.is(err, saga.ErrBusy)
		cp := next(again)
		cp.State = saga.Completed
		b.commitOK(cp)
		_, err = take("n1")
		b.is(err, saga.ErrTerminal)
		_, err = b.Claim(b.Context(), saga.Claim{ID: "00000000-0000-7000-8000-00000000ffff", Max: 1})
		b.is(err, saga.ErrNotFound)
	}},
}

var commitCases = []storeCase{
	{"Commit/writes", "a checkpoint writes log, state, step and pivot", func(b *bench) {
		b.start(b.fresh("k"))
		c := b.one(b.node("n1", time.Minute))
		cp := next(c, doneEntry)
		cp.Step, cp.Pivot = "b", true
		b.commitOK(cp)
		log := b.history(c.ID)
		b.want(len(log) == 2 && string(log[1].Data) == "1" && len(log[1].Next) == 2 && log[1].Next[1] == "+c[2]/d#1" && log[1].Step == "a", "got %+v", log)
		in, err := b.reader().Get(b.Context(), c.ID)
		b.want(err == nil && in.State == saga.Running && in.Step == "b" && in.Pivot && in.Owner == "n1", "got %+v, %v", in, err)
	}},
	{"Commit/fence", "a stale epoch or position writes nothing; the others of the batch are written", func(b *bench) {
		b.start(b.fresh("k1"))
		b.start(b.fresh("k2"))
		node := b.node("n1", time.Minute)
		got := b.claim(node, 10)
		b.want(len(got) == 2, "got %d", len(got))
		stale := next(got[0], doneEntry)
		stale.Epoch--
		ahead := next(got[0], doneEntry)
		ahead.Seq++
		ahead.Log[0].Seq++
		unknown := next(got[0], doneEntry)
		unknown.ID = "00000000-0000-7000-8000-00000000ffff"
		res := b.commit(stale, next(got[1], doneEntry), ahead, unknown)
		b.is(res[0].Err, saga.ErrFenced)
		b.is(res[1].Err, nil)
		b.is(res[2].Err, saga.ErrFenced)
		b.is(res[3].Err, saga.ErrFenced)
		b.want(len(b.history(got[0].ID)) == 1 && len(b.history(got[1].ID)) == 2, "a fenced checkpoint left something")
		b.commitOK(next(got[0], doneEntry))
	}},
	{"Commit/again", "a checkpoint already written under its epoch is reported as written, not written twice, and not once the epoch is another's", func(b *bench) {
		b.start(b.fresh("k"))
		c := b.one(b.node("n1", time.Minute))
		cp := next(c, doneEntry)
		b.commitOK(cp)
		b.commitOK(cp)
		b.want(len(b.history(c.ID)) == 2, "written twice")
		end := cp
		end.Seq, end.Log, end.State = 2, []saga.Entry{{Seq: 3, Event: saga.EventDone, Step: "b", Op: saga.Action}}, saga.Completed
		b.commitOK(end)
		b.commitOK(end)
		b.want(len(b.history(c.ID)) == 3, "written twice")
		other := end
		other.Epoch++
		b.is(b.commit(other)[0].Err, saga.ErrFenced)
	}},
	{"Commit/large batch", "256 checkpoints at once", func(b *bench) {
		batch := make([]saga.NewInstance, 256)
		for i := range batch {
			batch[i] = b.fresh(fmt.Sprint("k", i))
			batch[i].Node = b.node("n1", time.Minute)
		}
		made, err := b.Start(b.Context(), batch)
		b.is(err, nil)
		cps := make([]saga.Checkpoint, len(batch))
		for i := range made {
			cps[i] = next(saga.Claimed{Instance: saga.Instance{ID: made[i].ID}, Epoch: 1, Log: batch[i].Log}, doneEntry)
			if i%2 == 0 {
				cps[i].State = saga.Completed
			}
			if i == 77 {
				cps[i].Epoch = 9
			}
		}
		for i, r := range b.commit(cps...) {
			b.want((r.Err != nil) == (i == 77), "record %d: got %v", i, r.Err)
		}
	}},
	{"Commit/release", "released with a wake-up the instance is due then, not before; with 0 at once; with Forever never", func(b *bench) {
		n := b.fresh("k")
		b.start(n)
		c := b.one(b.node("n1", time.Minute))
		cp := next(c, doneEntry)
		cp.Release, cp.State = true, saga.Waiting
		b.commitOK(cp)
		c = b.one("n1")
		b.want(c.Epoch == 2 && len(c.Log) == 2 && (c.State == saga.Waiting || c.State == saga.Running), "got %+v", c)
		cp = next(c)
		cp.Release, cp.Wake, cp.State = true, 300*time.Millisecond, saga.Waiting
		at := time.Now()
		b.commitOK(cp)
		b.eventually("the instance is due", func() bool { return len(b.claim("n1", 10)) == 1 })
		b.want(time.Since(at) >= 290*time.Millisecond, "due after %v, want 300ms", time.Since(at))
		got, err := b.Claim(b.Context(), saga.Claim{Node: "n1", ID: n.ID, Max: 1})
		b.is(err, nil)
		cp = next(got[0])
		cp.Release, cp.Wake, cp.State = true, saga.Forever, saga.ParkedFwd
		b.commitOK(cp)
		b.want(len(b.claim("n1", 10)) == 0, "claimed a parked instance")
	}},
	{"Commit/terminal", "a terminal checkpoint ends the run: nothing to claim, nothing to write, an end time", func(b *bench) {
		b.start(b.fresh("k"))
		c := b.one(b.node("n1", time.Minute))
		cp := next(c, doneEntry)
		cp.State = saga.Compensated
		b.commitOK(cp)
		in, err := b.reader().Get(b.Context(), c.ID)
		b.want(err == nil && in.State == saga.Compensated && !in.Ended.IsZero() && in.Owner == "", "got %+v, %v", in, err)
		c.Log = append(c.Log, cp.Log...)
		b.is(b.commit(next(c, doneEntry))[0].Err, saga.ErrFenced)
		_, err = b.Beat(b.Context(), saga.Beat{Node: "n1"})
		b.is(err, nil)
		b.want(len(b.claim(b.node("n2", time.Minute), 10)) == 0, "claimed an ended instance")
	}},
}

var leaseCases = []storeCase{
	{"Lease/takeover", "when a lease runs out, others claim what the node held, with a higher epoch, and the old owner writes nothing; not before", func(b *bench) {
		b.start(b.fresh("k"))
		at := time.Now()
		c := b.one(b.node("n1", 400*time.Millisecond))
		other := b.node("n2", time.Minute)
		var got []saga.Claimed
		b.eventually("the lease runs out", func() bool { got = b.claim(other, 10); return len(got) == 1 })
		b.want(time.Since(at) >= 390*time.Millisecond, "taken over after %v, before the lease of 400ms was over", time.Since(at))
		b.want(got[0].Epoch == c.Epoch+1, "got epoch %d, want %d", got[0].Epoch, c.Epoch+1)
		b.is(b.commit(next(c, doneEntry))[0].Err, saga.ErrFenced)
		b.commitOK(next(got[0], doneEntry))
		p, err := b.Beat(b.Context(), saga.Beat{Node: "n1", TTL: time.Minute})
		b.want(err == nil && p.Lost, "got %+v, %v: a dead node stays dead", p, err)
	}},
	{"Lease/renewal", "a renewed lease is kept", func(b *bench) {
		b.start(b.fresh("k"))
		c := b.one(b.node("n1", 300*time.Millisecond))
		b.node("n1", time.Minute)
		other := b.node("n2", time.Minute)
		begun := time.Now()
		b.eventually("400ms have passed", func() bool {
			b.want(len(b.claim(other, 10)) == 0, "claimed from a live node")
			return time.Since(begun) > 400*time.Millisecond
		})
		b.commitOK(next(c, doneEntry))
	}},
	{"Lease/end", "a lease that its node ends frees its instances at once", func(b *bench) {
		b.start(b.fresh("k"))
		c := b.one(b.node("n1", time.Minute))
		_, err := b.Beat(b.Context(), saga.Beat{Node: "n1"})
		b.is(err, nil)
		got := b.one(b.node("n2", time.Minute))
		b.want(got.Epoch == c.Epoch+1, "got epoch %d", got.Epoch)
	}},
	{"Lease/needed", "a node without a lease claims nothing by due time", func(b *bench) {
		b.start(b.fresh("k"))
		b.want(len(b.claim("stranger", 10)) == 0, "claimed without a lease")
	}},
}

package sagatest

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/backstay-go/backstay/saga"
)

// TestStore checks a store against the duties of saga.Store and of its further abilities, each as
// far as the store has it. open returns an empty store for each case and cleans up after it through
// t. Each case says which rule it checks. It runs in real time, with leases of a fraction of a second.
func TestStore(t *testing.T, open func(t *testing.T) saga.Store) {
	cases := slices.Concat(startCases, claimCases, commitCases, mailCases, leaseCases, readCases, txCases)
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			c.run(&bench{T: t, Store: open(t), why: c.why})
		})
	}
}

// storeCase is a rule and its check.
type storeCase struct {
	name, why string
	run       func(*bench)
}

var startCases = []storeCase{
	{"Start/new", "an instance is made Ready, unowned, due now, with epoch 0", func(b *bench) {
		n := b.fresh("k")
		n.Tenant, n.Priority = "t", 3
		got := b.start(n)
		b.want(got.ID == n.ID && !got.Existing && !got.Owned && !got.Now.IsZero(), "got %+v", got)
		c := b.one(b.node("n1", time.Minute))
		b.want(c.ID == n.ID && c.Epoch == 1 && c.State == saga.Ready && c.Tenant == "t" && c.Key == "k" && c.Priority == 3 && c.Ref == testRef, "got %+v", c)
		b.want(bytes.Equal(c.Input, n.Input) && c.Codec == "json" && len(c.Log) == 1 && slices.Equal(c.Log[0].Next, []string{"+a#1"}), "got %+v", c)
		b.want(!c.Log[0].At.IsZero() && !c.Created.IsZero() && !c.Now.IsZero(), "got no times: %+v", c)
	}},
	{"Start/existing", "the same (tenant, definition, key) makes one instance; versions share it, tenants do not", func(b *bench) {
		first := b.start(b.fresh("k"))
		again := b.fresh("k")
		again.Hash, again.Ref.Ver = "h2", 2
		got := b.start(again)
		b.want(got.Existing && got.ID == first.ID && got.Hash == "h1" && !got.Owned, "got %+v, want the first instance", got)
		other := b.fresh("k")
		other.Tenant = "t2"
		b.want(!b.start(other).Existing, "another tenant's key counted as existing")
	}},
	{"Start/batch", "answers keep the order; an existing key does not stop the others, nor does one twice in the batch", func(b *bench) {
		b.start(b.fresh("k1"))
		batch := []saga.NewInstance{b.fresh("k0"), b.fresh("k1"), b.fresh("k2"), b.fresh("k2")}
		got, err := b.Start(b.Context(), batch)
		b.is(err, nil)
		b.want(len(got) == 4 && !got[0].Existing && got[1].Existing && !got[2].Existing && got[3].Existing && got[3].ID == batch[2].ID, "got %+v", got)
	}},
	{"Start/concurrent", "concurrent starts of one key make one instance and every caller sees it", func(b *bench) {
		var wg sync.WaitGroup
		ids, errs := make([]string, 8), make([]error, 8)
		for i := range ids {
			n := b.fresh("k")
			wg.Go(func() {
				got, err := b.Start(b.Context(), []saga.NewInstance{n})
				if errs[i] = err; err == nil {
					ids[i] = got[0].ID
				}
			})
		}
		wg.Wait()
		b.is(errors.Join(errs...), nil)
		slices.Sort(ids)
		ids = slices.Compact(ids)
		b.want(len(ids) == 1, "got instances %v, want one", ids)
	}},
	{"Start/owned", "under a live node an instance is owned from the start with epoch 1, and not claimable", func(b *bench) {
		n := b.fresh("k")
		n.Node = b.node("n1", time.Minute)
		b.want(b.start(n).Owned, "not owned")
		b.want(len(b.claim(b.node("n2", time.Minute), 10)) == 0, "claimed by another")
		b.commitOK(next(saga.Claimed{Instance: saga.Instance{ID: n.ID}, Epoch: 1, Log: n.Log}, doneEntry))
	}},
	{"Start/dead node", "under a node without a lease an instance is unowned, and claimable", func(b *bench) {
		n := b.fresh("k")
		n.Node = "unknown"
		b.want(!b.start(n).Owned, "owned by an unknown node")
		b.one(b.node("n1", time.Minute))
		ended := b.node("n2", time.Minute)
		_, err := b.Beat(b.Context(), saga.Beat{Node: ended})
		b.is(err, nil)
		n = b.fresh("k2")
		n.Node = ended
		b.want(!b.start(n).Owned, "owned by a node that has ended")
		b.one("n1")
	}},
	{"Start/any bytes", "payloads may hold any byte, names 255 bytes of UTF-8; empty and nil payloads read as empty", func(b *bench) {
		n := b.fresh(strings.Repeat("é", 127))
		n.Tenant = strings.Repeat("t", 255)
		n.Input = []byte{0, 255, 254, 0, '\'', '\\', '"'}
		b.start(n)
		c := b.one(b.node("n1", time.Minute))
		b.want(bytes.Equal(c.Input, n.Input) && c.Key == n.Key && c.Tenant == n.Tenant, "got %q %q %q", c.Input, c.Key, c.Tenant)
		e := saga.Entry{Event: saga.EventRetry, Step: "a", Op: saga.Action, Attempt: 2, Note: []byte("\x00\xff"), Actor: "ann", Verb: "no-effect", Delay: 1500 * time.Microsecond}
		empty := saga.Entry{Event: saga.EventDone, Step: "a", Op: saga.Action, Data: []byte{}}
		b.commitOK(next(c, e, empty))
		log := b.history(n.ID)
		got := log[1]
		b.want(bytes.Equal(got.Note, e.Note) && got.Actor == "ann" && got.Verb == e.Verb && got.Delay == e.Delay && got.Attempt == 2 && got.Epoch == 1 && got.Op == saga.Action,
			"got %+v, want %+v", got, e)
		b.want(len(log[2].Data) == 0 && log[2].Seq == 3, "got %+v", log[2])
	}},
	{"Start/deadline", "a deadline is the store's clock plus the duration", func(b *bench) {
		n := b.fresh("k")
		n.Deadline = time.Hour
		got := b.start(n)
		c := b.one(b.node("n1", time.Minute))
		off := c.Deadline.Sub(got.Now) - time.Hour
		b.want(off.Abs() < 5*time.Second, "deadline is off by %v", off)
	}},
}

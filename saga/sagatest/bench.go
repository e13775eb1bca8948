package sagatest

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/backstay-go/backstay/saga"
)

// bench is a store under test.
type bench struct {
	*testing.T
	saga.Store
	why string
	n   int
}

// want fails the case, with its rule, unless ok.
func (b *bench) want(ok bool, format string, args ...any) {
	b.Helper()
	if !ok {
		b.Fatalf("%s\nrule: %s", fmt.Sprintf(format, args...), b.why)
	}
}

func (b *bench) is(got, want error) {
	b.Helper()
	b.want(errors.Is(got, want) && (want != nil || got == nil), "got error %v, want %v", got, want)
}

// eventually polls until ok, for up to ten seconds.
func (b *bench) eventually(what string, ok func() bool) {
	b.Helper()
	poll(b.T, what+"\nrule: "+b.why, ok)
}

func poll(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(10 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline.C:
			t.Fatalf("not within 10s: %s", what)
		case <-tick.C:
		}
	}
}

var testRef = saga.Ref{Def: "order", Ver: 1}

// fresh makes a NewInstance with a first intent for step a.
func (b *bench) fresh(key string) saga.NewInstance {
	b.n++
	now := time.Now().UnixMilli()
	return saga.NewInstance{
		ID:  fmt.Sprintf("%08x-%04x-7000-8000-%012x", now>>16, now&0xffff, b.n),
		Ref: testRef, Key: key, Hash: "h1", Codec: "json", Input: []byte(`{"a":1}`),
		Log: []saga.Entry{{Seq: 1, Event: saga.EventStart, Next: []string{"+a#1"}}},
	}
}

func (b *bench) start(n saga.NewInstance) saga.Started {
	b.Helper()
	got, err := b.Start(b.Context(), []saga.NewInstance{n})
	if err != nil || len(got) != 1 {
		b.Fatalf("Start: got %v, %v, want one answer", got, err)
	}
	return got[0]
}

// node joins with a lease of ttl, or renews it.
func (b *bench) node(name string, ttl time.Duration) string {
	b.Helper()
	p, err := b.Beat(b.Context(), saga.Beat{Node: name, TTL: ttl})
	if err != nil || p.Lost {
		b.Fatalf("Beat(%s): got %+v, %v", name, p, err)
	}
	return name
}

func (b *bench) claim(node string, max int) []saga.Claimed {
	b.Helper()
	got, err := b.Claim(b.Context(), saga.Claim{Node: node, Refs: []saga.Ref{testRef}, Max: max})
	if err != nil {
		b.Fatalf("Claim: %v", err)
	}
	return got
}

// one claims and expects one instance.
func (b *bench) one(node string) saga.Claimed {
	b.Helper()
	got := b.claim(node, 10)
	b.want(len(got) == 1, "got %d instances, want 1", len(got))
	return got[0]
}

// next is the checkpoint that follows c.
func next(c saga.Claimed, log ...saga.Entry) saga.Checkpoint {
	cp := saga.Checkpoint{ID: c.ID, Epoch: c.Epoch, State: saga.Running, Seen: c.Mail}
	if n := len(c.Log); n > 0 {
		cp.Seq = c.Log[n-1].Seq
	}
	for i, e := range log {
		e.Seq = cp.Seq + int64(i) + 1
		cp.Log = append(cp.Log, e)
	}
	return cp
}

var doneEntry = saga.Entry{Event: saga.EventDone, Step: "a", Op: saga.Action, Attempt: 1, Data: []byte("1"), Next: []string{"+b#1", "+c[2]/d#1"}}

func (b *bench) commit(cps ...saga.Checkpoint) []saga.Committed {
	b.Helper()
	got, err := b.Commit(b.Context(), cps)
	if err != nil || len(got) != len(cps) {
		b.Fatalf("Commit: got %v, %v, want %d answers", got, err, len(cps))
	}
	return got
}

func (b *bench) commitOK(cp saga.Checkpoint) saga.Committed {
	b.Helper()
	got := b.commit(cp)[0]
	b.is(got.Err, nil)
	return got
}

func (b *bench) history(id string) []saga.Entry {
	b.Helper()
	log, err := b.reader().History(b.Context(), id, 0, 1000)
	if err != nil {
		b.Fatalf("History: %v", err)
	}
	return log
}

func (b *bench) reader() saga.Reader {
	r, ok := b.Store.(saga.Reader)
	if !ok {
		b.Skip("the store is no saga.Reader")
	}
	return r
}

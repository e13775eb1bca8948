package outboxtest

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/backstay-go/backstay/outbox"
)

func testRead(t *testing.T, s Store) {
	for i := range 10 {
		s.enqueue(t, outbox.Message{ID: fmt.Sprint("a", i), Topic: "t", Key: "a"})
	}
	part := outbox.PartitionOf("a", s.Parts)
	all := s.all(t)
	got, err := s.Source.Read(t.Context(), []outbox.Span{{Part: part, From: all[3].Message.Seq}}, 4, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"a3", "a4", "a5", "a6"} {
		if len(got) != 4 || got[i].Message.ID != want {
			t.Fatalf("from the fourth, 4 rows: got %d rows, row %d is not %s", len(got), i, want)
		}
	}
	if got, err = s.Source.Read(t.Context(), nil, 4, nil); err != nil || len(got) != 0 {
		t.Errorf("no spans: got %d rows, %v, want none", len(got), err)
	}
}

func testDelete(t *testing.T, s Store) {
	for i := range 5 {
		s.enqueue(t, outbox.Message{ID: fmt.Sprint(i), Topic: "t", Key: "a"})
	}
	rows := s.all(t)
	done := outbox.Settlement{Relay: "r", Done: []outbox.Done{{Part: rows[0].Part, Seqs: []int64{rows[1].Message.Seq, rows[3].Message.Seq}}}}
	if got := s.settle(t, done); got.Deleted != 2 {
		t.Errorf("deleted: got %d, want 2", got.Deleted)
	}
	var left []string
	for _, r := range s.all(t) {
		left = append(left, r.Message.ID)
	}
	if want := []string{"0", "2", "4"}; !slices.Equal(left, want) {
		t.Errorf("left: got %v, want %v", left, want)
	}
	if got := s.settle(t, done); got.Deleted != 0 {
		t.Errorf("deleted the second time: got %d, want 0", got.Deleted)
	}
}

func testLease(t *testing.T, s Store) {
	a := s.lease(t, outbox.LeaseRequest{Relay: "a"})
	if len(a.Held) != s.Parts || a.Share != s.Parts || a.Relays != 1 || a.Parts != s.Parts {
		t.Fatalf("alone: got %d of %d held, share %d, relays %d, want all", len(a.Held), a.Parts, a.Share, a.Relays)
	}
	if d := time.Since(a.Now); d < -time.Hour || d > time.Hour {
		t.Errorf("the database's clock: got %v, want about now", a.Now)
	}
	b := s.lease(t, outbox.LeaseRequest{Relay: "b"})
	if len(b.Held) != 0 || b.Relays != 2 || b.Share != s.Parts/2 {
		t.Fatalf("the second: got %d held, relays %d, share %d, want none yet, 2 and half", len(b.Held), b.Relays, b.Share)
	}
	keep, release := leasesOf(a)[:s.Parts/2], leasesOf(a)[s.Parts/2:]
	a2 := s.lease(t, outbox.LeaseRequest{Relay: "a", Held: keep, Release: release})
	if len(a2.Held) != s.Parts/2 {
		t.Errorf("after the release: got %d held, want %d", len(a2.Held), s.Parts/2)
	}
	b = s.lease(t, outbox.LeaseRequest{Relay: "b"})
	if len(b.Held) != s.Parts/2 {
		t.Fatalf("the second after the release: got %d held, want %d", len(b.Held), s.Parts/2)
	}
	for _, h := range b.Held {
		if before := held(t, a, h.Part); h.Epoch <= before.Epoch {
			t.Errorf("partition %d: epoch %d after %d, want it higher", h.Part, h.Epoch, before.Epoch)
		}
	}
	for _, h := range s.lease(t, outbox.LeaseRequest{Relay: "a", Held: keep}).Held {
		if before := held(t, a, h.Part); h.Epoch != before.Epoch {
			t.Errorf("partition %d: epoch %d after a renewal, want %d", h.Part, h.Epoch, before.Epoch)
		}
	}
}

// A call that was given up may be carried out late: what it gives back by an old epoch stays.
func testLateRelease(t *testing.T, s Store) {
	first := s.lease(t, outbox.LeaseRequest{Relay: "a"})
	s.lease(t, outbox.LeaseRequest{Relay: "a", Release: leasesOf(first)})
	again := s.lease(t, outbox.LeaseRequest{Relay: "a"})
	if len(again.Held) != s.Parts || again.Held[0].Epoch <= first.Held[0].Epoch {
		t.Fatalf("claimed again: got %d held, epoch %d after %d, want all, higher", len(again.Held), again.Held[0].Epoch, first.Held[0].Epoch)
	}
	late := s.lease(t, outbox.LeaseRequest{Relay: "a", Held: leasesOf(again), Release: leasesOf(first)})
	if len(late.Held) != s.Parts {
		t.Errorf("after a release by the old epochs: got %d held, want all %d", len(late.Held), s.Parts)
	}
}

func testExpiry(t *testing.T, s Store) {
	a := s.lease(t, outbox.LeaseRequest{Relay: "a", TTL: 300 * time.Millisecond})
	if b := s.lease(t, outbox.LeaseRequest{Relay: "b", TTL: 300 * time.Millisecond}); len(b.Held) != 0 && b.Now.Sub(a.Now) < 300*time.Millisecond {
		t.Fatalf("while the lease stands: got %d held, want 0", len(b.Held))
	}
	var b outbox.Leases
	until(t, "the other gets all", func() bool {
		b = s.lease(t, outbox.LeaseRequest{Relay: "b", TTL: 10 * time.Second})
		return len(b.Held) == s.Parts
	})
	if again := s.lease(t, outbox.LeaseRequest{Relay: "a", Held: leasesOf(a)}); len(again.Held) != 0 {
		t.Errorf("the first comes back: got %d held, want 0", len(again.Held))
	}
}

func testLeave(t *testing.T, s Store) {
	s.lease(t, outbox.LeaseRequest{Relay: "a"})
	s.lease(t, outbox.LeaseRequest{Relay: "a", Leave: true})
	if b := s.lease(t, outbox.LeaseRequest{Relay: "b"}); len(b.Held) != s.Parts || b.Relays != 1 {
		t.Errorf("after the other left: got %d held, relays %d, want %d and 1", len(b.Held), b.Relays, s.Parts)
	}
}

func testFence(t *testing.T, s Store) {
	s.enqueue(t, outbox.Message{ID: "m", Topic: "t", Key: "k"})
	row := s.all(t)[0]
	a := s.lease(t, outbox.LeaseRequest{Relay: "a"})
	old := held(t, a, row.Part).Lease
	s.lease(t, outbox.LeaseRequest{Relay: "a", Leave: true})
	b := s.lease(t, outbox.LeaseRequest{Relay: "b"})
	writes := func(relay string, l outbox.Lease) outbox.Settled {
		return s.settle(t, outbox.Settlement{Relay: relay, Tries: []outbox.Try{{Lease: l, Seq: row.Message.Seq, Attempts: 7, Error: "no"}},
			Parks: []outbox.Park{{Lease: l, Seqs: []int64{row.Message.Seq}, Reason: "no", Holds: true}}})
	}
	for name, try := range map[string]func() outbox.Settled{
		"the old owner":             func() outbox.Settled { return writes("a", old) },
		"the old owner, new epoch":  func() outbox.Settled { return writes("a", held(t, b, row.Part).Lease) },
		"the new owner, old epoch":  func() outbox.Settled { return writes("b", old) },
		"the new owner, other life": func() outbox.Settled { l := held(t, b, row.Part).Lease; l.Gen++; return writes("b", l) },
	} {
		if got := try(); !slices.Contains(got.Fenced, row.Part) {
			t.Errorf("%s: got %+v, want partition %d fenced", name, got, row.Part)
		}
	}
	if dead, err := s.DeadLetters(t.Context(), outbox.DeadFilter{}); err != nil || len(dead) != 0 || len(s.all(t)) != 1 {
		t.Errorf("after refused writes: got %d dead letters, %v, want the message where it was", len(dead), err)
	}
	s.lease(t, outbox.LeaseRequest{Relay: "b", Leave: true})
	if c := s.lease(t, outbox.LeaseRequest{Relay: "c"}); len(held(t, c, row.Part).Attempts) != 0 {
		t.Error("a refused attempt was recorded")
	}
}

func testPark(t *testing.T, s Store) {
	s.enqueue(t, outbox.Message{ID: "poison", Topic: "t", Key: "k", Payload: []byte{0, 255}}, outbox.Message{ID: "next", Topic: "t", Key: "k"})
	rows := s.all(t)
	lease := held(t, s.lease(t, outbox.LeaseRequest{Relay: "a"}), rows[0].Part).Lease
	park := outbox.Settlement{Relay: "a",
		Tries: []outbox.Try{{Lease: lease, Seq: rows[1].Message.Seq, Attempts: 3, Error: "no \x00\xff"}},
		Parks: []outbox.Park{{Lease: lease, Seqs: []int64{rows[0].Message.Seq}, Reason: "no \x00\xff", Attempts: 20, Holds: true}}}
	if got := s.settle(t, park); len(got.Fenced) != 0 {
		t.Fatalf("fenced: got %v, want none", got.Fenced)
	}
	if got := s.settle(t, park); len(got.Fenced) != 0 { // a lost commit is repeated
		t.Fatalf("repeated: got %v fenced, want none", got.Fenced)
	}
	dead, err := s.DeadLetters(t.Context(), outbox.DeadFilter{Key: "k"})
	if err != nil || len(dead) != 1 {
		t.Fatalf("dead letters: got %d, %v, want 1", len(dead), err)
	}
	if d := dead[0]; d.ID != "poison" || d.Attempts != 20 || !d.Holds || d.Seq != rows[0].Message.Seq || string(d.Payload) != "\x00\xff" || d.Parked.IsZero() {
		t.Errorf("dead letter: got %+v, want the message, 20 attempts, holding", d)
	}
	if left := s.all(t); len(left) != 1 || left[0].Message.ID != "next" {
		t.Errorf("left: got %d rows, want next alone", len(left))
	}
	s.lease(t, outbox.LeaseRequest{Relay: "a", Leave: true})
	next := held(t, s.lease(t, outbox.LeaseRequest{Relay: "b"}), rows[0].Part)
	if !slices.Equal(next.Parked, []string{"k"}) || next.Attempts[rows[1].Message.Seq] != 3 {
		t.Errorf("the next owner: got parked %v, attempts %v, want k and 3", next.Parked, next.Attempts)
	}
	s.settle(t, outbox.Settlement{Relay: "b", Done: []outbox.Done{{Part: next.Part, Seqs: []int64{rows[1].Message.Seq}, Tried: []int64{rows[1].Message.Seq}}}})
	s.lease(t, outbox.LeaseRequest{Relay: "b", Leave: true})
	if last := held(t, s.lease(t, outbox.LeaseRequest{Relay: "c"}), rows[0].Part); len(last.Attempts) != 0 {
		t.Errorf("attempts of a deleted message: got %v, want none", last.Attempts)
	}
}

func testReplay(t *testing.T, s Store) {
	for i := range 4 {
		s.enqueue(t, outbox.Message{ID: fmt.Sprint(i), Topic: "t", Key: "k"})
	}
	rows := s.all(t)
	first := held(t, s.lease(t, outbox.LeaseRequest{Relay: "a"}), rows[0].Part)
	s.settle(t, outbox.Settlement{Relay: "a", Parks: []outbox.Park{{Lease: first.Lease, Holds: true, Reason: "no",
		Seqs: []int64{rows[0].Message.Seq, rows[1].Message.Seq, rows[2].Message.Seq}}}})
	if n, err := s.Replay(t.Context(), outbox.DeadFilter{ID: "1"}); err != nil || n != 3 {
		t.Fatalf("replay of one that holds its key: got %d, %v, want the key's 3", n, err)
	}
	got := s.all(t)
	for i := range rows {
		if len(got) != 4 || got[i].Message.ID != rows[i].Message.ID || got[i].Message.Seq != rows[i].Message.Seq {
			t.Fatalf("after the replay: got %d rows, row %d is not as it was", len(got), i)
		}
	}
	late := s.settle(t, outbox.Settlement{Relay: "a", Parks: []outbox.Park{{Lease: first.Lease, Holds: true, Reason: "no", Seqs: []int64{rows[3].Message.Seq}}}})
	if !slices.Contains(late.Fenced, first.Part) {
		t.Error("a relay that does not know of the replay parked a message: want it refused")
	}
	now := held(t, s.lease(t, outbox.LeaseRequest{Relay: "a", Held: []outbox.Lease{first.Lease}}), first.Part)
	if now.Gen <= first.Gen || now.Epoch != first.Epoch || len(now.Parked) != 0 {
		t.Errorf("after the replay: got %+v, want a higher generation, the same epoch and no key parked", now)
	}
}

func testDiscard(t *testing.T, s Store) {
	s.enqueue(t, outbox.Message{ID: "m", Topic: "t", Key: "k"}, outbox.Message{ID: "n", Topic: "u", Key: "l"})
	a := s.lease(t, outbox.LeaseRequest{Relay: "a"})
	for _, r := range s.all(t) {
		s.settle(t, outbox.Settlement{Relay: "a", Parks: []outbox.Park{{Lease: held(t, a, r.Part).Lease, Holds: true, Reason: "no", Seqs: []int64{r.Message.Seq}}}})
	}
	if n, err := s.Discard(t.Context(), outbox.DeadFilter{Topic: "t"}); err != nil || n != 1 {
		t.Fatalf("discard of a topic: got %d, %v, want 1", n, err)
	}
	dead, err := s.DeadLetters(t.Context(), outbox.DeadFilter{})
	if err != nil || len(dead) != 1 || dead[0].ID != "n" {
		t.Errorf("left: got %d dead letters, %v, want n alone", len(dead), err)
	}
	part := outbox.PartitionOf("k", s.Parts)
	if h := held(t, s.lease(t, outbox.LeaseRequest{Relay: "a"}), part); slices.Contains(h.Parked, "k") {
		t.Error("k is still parked")
	}
	if got := s.all(t); len(got) != 0 {
		t.Errorf("read %d rows, want 0", len(got))
	}
}

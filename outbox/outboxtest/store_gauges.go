package outboxtest

import (
	"fmt"
	"testing"
	"time"

	"github.com/backstay-go/backstay/outbox"
)

func testGauges(t *testing.T, s Store) {
	gauger, ok := s.Source.(outbox.Gauger)
	if !ok {
		t.Skip("skipped: the source is no Gauger")
	}
	gauges := func() outbox.Gauges {
		t.Helper()
		g, err := gauger.Gauges(t.Context())
		if err != nil {
			t.Fatalf("Gauges: %v", err)
		}
		return g
	}
	if g := gauges(); g.Waiting != 0 || g.Scheduled != 0 || g.Dead != 0 || g.Oldest != 0 {
		t.Errorf("empty: got %+v, want nothing", g)
	}
	for i := range 5 {
		s.enqueue(t, outbox.Message{Topic: "t", Key: fmt.Sprint(i)})
	}
	s.enqueue(t, outbox.Message{Topic: "t", Delay: time.Hour}, outbox.Message{Topic: "t", Delay: time.Hour})
	rows := s.all(t)
	lease := held(t, s.lease(t, outbox.LeaseRequest{Relay: "a"}), rows[0].Part).Lease
	s.settle(t, outbox.Settlement{Relay: "a", Parks: []outbox.Park{{Lease: lease, Seqs: []int64{rows[0].Message.Seq}, Reason: "no"}}})
	if g := gauges(); g.Waiting != 4 || g.Scheduled != 2 || g.Dead != 1 || g.Oldest < 0 || g.Oldest > time.Minute {
		t.Errorf("got %+v, want 4 waiting, 2 scheduled, 1 dead and an age of some milliseconds", g)
	}
	until(t, "the oldest message is older than 20 ms", func() bool { return gauges().Oldest > 20*time.Millisecond })
}

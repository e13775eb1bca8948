package outboxpub_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/natspub"
	"github.com/backstay-go/backstay/outbox/outboxmem"
	"github.com/backstay-go/backstay/outbox/outboxtest"
)

// Acceptance case 26, with a relay: some messages are refused, some confirmations are lost, and the connection breaks. Messages of a key do not
// overtake, everything arrives, and the outbox is empty afterwards.
func TestRelayIntoNATS(t *testing.T) {
	server := embeddedNATS(t)
	direct := connectNATS(t, server.Addr().String())
	through := newProxy(t, server.Addr().String())
	subject, _ := newStream(t, direct, nil)
	publisher := natspub.New(connectNATS(t, through.Addr()), natspub.Config{Topics: []string{subject}})
	defer publisher.Close()

	box := outboxmem.New()
	var ids []string
	seqs := make(map[string]int64)
	for i := range 400 {
		m := newMessage(subject, fmt.Sprint("key", i%8), fmt.Sprint(i))
		if err := box.Enqueue(t.Context(), *m); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, m.ID)
		seqs[m.ID] = int64(i + 1)
	}
	saboteur := &outboxtest.Faulty{Next: publisher, Plan: func(m *outbox.Message, attempt int) outboxtest.Fault {
		switch n := seqs[m.ID]; {
		case n == 200 && attempt == 1:
			through.Cut(t)
			through.Mend(t)
			return outboxtest.Pass
		case n%17 == 0 && attempt < 3:
			return outboxtest.Refuse
		case n%23 == 0 && attempt == 1:
			return outboxtest.LoseAck
		}
		return outboxtest.Pass
	}}
	relay := outbox.NewRelay(box.Source(), saboteur, outbox.RelayConfig{MinBackoff: time.Millisecond, MaxBackoff: 20 * time.Millisecond})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- relay.Run(ctx) }()
	eventually(t, 30*time.Second, func() error {
		if n := box.Len(); n != 0 {
			return fmt.Errorf("%d messages are left in the outbox", n)
		}
		return nil
	})
	cancel()
	if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("Run: %v", err)
	}
	got := readStream(t, direct, subject, len(ids))
	for _, m := range got {
		m.Seq = seqs[m.ID]
	}
	outboxtest.Deliveries(t, got, ids...)
	if len(got) != len(ids) {
		t.Errorf("got %d messages in the stream, want %d: it deduplicates", len(got), len(ids))
	}
}

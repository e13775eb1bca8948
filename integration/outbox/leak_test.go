package outbox_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/outboxpgx"
	"github.com/backstay-go/backstay/outbox/outboxtest"
	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"
)

// A shutdown under load returns in time, deletes what was confirmed, gives the partitions back and leaves no goroutine.
func TestShutdownUnderLoad(t *testing.T) {
	box, pool := openPgx(t, "")
	other := outboxpgx.New()
	rec := &outboxtest.Recorder{}
	before := goleak.IgnoreCurrent()
	source := other.Source(pool)
	relay := outbox.NewRelay(source, rec, outbox.RelayConfig{Lease: 30 * time.Second})
	ended := make(chan error, 1)
	go func() { ended <- relay.Run(context.Background()) }()
	for i := range 300 {
		if err := box.InTx(t.Context(), pool, func(tx pgx.Tx) error {
			return box.Enqueue(t.Context(), tx, outbox.Message{ID: fmt.Sprint(i), Topic: "t", Key: fmt.Sprint(i % 7)})
		}); err != nil {
			t.Fatal(err)
		}
		if i == 200 {
			wait(t, rec, 50)
			if err := relay.Shutdown(within(t, 5*time.Second)); err != nil {
				t.Fatalf("Shutdown: %v", err)
			}
			if err := <-ended; err != nil {
				t.Fatalf("Run: %v", err)
			}
		}
	}
	var left, owned int
	if err := pool.QueryRow(t.Context(), "SELECT (SELECT count(*) FROM outbox), (SELECT count(*) FROM outbox_lease WHERE owner <> '')").Scan(&left, &owned); err != nil {
		t.Fatal(err)
	}
	if n := len(rec.Messages()); n+left != 300 || owned != 0 {
		t.Errorf("got %d published and %d left, %d partitions owned, want 300 together and none owned", n, left, owned)
	}
	other.Close()
	box.Close()
	if err := goleak.Find(before); err != nil {
		t.Error(err)
	}
	outboxtest.Deliveries(t, rec.Messages(), ids(rec)...)
}

func ids(rec *outboxtest.Recorder) (out []string) {
	for _, m := range rec.Messages() {
		out = append(out, m.ID)
	}
	return out
}

package outbox_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/backstay-go/backstay/integration/saga/sagadb"
	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/outboxsql"
	"github.com/backstay-go/backstay/outbox/outboxtest"
)

// A relay whose machine dies in the middle of writing a dead letter leaves a transaction open that its server takes for alive. The other relay takes over all
// partitions but that one within the lease, and that one when PostgreSQL ends the transaction, after ten seconds.
func TestOwnerDiesInTransaction(t *testing.T) {
	dsn := sagadb.DSN(t, outboxsql.Postgres)
	proxy := newKillProxy(t, "127.0.0.1:5432")
	proxy.stallAt = `INSERT INTO "outbox_dead"`
	db, far := sagadb.Pool(t, outboxsql.Postgres, dsn), sagadb.Pool(t, outboxsql.Postgres, strings.Replace(dsn, "127.0.0.1:5432", proxy.addr, 1))
	box := outboxsql.New(outboxsql.Postgres)
	if err := box.Migrate(t.Context(), db); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(box.Close)
	enqueue := func(messages ...outbox.Message) {
		t.Helper()
		if err := box.InTx(t.Context(), db, func(tx *sql.Tx) error { return box.Enqueue(t.Context(), tx, messages...) }); err != nil {
			t.Fatal(err)
		}
	}
	cfg := outbox.RelayConfig{Lease: 2 * time.Second, DrainTimeout: time.Millisecond}
	refusing := outbox.PublisherFunc(func(_ context.Context, batch []*outbox.Message, result []error) {
		for i := range batch {
			result[i] = outbox.Permanent(errors.New("no"))
		}
	})
	dying := outbox.NewRelay(outboxsql.New(outboxsql.Postgres).Source(far), refusing, cfg)
	ended := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { ended <- dying.Run(ctx) }()
	enqueue(outbox.Message{ID: "poison", Topic: "t", Key: "poison"})
	select {
	case <-proxy.stalled:
	case <-within(t, 20*time.Second).Done():
		t.Fatal("the first relay did not come to write a dead letter")
	}
	rec := &outboxtest.Recorder{}
	run(t, box.Source(db), rec, outbox.RelayConfig{Lease: 2 * time.Second})
	locked := outbox.PartitionOf("poison", 16)
	n := 0
	for i := range 64 {
		if key := fmt.Sprint("k", i); outbox.PartitionOf(key, 16) != locked {
			enqueue(outbox.Message{Topic: "t", Key: key})
			n++
		}
	}
	began := time.Now()
	if _, err := rec.Wait(within(t, 9*time.Second), n); err != nil {
		t.Errorf("the partitions without a lock: got %d messages of %d in 9 s", len(rec.Messages()), n)
	}
	t.Logf("all others after %v", time.Since(began).Round(time.Millisecond))
	wait(t, rec, n+1)
	t.Logf("the locked one after %v", time.Since(began).Round(time.Millisecond))
	proxy.cut()
	cancel()
	<-ended
}

package outbox_test

import (
	"context"
	"database/sql"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/backstay-go/backstay/integration/saga/sagadb"
	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/outboxpgx"
	"github.com/backstay-go/backstay/outbox/outboxsql"
	"github.com/backstay-go/backstay/outbox/outboxtest"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Three relays share the work of four writers on every database; one leaves and comes back meanwhile. Nothing is lost or repeated, and keys keep
// their order.
func TestSeveralRelays(t *testing.T) {
	sagadb.Each(t, func(t *testing.T, d outboxsql.Dialect) {
		box, db := open(t, d)
		rec := &outboxtest.Recorder{}
		cfg := outbox.RelayConfig{Lease: 3 * time.Second, MaxPoll: 50 * time.Millisecond}
		run(t, box.Source(db), rec, cfg)
		run(t, box.Source(db), rec, cfg)
		leaving := outbox.NewRelay(box.Source(db), rec, cfg)
		left := make(chan error, 1)
		go func() { left <- leaving.Run(t.Context()) }()
		const writers, keys, each = 4, 4, 30
		var ids []string
		var mu sync.Mutex
		var all sync.WaitGroup
		for w := range writers {
			all.Go(func() {
				for n := range each {
					for k := range keys {
						id := fmt.Sprintf("%d-%d-%d", w, k, n)
						err := box.InTx(t.Context(), db, func(tx *sql.Tx) error {
							return box.Enqueue(t.Context(), tx, outbox.Message{ID: id, Topic: "t", Key: fmt.Sprint(w, k)})
						})
						if err != nil {
							t.Errorf("InTx: %v", err)
							return
						}
						mu.Lock()
						ids = append(ids, id)
						mu.Unlock()
					}
				}
			})
		}
		rec.Wait(within(t, 20*time.Second), writers*keys*each/3)
		if err := leaving.Shutdown(within(t, 20*time.Second)); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		if err := <-left; err != nil {
			t.Errorf("Run: %v", err)
		}
		run(t, box.Source(db), rec, cfg)
		all.Wait()
		got := wait(t, rec, len(ids))
		if len(got) != len(ids) {
			t.Errorf("published: got %d, want each of %d once", len(got), len(ids))
		}
		outboxtest.Deliveries(t, got, ids...)
	})
}

// A listener whose connection breaks is made again, and what was committed meanwhile is found.
func TestListenAgain(t *testing.T) {
	box, pool := openPgx(t, "")
	proxy := newKillProxy(t, "127.0.0.1:5432")
	cfg := pool.Config().Copy()
	cfg.ConnConfig.Host = "127.0.0.1"
	fmt.Sscanf(proxy.addr, "127.0.0.1:%d", &cfg.ConnConfig.Port)
	behind, err := pgxpool.NewWithConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(behind.Close)
	other := outboxpgx.New()
	t.Cleanup(other.Close)
	rec := &outboxtest.Recorder{}
	run(t, other.Source(behind), rec, outbox.RelayConfig{MinPoll: time.Minute, MaxPoll: time.Minute})
	send := func(i int) {
		t.Helper()
		if err := box.InTx(t.Context(), pool, func(tx pgx.Tx) error {
			return box.Enqueue(t.Context(), tx, outbox.Message{ID: fmt.Sprint(i), Topic: "t", Key: fmt.Sprint(i)})
		}); err != nil {
			t.Fatal(err)
		}
	}
	send(0)
	wait(t, rec, 1)
	for i := range 3 {
		proxy.cut()
		send(i + 1)
		wait(t, rec, i+2)
	}
}

// A pooler that swallows NOTIFY is noticed, and polling does the work.
func TestPollOnly(t *testing.T) {
	_, pool := openPgx(t, "")
	silent := outboxpgx.New(outboxsql.Config{Silent: true})
	t.Cleanup(silent.Close)
	other := outboxpgx.New()
	t.Cleanup(other.Close)
	rec := &outboxtest.Recorder{}
	run(t, deaf{other.Source(pool)}, rec, outbox.RelayConfig{MaxPoll: 20 * time.Millisecond})
	for i := range 20 {
		if err := silent.InTx(t.Context(), pool, func(tx pgx.Tx) error { return silent.Enqueue(t.Context(), tx, outbox.Message{Topic: "t"}) }); err != nil {
			t.Fatal(err)
		}
		wait(t, rec, i+1)
	}
}

// deaf never hears a hint.
type deaf struct{ *outboxpgx.Source }

func (deaf) Listen(context.Context, func(), func(bool)) error { return outboxpgx.ErrDeaf }

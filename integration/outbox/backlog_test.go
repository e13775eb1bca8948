package outbox_test

import (
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/backstay-go/backstay/integration/saga/sagadb"
	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/outboxpgx"
	"github.com/backstay-go/backstay/outbox/outboxsql"
	"github.com/backstay-go/backstay/outbox/outboxtest"
	"github.com/jackc/pgx/v5"
)

var (
	backlogSize = flag.Int("outbox.backlog", 40_000, "messages of TestBacklog; 1,000,000 is the whole case")
	soakFor     = flag.Duration("outbox.soak", 3*time.Second, "how long TestSoak runs; 24h is the whole case")
)

// A message of a large backlog costs no more than one of a small: no reading goes through the rows that are deleted already. It is told by the pages of the
// table that PostgreSQL looks at, since times tell of the machine as well. What is left of it all is empty pages that a vacuum gives back.
func TestBacklog(t *testing.T) {
	total := *backlogSize
	dsn := sagadb.DSN(t, outboxsql.Postgres)
	watch := sagadb.Pool(t, outboxsql.Postgres, dsn)
	watch.SetMaxOpenConns(1)
	box, pool := openPgxAt(t, dsn)
	for n := 0; n < total; {
		batch := make([]outbox.Message, min(5000, total-n))
		for i := range batch {
			batch[i] = outbox.Message{Topic: "t", Key: fmt.Sprint(i % 500), Payload: make([]byte, 200)}
		}
		if err := box.InTx(t.Context(), pool, func(tx pgx.Tx) error { return box.Enqueue(t.Context(), tx, batch...) }); err != nil {
			t.Fatal(err)
		}
		n += len(batch)
	}
	var published atomic.Int64
	done := make(chan struct{})
	relay := outbox.NewRelay(box.Source(pool), outbox.PublisherFunc(func(_ context.Context, batch []*outbox.Message, result []error) {
		clear(result)
		if published.Add(int64(len(batch))) == int64(total) {
			close(done)
		}
	}), outbox.RelayConfig{Lag: time.Minute, Sweep: time.Hour}) // looks back go through deleted rows, as often as the time that all this takes allows
	began := time.Now()
	ended := make(chan error, 1)
	go func() { ended <- relay.Run(context.Background()) }()
	select {
	case <-done:
	case <-time.After(3*time.Minute + time.Duration(total)*100*time.Microsecond):
		t.Fatalf("published %d of %d", published.Load(), total)
	}
	t.Logf("%d messages in %v", total, time.Since(began).Round(time.Millisecond))
	if err := errors.Join(relay.Shutdown(within(t, 20*time.Second)), <-ended); err != nil { // the last rows are deleted
		t.Error(err)
	}
	box.Close()
	pool.Close()
	eventually(t, "the sessions end, which report then at the latest", func() bool {
		var others int
		const query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
		if err := watch.QueryRow(query).Scan(&others); err != nil {
			t.Fatal(err)
		}
		return others == 0
	})
	var pages float64
	if err := watch.QueryRow("SELECT heap_blks_read + heap_blks_hit FROM pg_statio_user_tables WHERE relname = 'outbox'").Scan(&pages); err != nil {
		t.Fatal(err)
	}
	pages /= float64(total)
	t.Logf("%.2f pages of the table for each message", pages)
	// To write, read and delete a row takes three, and some are read again before they are deleted. Readings that begin with the deleted rows take another page
	// for each of those: 12 for a message at 40,000.
	if pages > 9 {
		t.Errorf("got %.2f pages of the table for each message, want 3 to 5, however many there are", pages)
	}
	checkSize(t, watch)
}

// checkSize waits until the outbox is empty, vacuums it, and says how large it still is. A vacuum leaves the index alone when fewer than 2 % of the pages
// have dead rows, and those pages are then not given back, nor any before them, however often it runs: the first vacuum leaves such a
// few when a reading (or autovacuum, a moment before the last deletes) keeps them. So this one is told to clean the index whatever there is.
func checkSize(t *testing.T, db *sql.DB) {
	t.Helper()
	var left, bytes int64
	eventually(t, "all rows are deleted", func() bool {
		if err := db.QueryRow("SELECT count(*) FROM outbox").Scan(&left); err != nil {
			t.Fatal(err)
		}
		return left == 0
	})
	eventually(t, "a vacuum leaves less than 64 KiB of the outbox's table", func() bool { // not while a reading pins it
		if _, err := db.Exec("VACUUM (INDEX_CLEANUP ON, TRUNCATE ON) outbox"); err != nil {
			t.Fatal(err)
		}
		if err := db.QueryRow("SELECT pg_relation_size('outbox')").Scan(&bytes); err != nil {
			t.Fatal(err)
		}
		return bytes < 64<<10
	})
}

// Under a steady load of 2,000 messages/s neither the table and its index nor the time to the publisher grow with what has passed through. A long soak
// needs autovacuum, which bounds the table: where the server has it off, it starts one of its own.
func TestSoak(t *testing.T) {
	const (
		every = 10 * time.Millisecond
		batch = 20
		parts = 10
	)
	long := *soakFor >= 10*time.Minute
	box, pool := openPgx(t, "")
	if long {
		var autovacuum string
		if err := pool.QueryRow(t.Context(), "SHOW autovacuum").Scan(&autovacuum); err != nil {
			t.Fatal(err)
		}
		if autovacuum != "on" {
			box, pool = openPgxAt(t, startCluster(t).dsn())
		}
	}
	rec := &soak{}
	run(t, box.Source(pool), rec, outbox.RelayConfig{Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	var table, index []int64
	var half, p99 []time.Duration
	sent := 0
	tick := time.NewTicker(every)
	defer tick.Stop()
	next := time.Now().Add(*soakFor / parts)
	for len(table) < parts {
		messages := make([]outbox.Message, batch)
		for i := range messages {
			messages[i] = outbox.Message{Topic: "t", Key: fmt.Sprint(i), Payload: make([]byte, 200)}
		}
		if err := box.InTx(t.Context(), pool, func(tx pgx.Tx) error { return box.Enqueue(t.Context(), tx, messages...) }); err != nil {
			t.Fatal(err)
		}
		sent += batch
		if now := time.Now(); now.After(next) {
			next = now.Add(*soakFor / parts)
			var ofTable, ofIndex int64
			if err := pool.QueryRow(t.Context(), "SELECT pg_table_size('outbox'), pg_indexes_size('outbox')").Scan(&ofTable, &ofIndex); err != nil {
				t.Fatal(err)
			}
			took := rec.take()
			if len(took) == 0 {
				if long {
					t.Fatalf("nothing was published for %v", *soakFor/parts)
				}
				took = []time.Duration{0} // a machine may take longer over other things than a short tenth is
			}
			table, index = append(table, ofTable>>10), append(index, ofIndex>>10)
			half, p99 = append(half, took[len(took)/2].Round(10*time.Microsecond)), append(p99, took[len(took)*99/100].Round(10*time.Microsecond))
		}
		<-tick.C
	}
	eventually(t, "all is published", func() bool { return rec.count() >= sent })
	t.Logf("%d messages; by tenths of the time: table %v KiB, index %v KiB; enqueue to publisher p50 %v, p99 %v", sent, table, index, half, p99)
	if long { // autovacuum looks once a minute
		// What grows with all that has passed through is tens of megabytes and seconds; a machine that others load adds some pages and tens of milliseconds.
		const pages, load = 512, 50 * time.Millisecond
		for name, sizes := range map[string][]int64{"table": table, "index": index} {
			if first, last := slices.Max(sizes[:parts/2]), slices.Max(sizes[parts/2:]); last > first*5/4+pages {
				t.Errorf("the largest size of the %s in the second half is %d KiB, want about the first half's %d", name, last, first)
			}
		}
		slices.Sort(half[:parts/2])
		slices.Sort(half[parts/2:])
		if first, last := half[parts/4], half[parts/2+parts/4]; last > 2*first+load {
			t.Errorf("the median of the second half's p50 is %v, want about the first half's %v", last, first)
		}
	}
	db := outboxpgx.DB(pool)
	defer db.Close()
	checkSize(t, db)
}

// A soak is a publisher that remembers how old the messages were.
type soak struct {
	mu   sync.Mutex
	n    int
	ages []time.Duration
}

func (s *soak) Publish(_ context.Context, batch []*outbox.Message, result []error) {
	clear(result)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range batch {
		s.n++
		s.ages = append(s.ages, time.Since(m.Created)) // one machine, one clock
	}
}

// take returns the ages since the last call, sorted.
func (s *soak) take() []time.Duration {
	s.mu.Lock()
	ages := s.ages
	s.ages = nil
	s.mu.Unlock()
	slices.Sort(ages)
	return ages
}

func (s *soak) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.n
}

// Three relays are replaced one after the other under load, by ones that read otherwise: through database/sql before, through pgx after. Nothing waits for
// longer than two leases, comes twice, or out of order.
func TestRollingDeploy(t *testing.T) {
	box, pool := openPgx(t, "")
	const lease = 3 * time.Second
	db := outboxpgx.DB(pool)
	defer db.Close()
	rec := &outboxtest.Recorder{}
	var oldest atomic.Int64
	pub := outbox.PublisherFunc(func(ctx context.Context, batch []*outbox.Message, result []error) {
		rec.Publish(ctx, batch, result)
		for _, m := range batch {
			age := int64(time.Since(m.Created)) // one machine, one clock
			for old := oldest.Load(); age > old && !oldest.CompareAndSwap(old, age); old = oldest.Load() {
			}
		}
	})
	start := func(source outbox.Source) (stop func()) {
		relay := outbox.NewRelay(source, pub, outbox.RelayConfig{Lease: lease, MaxPoll: 50 * time.Millisecond})
		ended := make(chan error, 1)
		go func() { ended <- relay.Run(context.Background()) }()
		return func() {
			t.Helper()
			if err := relay.Shutdown(within(t, 20*time.Second)); err != nil {
				t.Errorf("Shutdown: %v", err)
			}
			if err := <-ended; err != nil {
				t.Errorf("Run: %v", err)
			}
		}
	}
	var stops []func()
	for range 3 {
		stops = append(stops, start(box.SQL.Source(db)))
	}
	var ids []string
	send := func(count int) {
		t.Helper()
		for range count {
			id := fmt.Sprint(len(ids))
			if err := box.InTx(t.Context(), pool, func(tx pgx.Tx) error {
				return box.Enqueue(t.Context(), tx, outbox.Message{ID: id, Topic: "t", Key: fmt.Sprint("k", len(ids)%32)})
			}); err != nil {
				t.Fatal(err)
			}
			ids = append(ids, id)
		}
	}
	for i := range stops {
		send(150)
		stops[i]()
		send(50)
		stops[i] = start(box.Source(pool))
	}
	send(150)
	got := wait(t, rec, len(ids))
	for _, stop := range stops {
		stop()
	}
	if n := len(rec.Messages()); n != len(ids) {
		t.Errorf("published: got %d, want each of %d once", n, len(ids))
	}
	outboxtest.Deliveries(t, got, ids...)
	age := time.Duration(oldest.Load())
	t.Logf("the oldest message was %v old when it was published", age.Round(time.Millisecond))
	if age > 2*lease {
		t.Errorf("the oldest message: got %v, want at most %v", age, 2*lease)
	}
}

package outbox

import (
	"context"
	stdsql "database/sql"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	wsql "github.com/ThreeDotsLabs/watermill-sql/v3/pkg/sql"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/outboxpgx"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
)

const backlog = 50_000

// counter is a null publisher.
type counter struct {
	n    atomic.Int64
	want int64
	done chan struct{}
}

func newCounter(want int) *counter { return &counter{want: int64(want), done: make(chan struct{})} }

func (c *counter) add(n int) {
	if now := c.n.Add(int64(n)); now >= c.want && now-int64(n) < c.want {
		close(c.done)
	}
}

func (c *counter) Publish(_ context.Context, batch []*outbox.Message, result []error) {
	clear(result)
	c.add(len(batch))
}

// fill enqueues the backlog, 1,000 messages in a transaction.
func fill(b *testing.B, box *outboxpgx.Box, pool *pgxpool.Pool) {
	b.Helper()
	for first := 0; first < backlog; first += 1000 {
		batch := make([]outbox.Message, 1000)
		for i := range batch {
			batch[i] = newMessage(first + i)
		}
		if err := pgx.BeginFunc(context.Background(), pool, func(tx pgx.Tx) error { return box.Enqueue(context.Background(), tx, batch...) }); err != nil {
			b.Fatal(err)
		}
	}
}

// drain measures one relay from its start until the backlog is published and deleted.
func drain(b *testing.B, source outbox.Source) {
	b.Helper()
	c := newCounter(backlog)
	relay := outbox.NewRelay(source, c, outbox.RelayConfig{})
	ended := make(chan error, 1)
	b.StartTimer()
	began := time.Now()
	go func() { ended <- relay.Run(context.Background()) }()
	<-c.done
	for relay.Stats().Pending > 0 {
		time.Sleep(100 * time.Microsecond)
	}
	took := time.Since(began)
	b.StopTimer()
	b.ReportMetric(backlog/took.Seconds(), "msgs/s")
	if err := relay.Shutdown(context.Background()); err != nil {
		b.Fatal(err)
	}
	if err := <-ended; err != nil {
		b.Fatal(err)
	}
}

func BenchmarkOutboxDrain(b *testing.B) {
	b.Run("backstay", func(b *testing.B) { benchDrain(b, nil) })
	b.Run("backstay-sql", benchDrainSQL)
	b.Run("backstay-old-write-tx", func(b *testing.B) { benchDrain(b, openWriteTx) })
	b.Run("backstay-dead-rows", func(b *testing.B) { benchDrain(b, pinDeadRows) })
	b.Run("river", benchDrainRiver)
	b.Run("watermill", benchDrainWatermill)
}

// benchDrain drains through pgx; before makes trouble and returns how to end it.
func benchDrain(b *testing.B, before func(b *testing.B, box *outboxpgx.Box, pool *pgxpool.Pool) func()) {
	for range b.N {
		b.StopTimer()
		pool := connect(b, newDatabase(b))
		box := openBox(b, pool)
		end := func() {}
		if before != nil {
			end = before(b, box, pool)
		}
		fill(b, box, pool)
		drain(b, box.Source(pool))
		end()
		pool.Close()
	}
}

// openWriteTx holds a transaction open in another database of the cluster that has written.
func openWriteTx(b *testing.B, _ *outboxpgx.Box, _ *pgxpool.Pool) func() {
	other := connect(b, newDatabase(b))
	if _, err := other.Exec(context.Background(), "CREATE TABLE t (i int)"); err != nil {
		b.Fatal(err)
	}
	tx, err := other.Begin(context.Background())
	if err != nil {
		b.Fatal(err)
	}
	if _, err := tx.Exec(context.Background(), "INSERT INTO t VALUES (1)"); err != nil {
		b.Fatal(err)
	}
	return func() { tx.Rollback(context.Background()); other.Close() }
}

// pinDeadRows leaves 50,000 deleted rows that an old snapshot keeps from being vacuumed.
func pinDeadRows(b *testing.B, box *outboxpgx.Box, pool *pgxpool.Pool) func() {
	fill(b, box, pool)
	tx, err := pool.BeginTx(context.Background(), pgx.TxOptions{IsoLevel: pgx.RepeatableRead})
	if err != nil {
		b.Fatal(err)
	}
	var n int
	if err := tx.QueryRow(context.Background(), "SELECT count(*) FROM outbox").Scan(&n); err != nil || n != backlog {
		b.Fatalf("snapshot: %d, %v", n, err)
	}
	if _, err := pool.Exec(context.Background(), "DELETE FROM outbox"); err != nil {
		b.Fatal(err)
	}
	return func() { tx.Rollback(context.Background()) }
}

func benchDrainSQL(b *testing.B) {
	for range b.N {
		b.StopTimer()
		pool := connect(b, newDatabase(b))
		box := openBox(b, pool)
		fill(b, box, pool)
		db := outboxpgx.DB(pool)
		drain(b, box.SQL.Source(db))
		db.Close()
		pool.Close()
	}
}

// riverArgs carries what a message carries.
type riverArgs struct {
	Key     string            `json:"key"`
	Headers map[string]string `json:"headers"`
	Payload json.RawMessage   `json:"payload"`
}

func (riverArgs) Kind() string { return "publish" }

type riverWorker struct {
	river.WorkerDefaults[riverArgs]
	work func(riverArgs)
}

func (w *riverWorker) Work(_ context.Context, job *river.Job[riverArgs]) error {
	w.work(job.Args)
	return nil
}

// fataler is a testing.TB or the child's log.
type fataler interface{ Fatal(args ...any) }

// newRiver makes a client with the settings of its own published benchmark (2,000 workers) and the shortest pauses it allows.
func newRiver(tb fataler, pool *pgxpool.Pool, work func(riverArgs)) *river.Client[pgx.Tx] {
	driver := riverpgxv5.New(pool)
	migrator, err := rivermigrate.New(driver, &rivermigrate.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		tb.Fatal(err)
	}
	if _, err := migrator.Migrate(context.Background(), rivermigrate.DirectionUp, nil); err != nil {
		tb.Fatal(err)
	}
	workers := river.NewWorkers()
	river.AddWorker(workers, &riverWorker{work: work})
	client, err := river.NewClient(driver, &river.Config{
		Queues:  map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: 2000}},
		Workers: workers, FetchCooldown: time.Millisecond, FetchPollInterval: 10 * time.Millisecond,
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		tb.Fatal(err)
	}
	return client
}

func benchDrainRiver(b *testing.B) {
	for range b.N {
		b.StopTimer()
		pool := connect(b, newDatabase(b))
		c := newCounter(backlog)
		client := newRiver(b, pool, func(riverArgs) { c.add(1) })
		for first := 0; first < backlog; first += 1000 {
			batch := make([]river.InsertManyParams, 1000)
			for i := range batch {
				batch[i].Args = riverArgs{Key: fmt.Sprint("order-", (first+i)%1000), Headers: headers(), Payload: payload()}
			}
			if _, err := client.InsertManyFast(context.Background(), batch); err != nil {
				b.Fatal(err)
			}
		}
		if _, err := pool.Exec(context.Background(), "ANALYZE"); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		began := time.Now()
		if err := client.Start(context.Background()); err != nil {
			b.Fatal(err)
		}
		<-c.done // worked; that the last are marked as completed is not waited for
		b.ReportMetric(backlog/time.Since(began).Seconds(), "msgs/s")
		b.StopTimer()
		if err := client.Stop(context.Background()); err != nil {
			b.Fatal(err)
		}
		pool.Close()
	}
}

func benchDrainWatermill(b *testing.B) {
	for range b.N {
		b.StopTimer()
		db, err := stdsql.Open("pgx", newDatabase(b))
		if err != nil {
			b.Fatal(err)
		}
		schema := wsql.DefaultPostgreSQLSchema{SubscribeBatchSize: 100}
		publisher, err := wsql.NewPublisher(db, wsql.PublisherConfig{SchemaAdapter: schema, AutoInitializeSchema: true}, watermill.NopLogger{})
		if err != nil {
			b.Fatal(err)
		}
		subscriber, err := wsql.NewSubscriber(db, wsql.SubscriberConfig{
			SchemaAdapter: schema, OffsetsAdapter: wsql.DefaultPostgreSQLOffsetsAdapter{}, InitializeSchema: true, PollInterval: time.Millisecond,
		}, watermill.NopLogger{})
		if err != nil {
			b.Fatal(err)
		}
		if err := subscriber.SubscribeInitialize("orders"); err != nil {
			b.Fatal(err)
		}
		for first := 0; first < backlog; first += 1000 {
			batch := make([]*message.Message, 1000)
			for i := range batch {
				batch[i] = message.NewMessage(watermill.NewUUID(), payload())
				batch[i].Metadata = headers()
				batch[i].Metadata["key"] = fmt.Sprint("order-", (first+i)%1000)
			}
			if err := publisher.Publish("orders", batch...); err != nil {
				b.Fatal(err)
			}
		}
		if _, err := db.Exec("ANALYZE"); err != nil { // its query needs the planner to know the table
			b.Fatal(err)
		}
		b.StartTimer()
		began := time.Now()
		messages, err := subscriber.Subscribe(context.Background(), "orders")
		if err != nil {
			b.Fatal(err)
		}
		for range backlog {
			(<-messages).Ack()
		}
		b.ReportMetric(backlog/time.Since(began).Seconds(), "msgs/s")
		b.StopTimer()
		subscriber.Close()
		publisher.Close()
		db.Close()
	}
}

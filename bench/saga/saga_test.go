// Package saga_test measures sagas of four steps that do nothing: what is left
// is what the engine and its store cost.
//
//	go test -run '^$' -bench SagaFourSteps -benchtime 5s ./saga
package saga_test

import (
	"context"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/backstay-go/backstay/saga"
	"github.com/backstay-go/backstay/saga/sagamem"
	"github.com/backstay-go/backstay/saga/sagapgx"
	"github.com/backstay-go/backstay/saga/sagasql"
)

type order struct{ ID, Card, Address string }

type result struct{ ID string }

// fourSteps does nothing four times, two of them with an undo.
var fourSteps = saga.Must(saga.Define("bench", 1, func(b *saga.Builder[order]) {
	step := func(_ *saga.Ctx, o order) (result, error) { return result{o.ID}, nil }
	undo := func(*saga.Ctx, order, saga.Result[result]) error { return nil }
	saga.Step(b, "reserve", step).Compensate(undo)
	saga.Step(b, "charge", step).Compensate(undo)
	saga.Step(b, "ship", step).Pivot()
	saga.Step(b, "confirm", step).Retriable()
}))

// run starts an engine and returns what stops it.
func run(b *testing.B, store saga.Store) *saga.Engine {
	b.Helper()
	engine := saga.New(store, saga.Register(fourSteps))
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- engine.Run(ctx) }()
	b.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			b.Error(err)
		}
	})
	for range 20 { // connections, plans
		if err := one(engine, "warm-"+strconv.FormatInt(serial.Add(1), 10)); err != nil {
			b.Fatal(err)
		}
	}
	return engine
}

var serial atomic.Int64

// one runs a saga to its end.
func one(engine *saga.Engine, key string) error {
	ctx := context.Background()
	h, err := fourSteps.Start(ctx, engine, key, order{ID: key, Card: "4242", Address: "Quay 1"})
	if err != nil {
		return err
	}
	return engine.Wait(ctx, h.ID)
}

// crowd runs b.N sagas, so many at a time.
func crowd(b *testing.B, store saga.Store, database string, inFlight int) {
	b.Helper()
	engine := run(b, store)
	own, server := cpuTime(database)
	rate := together(b, inFlight, func() error { return one(engine, strconv.FormatInt(serial.Add(1), 10)) })
	b.ReportMetric(rate, "sagas/s")
	cost(b, database, own, server)
}

// cost reports the processor time since own and server were read.
func cost(b *testing.B, database string, own, server time.Duration) {
	own2, server2 := cpuTime(database)
	b.ReportMetric((own2-own).Seconds()*1000/float64(b.N), "core-ms/op")
	if database != "" {
		b.ReportMetric((server2-server).Seconds()*1000/float64(b.N), "pg-core-ms/op")
	}
}

// together calls fn b.N times, so many at a time, reports how long the middle
// one and the slowest hundredth took, and returns how many ended in a second.
func together(b *testing.B, atOnce int, fn func() error) float64 {
	b.Helper()
	var mu sync.Mutex
	var took []time.Duration
	var left atomic.Int64
	left.Store(int64(b.N))
	var wg sync.WaitGroup
	b.ResetTimer()
	start := time.Now()
	for range min(atOnce, b.N) {
		wg.Go(func() {
			var own []time.Duration
			for left.Add(-1) >= 0 {
				t := time.Now()
				if err := fn(); err != nil {
					b.Error(err)
					break
				}
				own = append(own, time.Since(t))
			}
			mu.Lock()
			took = append(took, own...)
			mu.Unlock()
		})
	}
	wg.Wait()
	b.StopTimer()
	rate := float64(b.N) / time.Since(start).Seconds()
	slices.Sort(took)
	if len(took) > 0 {
		p50, p99 := took[len(took)/2], took[len(took)*99/100]
		b.ReportMetric(float64(p50.Microseconds())/1000, "p50-ms")
		b.ReportMetric(float64(p99.Microseconds())/1000, "p99-ms")
	}
	return rate
}

func BenchmarkSagaFourSteps(b *testing.B) {
	b.Run("commits", func(b *testing.B) { commits(b, 4) })
	pgx := func(b *testing.B, inFlight int) {
		store, database := pgxStore(b)
		crowd(b, store, database, inFlight)
	}
	b.Run("backstay", func(b *testing.B) { pgx(b, 1000) })
	b.Run("database-sql", func(b *testing.B) {
		store, database := sqlStore(b)
		crowd(b, store, database, 1000)
	})
	b.Run("in-flight-64", func(b *testing.B) { pgx(b, 64) })
	b.Run("alone", func(b *testing.B) { pgx(b, 1) })
	b.Run("commits-alone", func(b *testing.B) { commits(b, 1) })
	b.Run("alone-in-commits", inCommits)
	b.Run("memory", func(b *testing.B) {
		crowd(b, sagamem.New(), "", 64)
		b.ReportMetric(4*float64(b.N)/b.Elapsed().Seconds(), "steps/s")
	})
}

// commits is the floor: transactions of one row each, by so many writers.
func commits(b *testing.B, writers int) {
	name := database(b)
	pool := pgxPool(b, dsn(name))
	ctx := context.Background()
	if _, err := pool.Exec(ctx, "CREATE TABLE floor (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v text)"); err != nil {
		b.Fatal(err)
	}
	conns := make(chan *pgxpool.Conn, writers)
	for range writers {
		c, err := pool.Acquire(ctx)
		if err != nil {
			b.Fatal(err)
		}
		defer c.Release()
		conns <- c
	}
	own, server := cpuTime(name)
	rate := together(b, writers, func() error {
		c := <-conns
		defer func() { conns <- c }()
		_, err := c.Exec(ctx, "INSERT INTO floor (v) VALUES ($1)", "one step")
		return err
	})
	b.ReportMetric(rate, "commits/s")
	cost(b, name, own, server)
}

// inCommits measures a lone saga in lone commits of one row, of which eight and a saga take turns, so that whatever else the
// machine does meets both. of-8-commits compares a saga with the eight before it, the line of which is 1. commits/saga
// divides it by a single commit: several times in a row take more than as many medians, on a machine that is not quiet.
func inCommits(b *testing.B) {
	ctx := context.Background()
	store, name := pgxStore(b)
	engine := run(b, store)
	floor, err := pgx.Connect(ctx, dsn(name))
	if err != nil {
		b.Fatal(err)
	}
	defer floor.Close(ctx)
	if _, err := floor.Exec(ctx, "CREATE TABLE floor (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v text)"); err != nil {
		b.Fatal(err)
	}
	var commits, blocks, sagas []time.Duration
	took := func(into *[]time.Duration, err error, start time.Time) {
		if err != nil {
			b.Fatal(err)
		}
		*into = append(*into, time.Since(start))
	}
	for b.Loop() {
		block := time.Now()
		for range 8 {
			start := time.Now()
			_, err := floor.Exec(ctx, "INSERT INTO floor (v) VALUES ($1)", "one step")
			took(&commits, err, start)
		}
		took(&blocks, nil, block)
		start := time.Now()
		took(&sagas, one(engine, strconv.FormatInt(serial.Add(1), 10)), start)
	}
	slices.Sort(commits)
	slices.Sort(blocks)
	slices.Sort(sagas)
	b.ReportMetric(sagas[len(sagas)/2].Seconds()/blocks[len(blocks)/2].Seconds(), "of-8-commits")
	b.ReportMetric(float64(blocks[len(blocks)/2].Microseconds())/1000, "8-commits-p50-ms")
	c, s := commits[len(commits)/2], sagas[len(sagas)/2]
	b.ReportMetric(float64(c.Microseconds())/1000, "commit-p50-ms")
	b.ReportMetric(float64(s.Microseconds())/1000, "saga-p50-ms")
	b.ReportMetric(s.Seconds()/c.Seconds(), "commits/saga")
}

func pgxStore(b *testing.B) (saga.Store, string) {
	name := database(b)
	pool := pgxPool(b, dsn(name))
	if err := sagapgx.Migrate(context.Background(), pool); err != nil {
		b.Fatal(err)
	}
	store := sagapgx.New(pool)
	b.Cleanup(func() { store.Close() })
	return store, name
}

func sqlStore(b *testing.B) (saga.Store, string) {
	name := database(b)
	db := sqlPool(b, dsn(name))
	if err := sagasql.Migrate(context.Background(), db, sagasql.Postgres); err != nil {
		b.Fatal(err)
	}
	store := sagasql.New(db, sagasql.Postgres)
	b.Cleanup(func() { store.Close() })
	return store, name
}

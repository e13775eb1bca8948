// Saga-trip books a trip in four steps, kept in a SQLite file. The process that begins the first trip dies in the middle,
// after it has booked the hotel and before it could write that down; a second process takes over. The
// second trip's card is declined, and what was booked for it is given back.
//
//	go run ./examples/saga-trip
package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/backstay-go/backstay/saga"
	"github.com/backstay-go/backstay/saga/sagasql"
	_ "modernc.org/sqlite"
)

type trip struct{ Traveller, Card string }

var errDeclined = errors.New("card declined")

// world is the airline, the hotel and the bank: they remember requests by their idempotency key.
type world struct {
	db    *sql.DB
	crash bool // die after the hotel's booking
}

// do carries out a request at most once.
func (w world) do(c *saga.Ctx, what string) error {
	res, err := w.db.ExecContext(c, `INSERT INTO booking (key, what) VALUES (?, ?) ON CONFLICT DO NOTHING`, c.Key(), what)
	if err != nil {
		return err
	}
	if n, _ := res.RowsAffected(); n == 0 {
		fmt.Printf("  %-14s known already under this key: not done twice\n", what)
		return nil
	}
	fmt.Printf("  %-14s done\n", what)
	return nil
}

// bookTrip is the saga: two steps that can be undone, the pivot, and one that is repeated until it succeeds.
func bookTrip(w world) *saga.Definition[trip] {
	return saga.Must(saga.Define("book-trip", 1, func(b *saga.Builder[trip]) {
		saga.Step(b, "flight", func(c *saga.Ctx, _ trip) (string, error) {
			return "seat 12A", w.do(c, "book flight")
		}).Compensate(func(c *saga.Ctx, _ trip, _ saga.Result[string]) error {
			return w.do(c, "cancel flight")
		})
		saga.Step(b, "hotel", func(c *saga.Ctx, _ trip) (string, error) {
			err := w.do(c, "book hotel")
			if w.crash {
				fmt.Println("  … and the process dies before it can write that down")
				os.Exit(3)
			}
			return "room 7", err
		}).Compensate(func(c *saga.Ctx, _ trip, _ saga.Result[string]) error {
			return w.do(c, "cancel hotel")
		})
		saga.Step(b, "pay", func(c *saga.Ctx, t trip) (struct{}, error) {
			if t.Card == "" {
				fmt.Println("  pay            declined")
				return struct{}{}, saga.Fail(errDeclined)
			}
			return struct{}{}, w.do(c, "pay")
		}).Pivot()
		sagasql.TxStep(b, "ticket", func(c *saga.Ctx, tx *sql.Tx, t trip) (struct{}, error) {
			_, err := tx.ExecContext(c, `INSERT INTO ticket (traveller) VALUES (?)`, t.Traveller)
			fmt.Println("  ticket         written, together with the saga's record")
			return struct{}{}, err
		}).Retriable()
	}))
}

func main() {
	log.SetFlags(0)
	if file := os.Getenv("SAGA_TRIP_FILE"); file != "" { // the process that is going to die
		if err := run(file, true); err != nil {
			log.Fatal(err)
		}
		return
	}
	dir, err := os.MkdirTemp("", "saga-trip")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "trips.db")

	fmt.Println("first process:")
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), "SAGA_TRIP_FILE="+file)
	child.Stdout, child.Stderr = os.Stdout, os.Stderr
	var exit *exec.ExitError
	if err := child.Run(); !errors.As(err, &exit) || exit.ExitCode() != 3 {
		log.Fatalf("the first process should have died in the middle: %v", err)
	}
	fmt.Println("second process, once the first one's lease is over:")
	if err := run(file, false); err != nil {
		log.Fatal(err)
	}
	fmt.Println("shown: a saga resumed after a crash with each effect once, and one undone in reverse after a refusal")
}

func run(file string, crash bool) error {
	ctx, stop := context.WithTimeout(context.Background(), time.Minute)
	defer stop()
	db, err := sql.Open("sqlite", "file:"+file+"?_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)")
	if err != nil {
		return err
	}
	defer db.Close()
	if err := sagasql.Migrate(ctx, db, sagasql.SQLite); err != nil {
		return err
	}
	for _, table := range []string{`booking (key TEXT PRIMARY KEY, what TEXT NOT NULL)`, `ticket (traveller TEXT NOT NULL)`} {
		if _, err := db.ExecContext(ctx, "CREATE TABLE IF NOT EXISTS "+table); err != nil {
			return err
		}
	}
	book := bookTrip(world{db, crash})
	store := sagasql.New(db, sagasql.SQLite)
	defer store.Close()
	engine := saga.New(store, saga.Register(book), saga.Config{Lease: time.Second, Poll: 50 * time.Millisecond, Writers: 1})
	running, halt := context.WithCancel(ctx)
	defer halt()
	ended := make(chan error, 1)
	go func() { ended <- engine.Run(running) }()

	// Starting the same trip again finds the one that the first process began.
	first, err := book.Start(ctx, engine, "trip-1", trip{"Ann", "4000"})
	if err != nil {
		return err
	}
	if err := engine.Wait(ctx, first.ID); err != nil {
		return err
	}
	fmt.Println("trip-1 is complete; now one whose card is declined:")
	second, err := book.Start(ctx, engine, "trip-2", trip{"Bob", ""})
	if err != nil {
		return err
	}
	if err := engine.Wait(ctx, second.ID); !errors.Is(err, errDeclined) {
		return fmt.Errorf("trip-2 should have been undone: %w", err)
	}
	var tickets, bookings int
	if err := db.QueryRowContext(ctx, `SELECT (SELECT count(*) FROM ticket), (SELECT count(*) FROM booking)`).Scan(&tickets, &bookings); err != nil {
		return err
	}
	if tickets != 1 || bookings != 7 {
		return fmt.Errorf("got %d tickets and %d requests, want 1 and 7", tickets, bookings)
	}
	halt()
	return <-ended
}

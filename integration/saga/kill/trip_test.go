package kill_test

import (
	"context"
	"database/sql"
	"errors"
	"path"
	"time"

	"github.com/backstay-go/backstay/internal/sqldialect"
	"github.com/backstay-go/backstay/saga"
	"github.com/backstay-go/backstay/saga/guard"
	"github.com/backstay-go/backstay/saga/sagasql"
)

// trip is the input of the saga under test. Fate says what goes wrong by
// design: nothing, "poor" (the payment says no) or "refused" (the pivot does).
type trip struct{ Order, Fate string }

var errNo = errors.New("no")

// world is where the steps have their effects: a ledger with a line for each,
// in the same database, without any uniqueness that would hide a second one.
type world struct {
	db    *sql.DB
	d     sqldialect.Dialect
	guard *guard.DB
	at    func(point string) // a named point where the process may be killed
}

func newWorld(db *sql.DB, d sqldialect.Dialect, at func(string)) *world {
	return &world{db, d, guard.New(db, d), at}
}

func createLedger(ctx context.Context, db *sql.DB, d sqldialect.Dialect) error {
	text := "text"
	if d == sqldialect.MySQL {
		text = "varbinary(255)"
	}
	for _, stmt := range []string{
		"CREATE TABLE ledger (effect_key " + text + " NOT NULL, op " + text + " NOT NULL, epoch bigint NOT NULL)",
		"CREATE TABLE orders (id " + text + " NOT NULL PRIMARY KEY)",
	} {
		if _, err := db.ExecContext(ctx, stmt); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) write(ctx context.Context, tx *sql.Tx, c *saga.Ctx) error {
	_, err := tx.ExecContext(ctx, w.d.Rebind("INSERT INTO ledger (effect_key, op, epoch) VALUES (?, ?, ?)"), c.ActionKey(), string(c.Op()), c.Epoch())
	return err
}

// remote has an effect as a participant does that is called over a network:
// in a transaction of its own, behind the guard.
func (w *world) remote(c *saga.Ctx, no bool) (string, error) {
	w.at(path.Base(c.Step()) + ":before")
	a, err := w.guard.Run(c, guard.Call{Key: c.ActionKey(), Op: guard.Op(c.Op()), Epoch: c.Epoch()}, func(ctx context.Context, _ []byte) ([]byte, error) {
		if no {
			return nil, saga.Fail(errNo)
		}
		return []byte("result of " + c.ActionKey()), w.write(ctx, guard.TxFrom(ctx), c)
	})
	w.at(path.Base(c.Step()) + ":after")
	return string(a.Result), err
}

func (w *world) act(c *saga.Ctx, in trip) (string, error) { return w.remote(c, false) }

// undo checks that what it is told to undo is what was done.
func (w *world) undo(c *saga.Ctx, _ trip, res saga.Result[string]) error {
	w.at("undo:before")
	if v, ok := res.Value(); ok && v != "result of "+c.ActionKey() {
		panic("the undo of " + c.ActionKey() + " was given " + v)
	}
	_, err := w.remote(c, false)
	w.at("undo:after")
	return err
}

// definition has a step of each kind: guarded ones, ones in the store's
// transaction, a wait, branches, a pivot.
func (w *world) definition() *saga.Definition[trip] {
	again := []saga.StepOption{saga.Attempts(500), saga.Backoff(2*time.Millisecond, 50*time.Millisecond), saga.Timeout(5 * time.Second)}
	return saga.Must(saga.Define("trip", 1, func(b *saga.Builder[trip]) {
		saga.Step(b, "reserve", w.act, again...).Compensate(w.undo, again...)
		saga.Wait[string](b, "paid", "go")
		sagasql.TxStep(b, "pay", func(c *saga.Ctx, tx *sql.Tx, in trip) (string, error) {
			if in.Fate == "poor" {
				return "", saga.Fail(errNo)
			}
			err := w.write(c, tx, c)
			w.at("pay:in-tx")
			return "result of " + c.ActionKey(), err
		}, again...).CompensateTx(func(c *saga.Ctx, tx *sql.Tx, in trip, _ saga.Result[string]) error {
			w.at("undo:before")
			_, err := tx.ExecContext(c, w.d.Rebind("INSERT INTO ledger (effect_key, op, epoch) SELECT effect_key, ?, ? FROM ledger WHERE effect_key = ? AND op = ?"),
				string(saga.Undo), c.Epoch(), c.ActionKey(), string(saga.Action))
			return err
		}, again...)
		b.Parallel("pack", func(p *saga.Branches[trip]) {
			p.Branch("box", func(b *saga.Builder[trip]) { saga.Step(b, "box", w.act, again...).Compensate(w.undo, again...) })
			p.Branch("label", func(b *saga.Builder[trip]) { saga.Step(b, "label", w.act, again...).Compensate(w.undo, again...) })
		})
		saga.Step(b, "ship", func(c *saga.Ctx, in trip) (string, error) { return w.remote(c, in.Fate == "refused") }, again...).Pivot()
		sagasql.TxStep(b, "confirm", func(c *saga.Ctx, tx *sql.Tx, in trip) (string, error) {
			err := w.write(c, tx, c)
			w.at("confirm:in-tx")
			return "", err
		}, again...).Retriable()
	}))
}

// points are where a process may be told to die.
var points = []string{
	"reserve:before", "reserve:after", "pay:in-tx", "box:after", "label:before", "ship:before", "ship:after", "confirm:in-tx",
	"undo:before", "undo:after", "commit:before", "commit:after", "intx:after", "claim:after",
}

var config = saga.Config{Lease: 300 * time.Millisecond, Poll: 25 * time.Millisecond, Grace: 50 * time.Millisecond}

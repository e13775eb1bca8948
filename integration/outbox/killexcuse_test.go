package outbox_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/backstay-go/backstay/outbox"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// excuses holds what may make a message come twice, and nothing else may: its own partition was taken, between its enqueue and its repetition, from a
// relay that had not given it back; or a publisher had no answer about this very message. A trigger records the first, so
// that it does not depend on what the relays know or say.
type excuses struct {
	pool *pgxpool.Pool

	mu      sync.Mutex
	unknown map[string]bool // by arrival.name

	read   int64           // the newest taking read; this and the rest belong to the goroutine of the test
	taken  map[int][]int64 // by partition: when, in microseconds
	judged int             // repetitions that have their excuse
	byTake int             // of those, the ones that only a taking excuses
}

func newExcuses(t *testing.T, pool *pgxpool.Pool) *excuses {
	t.Helper()
	if _, err := pool.Exec(t.Context(), `
		CREATE TABLE taking (n bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, part int NOT NULL, at bigint NOT NULL);
		CREATE FUNCTION note_taking() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
			INSERT INTO taking (part, at) VALUES (new.part, extract(epoch FROM clock_timestamp()) * 1000000);
			RETURN NULL;
		END $$;
		CREATE TRIGGER note_taking AFTER UPDATE ON outbox_lease FOR EACH ROW WHEN (old.owner <> '' AND new.owner <> '' AND new.owner <> old.owner)
			EXECUTE FUNCTION note_taking()`); err != nil {
		t.Fatal(err)
	}
	return &excuses{pool: pool, unknown: map[string]bool{}, taken: map[int][]int64{}}
}

func (e *excuses) unknownOutcome(name string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.unknown[name] = true
}

// judge returns the first of the repetitions that has no excuse. It is given all of them each time, in the same order.
func (e *excuses) judge(repeated []arrival) (*arrival, error) {
	if len(repeated) == e.judged {
		return nil, nil
	}
	if err := e.takings(); err != nil {
		return nil, err
	}
	for ; e.judged < len(repeated); e.judged++ {
		a := repeated[e.judged]
		e.mu.Lock()
		unknown := e.unknown[a.name()]
		e.mu.Unlock()
		switch {
		case unknown:
		case slices.ContainsFunc(e.taken[outbox.PartitionOf(a.Key, 16)], func(at int64) bool { return a.Created <= at && at <= a.at }):
			e.byTake++
		default:
			return &a, nil
		}
	}
	return nil, nil
}

// takings reads what the trigger has recorded since the last time, and a little before: transactions may commit out of turn.
func (e *excuses) takings() error {
	rows, err := e.pool.Query(context.Background(), "SELECT n, part, at FROM taking WHERE n > $1 ORDER BY n", e.read-100)
	if err != nil {
		return err
	}
	var n, at int64
	var part int
	_, err = pgx.ForEachRow(rows, []any{&n, &part, &at}, func() error {
		e.read = max(e.read, n)
		if !slices.Contains(e.taken[part], at) {
			e.taken[part] = append(e.taken[part], at)
		}
		return nil
	})
	return err
}

func (e *excuses) String() string {
	takings := 0
	for _, at := range e.taken {
		takings += len(at)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return fmt.Sprintf("%d came again, %d of them since their partition was taken from its owner and the others since nobody had learned the outcome (%d takings, %d unknown outcomes)",
		e.judged, e.byTake, takings, len(e.unknown))
}

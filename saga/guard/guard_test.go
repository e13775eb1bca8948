package guard_test

import (
	"context"
	"errors"
	"testing"

	"github.com/backstay-go/backstay/saga/guard"
	"github.com/backstay-go/backstay/saga/guard/guardtest"
)

func TestMemory(t *testing.T) {
	guardtest.TestRunner(t, func(*testing.T) guardtest.World {
		return guardtest.World{Runner: &guard.Memory{}}
	})
}

func TestMigrationsAreThere(t *testing.T) {
	for _, d := range []guard.Dialect{guard.Postgres, guard.MySQL, guard.SQLite} {
		if _, err := guard.Migrations(d).Open("0001_guard.up.sql"); err != nil {
			t.Errorf("%v: got %v, want a first file", d, err)
		}
	}
}

// rows is a Log for one transaction, as a participant's own store would be.
type rows map[string]guard.Row

func (l rows) Claim(_ context.Context, r guard.Row) (guard.Row, bool, error) {
	if have, ok := l[r.Key+string(r.Op)]; ok {
		return have, false, nil
	}
	l[r.Key+string(r.Op)] = r
	return r, true, nil
}

func (l rows) Finish(_ context.Context, key string, op guard.Op, result []byte) error {
	r := l[key+string(op)]
	r.Done, r.Result = true, result
	l[key+string(op)] = r
	return nil
}

func (l rows) Forget(_ context.Context, key string, op guard.Op) error {
	delete(l, key+string(op))
	return nil
}

type hold struct{ ID string }

func TestTyped(t *testing.T) {
	ctx, log := t.Context(), rows{}
	calls := 0
	reserve := func(context.Context) (hold, error) { calls++; return hold{"h1"}, nil }
	for range 2 {
		got, err := guard.Action(ctx, log, "s/reserve", reserve)
		if err != nil || got.ID != "h1" {
			t.Errorf("Action: got %v, %v, want h1, nil", got, err)
		}
	}
	if _, err := guard.Action(ctx, log, "s/reserve", reserve, guard.ReportReplay()); !errors.Is(err, guard.ErrReplayed) {
		t.Errorf("Action with ReportReplay: got %v, want ErrReplayed", err)
	}
	if calls != 1 {
		t.Errorf("calls of the action: got %d, want 1", calls)
	}
	var undone []string
	release := func(_ context.Context, h hold) error { undone = append(undone, h.ID); return nil }
	for range 2 {
		if err := guard.Compensate(ctx, log, "s/reserve", release, guard.Epoch(2)); err != nil {
			t.Errorf("Compensate: got %v, want nil", err)
		}
	}
	if len(undone) != 1 || undone[0] != "h1" {
		t.Errorf("undone: got %v, want [h1]", undone)
	}
	if err := guard.Compensate(ctx, log, "s/other", release); err != nil {
		t.Errorf("Compensate of nothing: got %v, want nil", err)
	}
	if _, err := guard.Action(ctx, log, "s/other", reserve); !errors.Is(err, guard.ErrPoisoned) {
		t.Errorf("late Action: got %v, want ErrPoisoned", err)
	}
}

// A caller who commits although the function failed must not leave a claim
// behind that a duplicate would take for a done effect.
func TestFailureLeavesNoClaim(t *testing.T) {
	ctx, log := t.Context(), rows{}
	boom := errors.New("boom")
	if _, err := guard.Action(ctx, log, "s/a", func(context.Context) (int, error) { return 0, boom }); !errors.Is(err, boom) {
		t.Fatalf("got %v, want boom", err)
	}
	if len(log) != 0 {
		t.Errorf("rows left: got %v, want none", log)
	}
}

// A row without a result is one whose effect is not known: neither replayed
// nor undone.
func TestUnfinishedRow(t *testing.T) {
	ctx := t.Context()
	log := rows{"s/aaction": {Key: "s/a", Op: guard.OpAction, By: guard.OpAction}}
	_, err := guard.Action(ctx, log, "s/a", func(context.Context) (int, error) { t.Error("ran"); return 0, nil })
	if !errors.Is(err, guard.ErrRunning) {
		t.Errorf("Action: got %v, want ErrRunning", err)
	}
	err = guard.Compensate(ctx, log, "s/a", func(context.Context, int) error { t.Error("ran"); return nil })
	if !errors.Is(err, guard.ErrRunning) {
		t.Errorf("Compensate: got %v, want ErrRunning", err)
	}
}

package kill_test

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"maps"

	"github.com/backstay-go/backstay/saga"
	"github.com/backstay-go/backstay/saga/sagatest"
)

func mapKeys(m map[string]string) iter.Seq[string] { return maps.Keys(m) }

// instance checks one instance at rest: its log by itself, then the ledger
// against it.
func (c *campaign) instance(ctx context.Context, id, fate string) error {
	if err := sagatest.Invariants(ctx, c.store, c.def.Shape(), id); err != nil {
		return err
	}
	in, err := c.store.Get(ctx, id)
	if err != nil {
		return err
	}
	rows, err := c.db.QueryContext(ctx, c.d.Rebind("SELECT effect_key, op, COUNT(*) FROM ledger WHERE effect_key >= ? AND effect_key < ? GROUP BY effect_key, op"), id+"/", id+"0")
	if err != nil {
		return err
	}
	defer rows.Close()
	effects := map[string]map[string]int{}
	for rows.Next() {
		var key, op string
		var n int
		if err := rows.Scan(&key, &op, &n); err != nil {
			return err
		}
		if n != 1 {
			return fmt.Errorf("%s of %s had %d effects, want 1", op, key, n)
		}
		step := key[len(id)+1:]
		if effects[step] == nil {
			effects[step] = map[string]int{}
		}
		effects[step][op] = n
	}
	if err := rows.Err(); err != nil {
		return err
	}
	switch in.State {
	case saga.Completed:
		if fate == "poor" || fate == "refused" {
			return fmt.Errorf("completed, although a step says no")
		}
		for _, step := range []string{"reserve", "pay", "pack.box/box", "pack.label/label", "ship", "confirm"} {
			if effects[step]["action"] != 1 || effects[step]["compensate"] != 0 {
				return fmt.Errorf("completed with effects %v", effects)
			}
		}
	case saga.Compensated:
		if fate == "" {
			return fmt.Errorf("compensated without a reason")
		}
		for step, e := range effects {
			if e["action"] != e["compensate"] {
				return fmt.Errorf("compensated, and %s has effects %v", step, e)
			}
		}
		if effects["ship"] != nil || effects["confirm"] != nil {
			return fmt.Errorf("compensated with effects of pivot or after: %v", effects)
		}
	default:
		return fmt.Errorf("state %s, want completed or compensated", in.State)
	}
	return c.log(ctx, id)
}

// log checks that the signal was read once, and that results are what the
// steps returned.
func (c *campaign) log(ctx context.Context, id string) error {
	log, err := c.store.History(ctx, id, 0, 10_000)
	if err != nil {
		return err
	}
	signals := 0
	for _, e := range log {
		if e.Event != saga.EventDone || e.Op == saga.Undo {
			continue
		}
		var v string
		switch e.Step {
		case "paid":
			signals++
		case "reserve", "pay", "pack.box/box", "pack.label/label", "ship":
			if err := json.Unmarshal(e.Data, &v); err != nil {
				return fmt.Errorf("logged result of %s: %w", e.Step, err)
			}
			if v != "result of "+id+"/"+e.Step {
				return fmt.Errorf("logged result of %s is %q", e.Step, v)
			}
		}
	}
	if signals > 1 {
		return fmt.Errorf("the signal was read %d times", signals)
	}
	return nil
}

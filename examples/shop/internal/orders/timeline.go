package orders

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/backstay-go/backstay/examples/shop/internal/books"
	"github.com/backstay-go/backstay/saga"
)

// Timeline is what an order's saga has done so far.
type Timeline struct {
	Order   string    `json:"order"`
	What    string    `json:"what"`
	Total   string    `json:"total"`
	State   string    `json:"state"`
	Saga    string    `json:"saga"`
	Parked  bool      `json:"parked"`
	Started time.Time `json:"started"`
	Ended   time.Time `json:"ended"`
	Steps   []Step    `json:"steps"`

	id string // of the saga
}

// Step is an action of the saga, or an undo.
type Step struct {
	Name     string    `json:"name"`
	Undo     bool      `json:"undo"`
	Pivot    bool      `json:"pivot"`
	State    string    `json:"state"` // "running", "waiting", "done", "failed" or "in doubt"
	Started  time.Time `json:"started"`
	Ended    time.Time `json:"ended"`
	Attempts int       `json:"attempts"`
	Error    string    `json:"error"`
}

// shownOrders is how many timelines are shown: the open ones that are the oldest and the newest ones that were undone, up to shownOfEach of either, as there is
// something to see in them; then the newest.
const (
	shownOrders = 50
	shownOfEach = 15
)

// timelines keeps those of orders that have closed, which do not change any more.
type timelines struct {
	mu     sync.Mutex
	closed map[string]Timeline // by saga; guarded by mu; at most shownOrders
}

const columns = "SELECT id, sku, quantity, cents, state, saga FROM orders "

// shown returns the timelines to show.
func (s *shop) shown(ctx context.Context) ([]Timeline, error) {
	s.timelines.mu.Lock()
	defer s.timelines.mu.Unlock()
	all, have, keep := make([]Timeline, 0, shownOrders), map[string]bool{}, map[string]Timeline{}
	for _, part := range []struct {
		query string
		args  []any
	}{
		{columns + "WHERE state IN (?, ?) ORDER BY saga LIMIT ?", []any{books.Open, books.Returning, shownOfEach}},
		{columns + "WHERE state = ? ORDER BY saga DESC LIMIT ?", []any{books.Cancelled, shownOfEach}},
		{columns + "ORDER BY saga DESC LIMIT ?", []any{shownOrders}},
	} {
		some, err := s.find(ctx, part.query, part.args...)
		if err != nil {
			return nil, err
		}
		for _, t := range some {
			if have[t.Order] || len(all) == shownOrders {
				continue
			}
			if old, ok := s.timelines.closed[t.id]; ok && old.State == t.State {
				t = old
			} else if err := s.fill(ctx, &t); err != nil {
				return nil, err
			}
			if !t.Ended.IsZero() {
				keep[t.id] = t
			}
			have[t.Order] = true
			all = append(all, t)
		}
	}
	s.timelines.closed = keep
	return all, nil
}

// timeline returns that of one order.
func (s *shop) timeline(ctx context.Context, order string) (Timeline, error) {
	some, err := s.find(ctx, columns+"WHERE id = ?", order)
	if err != nil || len(some) == 0 {
		return Timeline{}, errors.Join(err, sql.ErrNoRows)
	}
	return some[0], s.fill(ctx, &some[0])
}

// history returns the logs of an order's sagas, a line for each entry, for who looks into why its books do not balance.
func (s *shop) history(ctx context.Context, order string) (lines []string, err error) {
	for _, def := range []string{placing, bringing} {
		inst, err := s.store.Find(ctx, "", def, order)
		if errors.Is(err, saga.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		log, err := s.engine.History(ctx, inst.ID, 0, 1000)
		if err != nil {
			return nil, err
		}
		lines = append(lines, fmt.Sprintf("%s %s: %s, deadline %s", def, inst.ID, inst.State, inst.Deadline.Format(clockTime)))
		for _, e := range log {
			lines = append(lines, fmt.Sprintf("%s %3d epoch %d %s %s %s attempt %d %s delay %v next %v %s", e.At.Format(clockTime), e.Seq, e.Epoch, e.Event, e.Step, e.Op, e.Attempt, e.Verb, e.Delay, e.Next, s.place.Text(e)))
		}
	}
	return lines, nil
}

const clockTime = "15:04:05.000"

// find reads orders without what their sagas have done.
func (s *shop) find(ctx context.Context, query string, args ...any) (all []Timeline, err error) {
	rows, err := s.db.QueryContext(ctx, s.db.Q(query), args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var t Timeline
		var sku string
		var quantity, cents int64
		if err := rows.Scan(&t.Order, &sku, &quantity, &cents, &t.State, &t.id); err != nil {
			return nil, err
		}
		t.What, t.Total = fmt.Sprintf("%d × %s", quantity, sku), books.Money(cents)
		all = append(all, t)
	}
	return all, rows.Err()
}

// fill adds what the saga's log says.
func (s *shop) fill(ctx context.Context, t *Timeline) error {
	inst, err := s.engine.Get(ctx, t.id)
	if err != nil {
		return err
	}
	log, err := s.engine.History(ctx, t.id, 0, 500)
	if err != nil {
		return err
	}
	t.Saga, t.Parked, t.Started, t.Ended = string(inst.State), inst.State.Parked(), inst.Created, inst.Ended
	t.Steps = steps(log, s.place.Text)
	return nil
}

// steps reads the log: an entry ends the bodies that it names, and begins those in Next.
func steps(log []saga.Entry, text func(saga.Entry) string) []Step {
	var all []Step
	at := map[string]int{}
	step := func(name string, undo bool) *Step {
		key := fmt.Sprint(name, undo)
		i, ok := at[key]
		if !ok {
			i = len(all)
			at[key] = i
			all = append(all, Step{Name: name, Undo: undo, Pivot: (name == "capture" || name == "promise") && !undo})
		}
		return &all[i]
	}
	for _, e := range log {
		if e.Step != "" {
			st := step(e.Step, e.Op == saga.Undo || e.Event == saga.EventUndoFailed)
			st.Attempts = max(st.Attempts, e.Attempt)
			switch e.Event {
			case saga.EventDone:
				st.State, st.Ended, st.Error = "done", e.At, ""
			case saga.EventRetry:
				st.State, st.Error = "waiting", text(e)
			case saga.EventFailed, saga.EventUndoFailed:
				st.State, st.Ended, st.Error = "failed", e.At, text(e)
			case saga.EventParked:
				st.State, st.Error = "in doubt", text(e)
			}
		}
		for _, next := range e.Next {
			name, op, attempt, err := saga.ParseIntent(next)
			if err != nil {
				continue
			}
			st := step(name, op == saga.Undo)
			if st.Started.IsZero() {
				st.Started = e.At
			}
			if e.Event != saga.EventRetry { // the log does not say when the wait before a repetition ends
				st.State = "running"
			}
			st.Attempts = max(st.Attempts, attempt)
		}
	}
	return all
}

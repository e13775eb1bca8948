package sqlstore

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/backstay-go/backstay/internal/sqldialect"
	"github.com/backstay-go/backstay/saga"
)

// instanceColumns are those of [saga.Instance], from saga_instance i left
// joined with saga_run r.
const instanceColumns = `i.id, i.def, i.ver, i.tenant, i.business_key, COALESCE(r.state, i.state, ''), COALESCE(r.step, i.step, ''),
	COALESCE(r.pivot, i.pivot), i.prio, COALESCE(r.owner, ''), i.created_at, COALESCE(i.ended_at, 0),
	CASE WHEN r.owner IS NULL THEN COALESCE(r.wake_at, 0) ELSE 0 END, COALESCE(i.deadline_at, 0)`

func scanInstance(r Rows, in *saga.Instance, more ...any) error {
	var pivot, created, ended, wake, deadline int64
	var state string
	dest := append([]any{&in.ID, &in.Ref.Def, &in.Ref.Ver, &in.Tenant, &in.Key, &state, &in.Step, &pivot, &in.Priority, &in.Owner,
		&created, &ended, &wake, &deadline}, more...)
	if err := r.Scan(dest...); err != nil {
		return err
	}
	in.State, in.Pivot = saga.State(state), pivot != 0
	in.Created, in.Ended, in.Wake, in.Deadline = at(created), at(ended), at(wake), at(deadline)
	return nil
}

const entryColumns = `seq, epoch, event, COALESCE(step, ''), COALESCE(op, ''), COALESCE(verb, ''), attempt, data, note,
	COALESCE(actor, ''), delay, COALESCE(next, ''), at`

func scanEntry(r Rows, before ...any) (saga.Entry, error) {
	var e saga.Entry
	var event, op, next string
	var delay, when int64
	dest := append(slices.Clip(before), &e.Seq, &e.Epoch, &event, &e.Step, &op, &e.Verb, &e.Attempt, &e.Data, &e.Note, &e.Actor, &delay, &next, &when)
	if err := r.Scan(dest...); err != nil {
		return e, err
	}
	e.Event, e.Op, e.At = saga.Event(event), saga.Op(op), at(when)
	e.Delay = time.Duration(delay) * time.Microsecond
	if next != "" {
		e.Next = strings.Split(next, "\n")
	}
	return e, nil
}

func scanMail(r Rows) (saga.Mail, error) {
	var m saga.Mail
	var kind string
	err := r.Scan(&m.ID, &kind, &m.Name, &m.Mail, &m.Data, &m.Actor)
	m.Kind = saga.MailKind(kind)
	return m, err
}

const fromInstance = " FROM saga_instance i LEFT JOIN saga_run r ON r.id = i.id "

// Get reports one instance.
func (s *Store) Get(ctx context.Context, id string) (saga.Instance, error) {
	return s.instance(ctx, s.pool, "get", "WHERE i.id = ?", id)
}

// Find reports the instance of a business key.
func (s *Store) Find(ctx context.Context, tenant, def, key string) (saga.Instance, error) {
	return s.instance(ctx, s.pool, "find", "WHERE i.tenant = ? AND i.def = ? AND i.business_key = ?", tenant, def, key)
}

func (s *Store) instance(ctx context.Context, c Conn, what, where string, args ...any) (saga.Instance, error) {
	var in saga.Instance
	for _, a := range args {
		if names(a.(string)) != nil {
			return in, saga.ErrNotFound // no such name can exist
		}
	}
	found := false
	err := each(ctx, c, s.q("SELECT "+instanceColumns+fromInstance+where), args, func(r Rows) error {
		found = true
		return scanInstance(r, &in)
	})
	if err == nil && !found {
		err = saga.ErrNotFound
	}
	return in, wrap(what, err)
}

// List reports instances in ascending order of id.
func (s *Store) List(ctx context.Context, f saga.Filter) ([]saga.Instance, error) {
	if err := names(f.Tenant, f.Ref.Def, f.After); err != nil {
		return nil, err
	}
	if err := text(f.Step); err != nil {
		return nil, err
	}
	limit := f.Limit
	switch {
	case limit <= 0:
		limit = 100
	case limit > 1000:
		limit = 1000
	}
	// Live instances are read from the runs, which are few and indexed by
	// state, and only else from all that ever were.
	live := f.Except != nil
	if len(f.States) > 0 {
		live = true
		for _, st := range f.States {
			live = live && !st.Terminal()
		}
	}
	from, state, step := fromInstance, "COALESCE(r.state, i.state, '')", "COALESCE(r.step, i.step, '')"
	key := "i.id"
	if live {
		from, state, step, key = " FROM saga_run r JOIN saga_instance i ON i.id = r.id ", "r.state", "r.step", "r.id"
	}
	var where []string
	var args []any
	and := func(cond string, a ...any) {
		where = append(where, cond)
		args = append(args, a...)
	}
	and(key+" > ?", f.After)
	if f.Tenant != "" {
		and("i.tenant = ?", f.Tenant)
	}
	if f.Ref.Def != "" {
		and("i.def = ?", f.Ref.Def)
		if f.Ref.Ver != 0 {
			and("i.ver = ?", f.Ref.Ver)
		}
	}
	if len(f.States) > 0 {
		// As constants, so that the planner sees that the partial index fits.
		var in []string
		for _, st := range f.States {
			if plainState(st) {
				in = append(in, "'"+string(st)+"'")
			}
		}
		if in == nil {
			return nil, nil
		}
		and(state + " IN (" + strings.Join(in, ", ") + ")")
	}
	if f.Step != "" {
		and(step+" = ?", f.Step)
	}
	if f.Older > 0 {
		and("i.created_at <= "+s.now()+" - ?", micros(f.Older))
	}
	if f.Except != nil {
		others, err := s.others(ctx, f.Except)
		if err != nil || len(others) == 0 {
			return nil, wrap("list", err)
		}
		var conds []string
		var refs []any
		for _, ref := range others {
			conds, refs = append(conds, "(r.def = ? AND r.ver = ?)"), append(refs, ref.Def, ref.Ver)
		}
		and("("+strings.Join(conds, " OR ")+")", refs...)
	}
	var out []saga.Instance
	err := each(ctx, s.pool, s.q("SELECT "+instanceColumns+from+"WHERE "+strings.Join(where, " AND ")+" ORDER BY "+key+" LIMIT ?"),
		append(args, limit), func(r Rows) error {
			var in saga.Instance
			err := scanInstance(r, &in)
			out = append(out, in)
			return err
		})
	return out, wrap("list", err)
}

// others returns the definitions of live instances that are not in except: as a rule there are none, and no instance is read to find
// that out. Of runs without an owner the index by which they are claimed is entered once for each definition; those with one are no more
// than what all engines have in flight.
func (s *Store) others(ctx context.Context, except []saga.Ref) (all []saga.Ref, err error) {
	note := func(ref saga.Ref) {
		if !slices.Contains(except, ref) && !slices.Contains(all, ref) {
			all = append(all, ref)
		}
	}
	after, past := "(def, ver) > (?, ?)", []any{"", 0}
	if s.d == sqldialect.MySQL { // it does not enter an index by a pair
		after, past = "(def > ? OR def = ? AND ver > ?)", []any{"", "", 0}
	}
	query := s.q("SELECT def, ver FROM saga_run WHERE owner IS NULL AND " + after + " ORDER BY def, ver LIMIT 1")
	for {
		var ref saga.Ref
		more, err := one(ctx, s.pool, query, past, &ref.Def, &ref.Ver)
		if err != nil {
			return nil, err
		}
		if !more {
			break
		}
		note(ref)
		past[0], past[len(past)-2], past[len(past)-1] = ref.Def, ref.Def, ref.Ver
	}
	err = each(ctx, s.pool, "SELECT DISTINCT def, ver FROM saga_run WHERE owner IS NOT NULL", nil, func(r Rows) error {
		var ref saga.Ref
		err := r.Scan(&ref.Def, &ref.Ver)
		note(ref)
		return err
	})
	return all, err
}

// plainState reports whether st may stand in a statement: letters and dashes.
func plainState(st saga.State) bool {
	for _, c := range st {
		if c != '-' && (c < 'a' || c > 'z') {
			return false
		}
	}
	return st != ""
}

// History reports the log after number after.
func (s *Store) History(ctx context.Context, id string, after int64, limit int) ([]saga.Entry, error) {
	if names(id) != nil {
		return nil, saga.ErrNotFound
	}
	var out []saga.Entry
	err := each(ctx, s.pool, s.q("SELECT "+entryColumns+" FROM saga_log WHERE id = ? AND seq > ? ORDER BY seq LIMIT ?"),
		[]any{id, after, max(limit, 0)}, func(r Rows) error {
			e, err := scanEntry(r)
			out = append(out, e)
			return err
		})
	if err == nil && len(out) == 0 {
		if e := s.absent(ctx, s.pool, id); e != saga.ErrTerminal {
			err = e // there is no such instance, or it could not be found out
		}
	}
	return out, wrap("history", err)
}

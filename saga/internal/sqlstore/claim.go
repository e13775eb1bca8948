package sqlstore

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/backstay-go/backstay/internal/sqldialect"
	"github.com/backstay-go/backstay/saga"
)

// maxClaim bounds the instances that one claim takes, so that its transaction
// stays short whatever the caller asks for.
const maxClaim = 1000

// An orphan is a run that this store made or took for a node in a transaction
// whose outcome it never heard. If that was committed, the run belongs to a
// node that lives and does not know of it, so nobody would take it.
type orphan struct {
	id, node string
	epoch    int64
	until    time.Time // when to stop looking for it
}

// orphanTime is how long a transaction may be on its way after its connection
// was lost, before it is taken for rolled back. A server that finishes a
// statement for a client that is gone commits at the end of it.
const orphanTime = time.Minute

// Claim hands out due instances.
func (s *Store) Claim(ctx context.Context, want saga.Claim) ([]saga.Claimed, error) {
	if err := names(want.Node, want.ID); err != nil {
		return nil, err
	}
	if want.ID == "" && (want.Max <= 0 || len(want.Refs) == 0 || want.Node == "") {
		return nil, nil
	}
	if err := s.adopt(ctx); err != nil {
		return nil, wrap("claim", err)
	}
	var out []saga.Claimed
	err := s.engineTx(ctx, func(tx Tx) (err error) {
		out, err = s.claim(ctx, tx, want)
		return err
	})
	if err != nil {
		if want.ID == "" && lostCommit(err) {
			for i := range out {
				s.orphan(out[i].ID, want.Node, out[i].Epoch)
			}
		}
		return nil, wrap("claim", err)
	}
	return out, nil
}

// lostCommit reports whether a commit may have taken place in spite of err.
func lostCommit(err error) bool {
	var open errCommit
	return errors.As(err, &open)
}

func (s *Store) orphan(id, node string, epoch int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.orphans = append(s.orphans, orphan{id, node, epoch, time.Now().Add(orphanTime)})
}

// adopt gives orphans back, so that anybody can claim them. The epoch tells
// that the lost transaction was committed and that nobody has had the run since.
func (s *Store) adopt(ctx context.Context) error {
	s.mu.Lock()
	list := s.orphans
	s.orphans = nil
	s.mu.Unlock()
	var keep []orphan
	var err error
	for i, o := range list {
		var n int64
		n, err = s.pool.Exec(ctx, s.q("UPDATE saga_run SET owner = NULL, wake_at = "+s.now()+" WHERE id = ? AND owner = ? AND epoch = ?"), o.id, o.node, o.epoch)
		if err != nil {
			keep = append(keep, list[i:]...)
			break
		}
		if n == 0 && time.Now().Before(o.until) {
			keep = append(keep, o)
		}
	}
	s.mu.Lock()
	s.orphans = append(s.orphans, keep...)
	s.mu.Unlock()
	return err
}

func (s *Store) claim(ctx context.Context, tx Tx, want saga.Claim) ([]saga.Claimed, error) {
	// Declaring nodes dead comes first: it is the statement that writes, as
	// SQLite wants it, and a node that renews at this moment is waited for
	// and then left alone, because the condition is checked again.
	if _, err := tx.Exec(ctx, "UPDATE saga_node SET dead = 1 WHERE dead = 0 AND until < "+s.now()); err != nil {
		return nil, err
	}
	if want.Node != "" {
		var n int64
		live, err := one(ctx, tx, s.q("SELECT 1 FROM saga_node WHERE node = ? AND dead = 0"), []any{want.Node}, &n)
		if err != nil {
			return nil, err
		}
		switch {
		case !live && want.ID != "":
			return nil, saga.ErrFenced
		case !live:
			return nil, nil // what a dead node takes would be anybody's at once
		}
	}
	var ids []string
	var err error
	if want.ID != "" {
		ids, err = []string{want.ID}, s.take(ctx, tx, want)
	} else {
		ids, err = s.due(ctx, tx, want)
	}
	if err != nil || len(ids) == 0 {
		return nil, err
	}
	// Read before the change, since the answer tells the state that was found;
	// the rows are locked.
	out, err := s.claimed(ctx, tx, ids)
	if err != nil {
		return nil, err
	}
	set := "epoch = epoch + 1, owner = ?, state = CASE WHEN state IN ('ready', 'waiting') THEN 'running' ELSE state END"
	args := []any{want.Node}
	if want.Node == "" {
		set, args = "epoch = epoch + 1, owner = NULL", nil
	}
	in, list := s.in("id", ids, len(args)+1)
	if _, err := tx.Exec(ctx, s.q("UPDATE saga_run SET "+set+" WHERE ")+in, append(args, list...)...); err != nil {
		return nil, err
	}
	for i := range out {
		out[i].Epoch++
		out[i].Owner = want.Node
	}
	return out, nil
}

// in returns a condition that column is one of ids, with parameters from
// first on.
func (s *Store) in(column string, ids []string, first int) (string, []any) {
	if s.d == sqldialect.Postgres {
		return column + " = ANY(" + s.d.Placeholder(first) + "::text[])", []any{s.texts(ids)}
	}
	args := make([]any, len(ids))
	for i, id := range ids {
		args[i] = id
	}
	return column + " IN " + s.d.List(len(ids), first), args
}

// take locks the one instance that is asked for.
func (s *Store) take(ctx context.Context, tx Tx, want saga.Claim) error {
	query := `SELECT COALESCE(r.owner, ''), (SELECT COUNT(*) FROM saga_node n WHERE n.node = r.owner AND n.dead = 0) FROM saga_run r WHERE r.id = ?`
	if s.d != sqldialect.SQLite {
		query += " FOR UPDATE"
	}
	var owner string
	var live int64
	found, err := one(ctx, tx, s.q(query), []any{want.ID}, &owner, &live)
	switch {
	case err != nil:
		return err
	case !found:
		return s.absent(ctx, tx, want.ID)
	case live > 0 && owner != want.Node:
		return saga.ErrBusy
	}
	return nil
}

// absent tells why an instance has no run.
func (s *Store) absent(ctx context.Context, c Conn, id string) error {
	var n int64
	found, err := one(ctx, c, s.q("SELECT 1 FROM saga_instance WHERE id = ?"), []any{id}, &n)
	switch {
	case err != nil:
		return err
	case !found:
		return saga.ErrNotFound
	}
	return saga.ErrTerminal
}

// due locks up to want.Max due runs and returns their ids. Candidates are four
// times as many, oldest first, so that priority has a choice and claimers at
// the same time find others; only what is taken is locked.
func (s *Store) due(ctx context.Context, tx Tx, want saga.Claim) ([]string, error) {
	limit := min(want.Max, maxClaim)
	query, args := s.candidates(want, 4*limit)
	skip := " FOR UPDATE OF r SKIP LOCKED"
	switch s.d {
	case sqldialect.MySQL:
		// No "OF" in MariaDB, and a join would lock the nodes too: take the
		// candidates first and lock them by key.
		return s.dueMySQL(ctx, tx, query, args, limit)
	case sqldialect.SQLite:
		skip = "" // the one writer is this one
	}
	query = "SELECT r.id FROM saga_run r JOIN (" + query + ") c ON c.id = r.id WHERE " + takeable + " ORDER BY c.prio DESC, c.wake_at LIMIT ?" + skip
	var ids []string
	err := each(ctx, tx, s.q(strings.ReplaceAll(query, "{now}", s.now())), append(args, limit), func(r Rows) error {
		ids = append(ids, "")
		return r.Scan(&ids[len(ids)-1])
	})
	return ids, err
}

// takeable is checked again once a row is locked.
const takeable = "((r.owner IS NULL AND r.wake_at <= {now}) OR r.owner IN (SELECT n.node FROM saga_node n WHERE n.dead = 1))"

// candidates selects id, prio and wake_at of due runs of the wanted
// definitions: for each definition the oldest, and what dead nodes have left.
func (s *Store) candidates(want saga.Claim, limit int) (string, []any) {
	var parts []string
	var args []any
	for _, ref := range want.Refs {
		parts = append(parts, `SELECT * FROM (SELECT id, prio, wake_at FROM saga_run
WHERE owner IS NULL AND def = ? AND ver = ? AND wake_at <= {now} ORDER BY wake_at LIMIT ?) AS d`+letters(len(parts)))
		args = append(args, ref.Def, ref.Ver, limit)
	}
	var of []string
	var refs []any
	for _, ref := range want.Refs {
		of = append(of, "(o.def = ? AND o.ver = ?)")
		refs = append(refs, ref.Def, ref.Ver)
	}
	parts = append(parts, `SELECT * FROM (SELECT o.id, o.prio, o.wake_at FROM saga_node n JOIN saga_run o ON o.owner = n.node
WHERE n.dead = 1 AND (`+strings.Join(of, " OR ")+`) LIMIT ?) AS dead`)
	args = append(append(args, refs...), limit)
	query := "SELECT id, prio, wake_at FROM (" + strings.Join(parts, " UNION ALL ") + ") AS x ORDER BY wake_at LIMIT ?"
	return query, append(args, limit)
}

// letters names derived tables.
func letters(n int) string { return strings.Repeat("x", n+1) }

func (s *Store) dueMySQL(ctx context.Context, tx Tx, query string, args []any, limit int) ([]string, error) {
	type candidate struct {
		id         string
		prio, wake int64
	}
	var all []candidate
	err := each(ctx, tx, strings.ReplaceAll(query, "{now}", s.now()), args, func(r Rows) error {
		var c candidate
		err := r.Scan(&c.id, &c.prio, &c.wake)
		all = append(all, c)
		return err
	})
	if err != nil || len(all) == 0 {
		return nil, err
	}
	slices.SortStableFunc(all, func(a, b candidate) int { return int(b.prio - a.prio) })
	// Lock in portions: at most what is still wanted, so that no more is
	// locked than taken.
	var ids []string
	for len(all) > 0 && len(ids) < limit {
		n := min(limit-len(ids), len(all))
		part := make([]string, n)
		for i := range part {
			part[i] = all[i].id
		}
		all = all[n:]
		in, list := s.in("r.id", part, 1)
		err := each(ctx, tx, strings.ReplaceAll("SELECT r.id FROM saga_run r WHERE "+in+" AND "+takeable+" FOR UPDATE SKIP LOCKED", "{now}", s.now()), list, func(r Rows) error {
			ids = append(ids, "")
			return r.Scan(&ids[len(ids)-1])
		})
		if err != nil {
			return nil, err
		}
	}
	return ids, nil
}

// claimed reads what an owner needs to go on, within the claim's transaction.
func (s *Store) claimed(ctx context.Context, tx Tx, ids []string) ([]saga.Claimed, error) {
	out := make([]saga.Claimed, 0, len(ids))
	index := make(map[string]int, len(ids))
	in, list := s.in("i.id", ids, 1)
	query := "SELECT " + instanceColumns + ", r.epoch, r.mail, i.input, i.codec, " + s.now() +
		" FROM saga_instance i JOIN saga_run r ON r.id = i.id WHERE "
	err := each(ctx, tx, query+in, list, func(r Rows) error {
		var c saga.Claimed
		var now int64
		if err := scanInstance(r, &c.Instance, &c.Epoch, &c.Mail, &c.Input, &c.Codec, &now); err != nil {
			return err
		}
		c.Now = at(now)
		index[c.ID] = len(out)
		out = append(out, c)
		return nil
	})
	if err != nil {
		return nil, err
	}
	in, list = s.in("id", ids, 1)
	err = each(ctx, tx, "SELECT id, "+entryColumns+" FROM saga_log WHERE "+in+" ORDER BY id, seq", list, func(r Rows) error {
		var id string
		e, err := scanEntry(r, &id)
		if k, ok := index[id]; ok && err == nil {
			out[k].Log = append(out[k].Log, e)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	err = each(ctx, tx, "SELECT id, kind, name, mail_id, data, actor FROM saga_mail WHERE consumed IS NULL AND "+in+" ORDER BY id, n", list, func(r Rows) error {
		m, err := scanMail(r)
		if k, ok := index[m.ID]; ok && err == nil {
			out[k].Inbox = append(out[k].Inbox, m)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	// In the order in which they were chosen.
	slices.SortStableFunc(out, func(a, b saga.Claimed) int { return slices.Index(ids, a.ID) - slices.Index(ids, b.ID) })
	return out, nil
}

package sqlstore

import (
	"context"
	"errors"
	"fmt"

	"github.com/backstay-go/backstay/internal/sqldialect"
	"github.com/backstay-go/backstay/saga"
)

// Start makes new instances in a transaction of the store's own.
func (s *Store) Start(ctx context.Context, batch []saga.NewInstance) ([]saga.Started, error) {
	var out []saga.Started
	var err error
	if s.d == sqldialect.Postgres {
		// One statement is its own transaction; what it did not make, a
		// second one looks up.
		err = s.engine(ctx, func(c EngineConn) error {
			out, err = s.startIn(ctx, c, batch)
			return err
		})
	} else {
		err = s.engineTx(ctx, func(tx Tx) error {
			out, err = s.startIn(ctx, tx, batch)
			return err
		})
	}
	if err != nil {
		if lostCommit(err) || unknown(ctx, err) {
			for i := range batch {
				if batch[i].Node != "" {
					s.orphan(batch[i].ID, batch[i].Node, 1)
				}
			}
		}
		return nil, wrap("start", err)
	}
	s.hintStarted(out, false)
	return out, nil
}

// StartIn makes new instances in the caller's transaction, and leaves it
// usable when a key exists. The hint goes ahead of the commit, and not within
// the transaction: a NOTIFY there would have all commits of the cluster queue
// for one lock.
func (s *Store) StartIn(ctx context.Context, c Conn, batch []saga.NewInstance) ([]saga.Started, error) {
	out, err := s.startIn(ctx, c, batch)
	if err == nil {
		s.hintStarted(out, true)
	}
	return out, err
}

func (s *Store) startIn(ctx context.Context, c Conn, batch []saga.NewInstance) ([]saga.Started, error) {
	out := make([]saga.Started, len(batch))
	for i := range batch {
		n := &batch[i]
		if err := errors.Join(names(n.ID, n.Ref.Def, n.Tenant, n.Key, n.Hash, n.Codec, n.Node), entries(n.Log)); err != nil {
			return nil, err
		}
		if n.ID == "" {
			return nil, errors.New("saga store: start without an id")
		}
	}
	if len(batch) == 0 {
		return out, nil
	}
	if s.d == sqldialect.Postgres && len(batch) == 1 && plainStart(&batch[0]) {
		var err error
		if out[0], err = s.startAlone(ctx, c, &batch[0]); err != nil {
			return nil, err
		}
	} else if s.d == sqldialect.Postgres {
		if err := s.startPG(ctx, c, batch, out); err != nil {
			return nil, err
		}
	} else {
		for i := range batch {
			st, err := s.startOne(ctx, c, &batch[i])
			if err != nil {
				return nil, err
			}
			out[i] = st
		}
	}
	for i := range out {
		if out[i].ID != "" {
			out[i].Hash = batch[i].Hash
			continue
		}
		st, err := s.existing(ctx, c, &batch[i])
		if err != nil {
			return nil, err
		}
		out[i] = st
	}
	return out, nil
}

// startOne makes one instance. An empty answer says that the key exists.
func (s *Store) startOne(ctx context.Context, c Conn, n *saga.NewInstance) (saga.Started, error) {
	now := s.now()
	var deadline any
	limit := "?"
	if n.Deadline > 0 {
		deadline, limit = micros(n.Deadline), now+" + ?"
	}
	insert := `INSERT INTO saga_instance (id, def, ver, tenant, business_key, input_hash, codec, input, prio, created_at, deadline_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ` + now + `, ` + limit + `)`
	if s.d != sqldialect.MySQL {
		insert += " ON CONFLICT DO NOTHING"
	}
	k, err := c.Exec(ctx, s.q(insert), n.ID, n.Ref.Def, n.Ref.Ver, n.Tenant, n.Key, n.Hash, n.Codec, blob(n.Input), n.Priority, deadline)
	switch {
	case err != nil && s.d == sqldialect.MySQL && sqldialect.Classify(err) == sqldialect.Duplicate:
		return saga.Started{}, nil
	case err != nil:
		return saga.Started{}, err
	case k == 0:
		return saga.Started{}, nil
	}
	st := saga.Started{ID: n.ID}
	var us, live int64
	if _, err := one(ctx, c, s.q("SELECT "+now+", (SELECT COUNT(*) FROM saga_node WHERE node = ? AND dead = 0)"), []any{n.Node}, &us, &live); err != nil {
		return saga.Started{}, err
	}
	st.Now, st.Owned = at(us), n.Node != "" && live > 0
	epoch, owner, state := int64(0), any(nil), saga.Ready
	if st.Owned {
		epoch, owner, state = 1, n.Node, saga.Running
	}
	_, err = c.Exec(ctx, s.q(`INSERT INTO saga_run (id, def, ver, prio, epoch, owner, wake_at, seq, state, step, pivot, mail, seen)
VALUES (?, ?, ?, ?, ?, ?, `+now+`, ?, ?, '', 0, 0, 0)`), n.ID, n.Ref.Def, n.Ref.Ver, n.Priority, epoch, owner, lastSeq(0, n.Log), string(state))
	if err != nil {
		return saga.Started{}, err
	}
	return st, s.insertLog(ctx, c, n.ID, epoch, n.Log)
}

// existing finds the instance that kept n from being made.
func (s *Store) existing(ctx context.Context, c Conn, n *saga.NewInstance) (saga.Started, error) {
	query := "SELECT id, input_hash, " + s.now() + " FROM saga_instance WHERE tenant = ? AND def = ? AND business_key = ?"
	if s.d == sqldialect.MySQL {
		query += " LOCK IN SHARE MODE" // a snapshot may be older than the winner
	}
	st := saga.Started{Existing: true}
	var us int64
	found, err := one(ctx, c, s.q(query), []any{n.Tenant, n.Ref.Def, n.Key}, &st.ID, &st.Hash, &us)
	if err != nil {
		return saga.Started{}, err
	}
	if !found {
		// Erased between the two statements, or invisible to the caller's
		// snapshot, or the id is another key's: the caller starts again.
		return saga.Started{}, fmt.Errorf("saga store: start of %q: %w", n.Key, saga.ErrRolledBack)
	}
	st.Now = at(us)
	return st, nil
}

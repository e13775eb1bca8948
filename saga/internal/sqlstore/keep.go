package sqlstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/backstay-go/backstay/internal/sqldialect"
	"github.com/backstay-go/backstay/saga"
)

// Register keeps the shape of a definition's version.
func (s *Store) Register(ctx context.Context, def saga.Ref, hash string, shape []byte) error {
	if err := names(def.Def, hash); err != nil {
		return err
	}
	insert := "INSERT INTO saga_def (def, ver, hash, shape, at) VALUES (?, ?, ?, ?, " + s.now() + ")"
	if s.d != sqldialect.MySQL {
		insert += " ON CONFLICT DO NOTHING"
	}
	for attempt := 1; ; attempt++ {
		_, err := s.pool.Exec(ctx, s.q(insert), def.Def, def.Ver, hash, blob(shape))
		if err == nil || sqldialect.Classify(err) == sqldialect.Duplicate {
			break
		}
		if attempt == attempts || !sqldialect.Classify(err).Retry() || !pause(ctx, attempt) {
			return wrap("register", err)
		}
	}
	var have string
	found, err := one(ctx, s.pool, s.q("SELECT hash FROM saga_def WHERE def = ? AND ver = ?"), []any{def.Def, def.Ver}, &have)
	switch {
	case err != nil:
		return wrap("register", err)
	case !found:
		return errors.New("saga store: register: the shape was deleted meanwhile")
	case have != hash:
		return fmt.Errorf("%w: %s %d", saga.ErrShape, def.Def, def.Ver)
	}
	return nil
}

// Retain deletes at most limit instances that ended longer than age ago, and
// the dead nodes that nothing refers to any more.
func (s *Store) Retain(ctx context.Context, age time.Duration, limit int) (int, error) {
	if limit <= 0 {
		return 0, nil
	}
	limit = min(limit, maxClaim)
	var ids []string
	err := s.engineTx(ctx, func(tx Tx) error {
		ids = nil
		// First a write, for SQLite.
		_, err := tx.Exec(ctx, s.q("DELETE FROM saga_node WHERE dead = 1 AND until < "+s.now()+
			" - ? AND NOT EXISTS (SELECT 1 FROM saga_run r WHERE r.owner = saga_node.node)"), nodeMemory)
		if err != nil {
			return err
		}
		query := "SELECT id FROM saga_instance WHERE ended_at < " + s.now() + " - ? ORDER BY ended_at LIMIT ?"
		if s.d != sqldialect.SQLite {
			query += " FOR UPDATE SKIP LOCKED"
		}
		err = each(ctx, tx, s.q(query), []any{micros(age), limit}, func(r Rows) error {
			ids = append(ids, "")
			return r.Scan(&ids[len(ids)-1])
		})
		if err != nil || len(ids) == 0 {
			return err
		}
		return s.delete(ctx, tx, ids)
	})
	if err != nil {
		return 0, wrap("retain", err)
	}
	return len(ids), nil
}

// Erase deletes the finished instance of a business key.
func (s *Store) Erase(ctx context.Context, tenant, def, key string) error {
	if names(tenant, def, key) != nil {
		return saga.ErrNotFound
	}
	return wrap("erase", s.tx(ctx, func(tx Tx) error {
		const where = " WHERE tenant = ? AND def = ? AND business_key = ?"
		args := []any{tenant, def, key}
		// A write that changes nothing, to have the row locked before it is
		// read, in every dialect.
		if _, err := tx.Exec(ctx, s.q("UPDATE saga_instance SET ver = ver"+where), args...); err != nil {
			return err
		}
		var id string
		var ended int64
		found, err := one(ctx, tx, s.q("SELECT id, COALESCE(ended_at, 0) FROM saga_instance"+where), args, &id, &ended)
		switch {
		case err != nil:
			return err
		case !found:
			return saga.ErrNotFound
		case ended == 0:
			return saga.ErrBusy
		}
		return s.delete(ctx, tx, []string{id})
	}))
}

// delete removes ended instances with all that belongs to them, in tx.
func (s *Store) delete(ctx context.Context, tx Tx, ids []string) error {
	for _, id := range ids {
		// "/" is followed by "0": the keys that begin with id and a slash
		// are a range of the primary key.
		if _, err := tx.Exec(ctx, s.q("DELETE FROM saga_guard WHERE guard_key >= ? AND guard_key < ?"), id+"/", id+"0"); err != nil {
			return err
		}
	}
	for _, table := range []string{"saga_log", "saga_mail", "saga_lock", "saga_instance"} {
		in, args := s.in("id", ids, 1)
		if _, err := tx.Exec(ctx, "DELETE FROM "+table+" WHERE "+in, args...); err != nil {
			return err
		}
	}
	return nil
}

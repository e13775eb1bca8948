package sqlstore

import (
	"context"
	"errors"

	"github.com/backstay-go/backstay/internal/sqldialect"
	"github.com/backstay-go/backstay/saga"
)

// errSeen ends a delivery whose mail had come before: everything that it
// changed is rolled back.
var errSeen = errors.New("seen")

// Deliver keeps mail for a live instance.
func (s *Store) Deliver(ctx context.Context, m saga.Mail) (saga.Delivered, error) {
	if err := names(m.ID, string(m.Kind), m.Name, m.Mail, m.Actor); err != nil {
		return saga.Delivered{}, err
	}
	var d saga.Delivered
	err := s.tx(ctx, func(tx Tx) error {
		d = saga.Delivered{}
		// First the run, and by a write: that locks it, so that no
		// checkpoint can release the run without seeing the new count.
		n, err := tx.Exec(ctx, s.q("UPDATE saga_run SET mail = mail + 1, wake_at = CASE WHEN state IN ('parked-fwd', 'parked-undo') OR wake_at < "+
			s.now()+" THEN wake_at ELSE "+s.now()+" END WHERE id = ?"), m.ID)
		if err != nil {
			return err
		}
		if n == 0 {
			in, err := s.instance(ctx, tx, "deliver", "WHERE i.id = ?", m.ID)
			if err != nil {
				return err
			}
			d.State, d.Pivot = in.State, in.Pivot
			return saga.ErrTerminal
		}
		var mail, pivot int64
		var state string
		if _, err := one(ctx, tx, s.q("SELECT mail, state, pivot FROM saga_run WHERE id = ?"), []any{m.ID}, &mail, &state, &pivot); err != nil {
			return err
		}
		d.State, d.Pivot = saga.State(state), pivot != 0
		insert := "INSERT INTO saga_mail (id, kind, name, mail_id, n, actor, data, consumed, at) VALUES (?, ?, ?, ?, ?, ?, ?, NULL, " + s.now() + ")"
		if s.d != sqldialect.MySQL {
			insert += " ON CONFLICT DO NOTHING"
		}
		n, err = tx.Exec(ctx, s.q(insert), m.ID, string(m.Kind), m.Name, m.Mail, mail, m.Actor, blob(m.Data))
		if s.d == sqldialect.MySQL && sqldialect.Classify(err) == sqldialect.Duplicate {
			return errSeen
		}
		if err == nil && n == 0 {
			return errSeen
		}
		return err
	})
	if errors.Is(err, errSeen) {
		d.Seen, err = true, nil
	} else if err == nil {
		s.hint(saga.Hint{Mail: m.ID})
	}
	return d, wrap("deliver", err)
}

// Mail reports the mail that no checkpoint has consumed.
func (s *Store) Mail(ctx context.Context, id string) ([]saga.Mail, int64, error) {
	if names(id) != nil {
		return nil, 0, saga.ErrNotFound
	}
	var out []saga.Mail
	var count int64
	found := false
	err := each(ctx, s.pool, s.q(`SELECT r.mail, COALESCE(m.kind, ''), COALESCE(m.name, ''), COALESCE(m.mail_id, ''), m.data, COALESCE(m.actor, ''), m.n IS NOT NULL
FROM saga_run r LEFT JOIN saga_mail m ON m.id = r.id AND m.consumed IS NULL WHERE r.id = ? ORDER BY m.n`), []any{id}, func(r Rows) error {
		found = true
		m := saga.Mail{ID: id}
		var kind string
		var some bool
		if err := r.Scan(&count, &kind, &m.Name, &m.Mail, &m.Data, &m.Actor, &some); err != nil {
			return err
		}
		if some {
			m.Kind = saga.MailKind(kind)
			out = append(out, m)
		}
		return nil
	})
	if err == nil && !found {
		if err = s.absent(ctx, s.pool, id); err == saga.ErrTerminal {
			err = nil // what is left over nobody will read
		}
	}
	return out, count, wrap("mail", err)
}

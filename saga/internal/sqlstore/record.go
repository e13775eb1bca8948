package sqlstore

import (
	"context"
	"strings"

	"github.com/backstay-go/backstay/internal/sqldialect"
	"github.com/backstay-go/backstay/saga"
)

// record writes one checkpoint through c, in a transaction, and returns the
// run's mail counter. ErrFenced says that nothing was written by this call;
// the caller then asks [Store.repeated].
func (s *Store) record(ctx context.Context, c Conn, cp *saga.Checkpoint) (mail int64, err error) {
	if mail, err = s.fenceAndMove(ctx, c, cp); err != nil {
		return 0, err
	}
	if err := s.insertLog(ctx, c, cp.ID, cp.Epoch, cp.Log); err != nil {
		return 0, err
	}
	for _, m := range cp.Consume {
		_, err := c.Exec(ctx, s.q("UPDATE saga_mail SET consumed = ? WHERE id = ? AND kind = ? AND name = ? AND mail_id = ? AND consumed IS NULL"),
			lastSeq(cp.Seq, cp.Log), cp.ID, string(m.Kind), m.Name, m.Mail)
		if err != nil {
			return 0, err
		}
	}
	if !cp.State.Terminal() {
		return mail, nil
	}
	_, err = c.Exec(ctx, s.q("UPDATE saga_instance SET state = ?, step = ?, pivot = ?, ended_at = "+s.now()+" WHERE id = ?"),
		string(cp.State), cp.Step, bit(cp.Pivot), cp.ID)
	if err != nil {
		return 0, err
	}
	_, err = c.Exec(ctx, s.q("DELETE FROM saga_lock WHERE id = ?"), cp.ID)
	return mail, err
}

// fenceAndMove changes or deletes the run, if its epoch and number are the
// checkpoint's. It is the first statement that touches the run.
func (s *Store) fenceAndMove(ctx context.Context, c Conn, cp *saga.Checkpoint) (mail int64, err error) {
	const fence = " WHERE id = ? AND epoch = ? AND seq = ?"
	stmt, args := "DELETE FROM saga_run", []any{}
	if w := wake(cp); w != wakeFinal {
		stmt = "UPDATE saga_run SET seq = ?, state = ?, step = ?, pivot = ?, seen = CASE WHEN seen < ? THEN ? ELSE seen END"
		args = append(args, lastSeq(cp.Seq, cp.Log), string(cp.State), cp.Step, bit(cp.Pivot), cp.Seen, cp.Seen)
		switch w {
		case wakeKeep:
		case wakeParked:
			stmt += ", owner = NULL, wake_at = 9223372036854775807"
		case wakeForever:
			stmt += ", owner = NULL, wake_at = CASE WHEN mail > ? THEN " + s.now() + " ELSE 9223372036854775807 END"
			args = append(args, cp.Seen)
		default:
			stmt += ", owner = NULL, wake_at = " + s.now() + " + CASE WHEN mail > ? THEN 0 ELSE ? END"
			args = append(args, cp.Seen, w)
		}
	}
	args = append(args, cp.ID, cp.Epoch, cp.Seq)
	if s.d != sqldialect.MySQL {
		found, err := one(ctx, c, s.q(stmt+fence+" RETURNING mail"), args, &mail)
		if err == nil && !found {
			err = saga.ErrFenced
		}
		return mail, err
	}
	// MySQL counts the rows that changed, not those that were found, and has
	// no RETURNING: look first, with a lock.
	found, err := one(ctx, c, "SELECT mail FROM saga_run"+fence+" FOR UPDATE", []any{cp.ID, cp.Epoch, cp.Seq}, &mail)
	if err != nil {
		return 0, err
	}
	if !found {
		return 0, saga.ErrFenced
	}
	_, err = c.Exec(ctx, stmt+fence, args...)
	return mail, err
}

// insertLog appends entries; the caller holds the run's lock.
func (s *Store) insertLog(ctx context.Context, c Conn, id string, epoch int64, log []saga.Entry) error {
	if len(log) == 0 {
		return nil
	}
	var b strings.Builder
	b.WriteString("INSERT INTO saga_log (id, seq, epoch, event, step, op, verb, attempt, data, note, actor, delay, next, at) VALUES ")
	args := make([]any, 0, 13*len(log))
	for i := range log {
		e := &log[i]
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString("(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, " + s.now() + ")")
		args = append(args, id, e.Seq, epoch, string(e.Event), null(e.Step), null(string(e.Op)), null(e.Verb), e.Attempt,
			blob(e.Data), blob(e.Note), null(e.Actor), micros(e.Delay), null(strings.Join(e.Next, "\n")))
	}
	_, err := c.Exec(ctx, s.q(b.String()), args...)
	return err
}

// repeated reports whether a checkpoint that met another epoch or number had
// been written before, by a commit whose answer was lost.
func (s *Store) repeated(ctx context.Context, c Conn, cp *saga.Checkpoint) (mail int64, ok bool, err error) {
	if len(cp.Log) == 0 {
		return 0, false, nil
	}
	lock := ""
	if s.d == sqldialect.MySQL {
		lock = " LOCK IN SHARE MODE"
	}
	var n int64
	ok, err = one(ctx, c, s.q("SELECT 1 FROM saga_log WHERE id = ? AND seq = ? AND epoch = ?"+lock),
		[]any{cp.ID, lastSeq(cp.Seq, cp.Log), cp.Epoch}, &n)
	if err != nil || !ok {
		return 0, false, err
	}
	_, err = one(ctx, c, s.q("SELECT mail FROM saga_run WHERE id = ?"), []any{cp.ID}, &mail)
	return mail, true, err
}

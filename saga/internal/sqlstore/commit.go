package sqlstore

import (
	"context"
	"errors"

	"github.com/backstay-go/backstay/internal/sqldialect"
	"github.com/backstay-go/backstay/saga"
)

// Commit writes checkpoints, all in one commit if it can. One that cannot be
// written is told apart by writing each by itself.
func (s *Store) Commit(ctx context.Context, batch []saga.Checkpoint) ([]saga.Committed, error) {
	out := make([]saga.Committed, len(batch))
	left := make([]int, 0, len(batch))
	for i := range batch {
		if err := checkpoint(&batch[i]); err != nil {
			out[i].Err = err
			continue
		}
		left = append(left, i)
	}
	for len(left) > 0 {
		// Two checkpoints of one instance follow one another; a statement
		// sees only the first.
		now, later := split(batch, left)
		if err := s.commitSome(ctx, batch, now, out); err != nil {
			return nil, wrap("commit", err)
		}
		left = later
	}
	s.hintReleased(batch, out)
	return out, nil
}

func checkpoint(cp *saga.Checkpoint) error {
	for _, m := range cp.Consume {
		if err := names(string(m.Kind), m.Name, m.Mail); err != nil {
			return err
		}
	}
	for i := range cp.Log {
		if cp.Log[i].Seq != cp.Seq+int64(i)+1 {
			return errors.New("saga store: checkpoint with a gap in its log")
		}
	}
	return errors.Join(names(cp.ID, string(cp.State)), text(cp.Step), entries(cp.Log))
}

// split returns the indexes of the first checkpoint of each instance, and the
// others.
func split(batch []saga.Checkpoint, left []int) (now, later []int) {
	if len(left) == 1 {
		return left, nil
	}
	seen := make(map[string]bool, len(left))
	for _, i := range left {
		if id := batch[i].ID; !seen[id] {
			seen[id] = true
			now = append(now, i)
		} else {
			later = append(later, i)
		}
	}
	return now, later
}

// commitSome writes the checkpoints at the indexes, which are of different
// instances. An error says that it is unknown which of them were written.
func (s *Store) commitSome(ctx context.Context, batch []saga.Checkpoint, at []int, out []saga.Committed) error {
	err := s.commitAtOnce(ctx, batch, at, out)
	if err == nil || unknown(ctx, err) {
		return err
	}
	if len(at) == 1 {
		out[at[0]] = saga.Committed{Err: wrap("commit", err)}
		return nil
	}
	for k := range at {
		if err := s.commitSome(ctx, batch, at[k:k+1], out); err != nil {
			return err
		}
	}
	return nil
}

// unknown reports whether err belongs to the batch as a whole and not to a
// record in it.
func unknown(ctx context.Context, err error) bool {
	var open errCommit
	return ctx.Err() != nil || errors.As(err, &open) || sqldialect.Classify(err) == sqldialect.ConnLost ||
		errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// commitAtOnce writes the checkpoints in one commit.
func (s *Store) commitAtOnce(ctx context.Context, batch []saga.Checkpoint, at []int, out []saga.Committed) error {
	if s.d != sqldialect.Postgres {
		return s.engineTx(ctx, func(tx Tx) error {
			for _, i := range at {
				mail, err := s.record(ctx, tx, &batch[i])
				if errors.Is(err, saga.ErrFenced) {
					if out[i], err = s.settle(ctx, tx, &batch[i]); err != nil {
						return err
					}
					continue
				}
				if err != nil {
					return err
				}
				out[i] = saga.Committed{Mail: mail}
			}
			return nil
		})
	}
	return s.engine(ctx, func(c EngineConn) error {
		if len(at) == 1 && plain(&batch[at[0]]) {
			cp := &batch[at[0]]
			mail, ok, err := s.commitOne(ctx, c, cp)
			if err == nil && ok {
				out[at[0]] = saga.Committed{Mail: mail}
			} else if err == nil {
				out[at[0]], err = s.settle(ctx, c, cp)
			}
			return err
		}
		part, index := make([]saga.Checkpoint, len(at)), make(map[string]int, len(at))
		for k, i := range at {
			part[k], index[batch[i].ID] = batch[i], i
			out[i] = saga.Committed{Err: saga.ErrFenced}
		}
		err := s.commitPG(ctx, c, part, func(id string, mail int64) {
			out[index[id]] = saga.Committed{Mail: mail}
		})
		if err != nil {
			return err
		}
		for _, i := range at {
			if out[i].Err != nil {
				if out[i], err = s.settle(ctx, c, &batch[i]); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// settle answers for a checkpoint that the fence stopped: written before, or
// fenced.
func (s *Store) settle(ctx context.Context, c Conn, cp *saga.Checkpoint) (saga.Committed, error) {
	mail, ok, err := s.repeated(ctx, c, cp)
	if err != nil {
		return saga.Committed{}, err
	}
	if !ok {
		return saga.Committed{Err: saga.ErrFenced}, nil
	}
	return saga.Committed{Mail: mail}, nil
}

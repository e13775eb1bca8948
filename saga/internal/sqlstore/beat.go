package sqlstore

import (
	"context"
	"errors"

	"github.com/backstay-go/backstay/internal/sqldialect"
	"github.com/backstay-go/backstay/saga"
)

// Beat makes, renews or ends the lease of a node.
func (s *Store) Beat(ctx context.Context, b saga.Beat) (saga.Pulse, error) {
	if b.Node == "" {
		return saga.Pulse{}, errors.New("saga store: beat without a node")
	}
	if err := names(b.Node); err != nil {
		return saga.Pulse{}, err
	}
	var p saga.Pulse
	beat := func(c Conn) (err error) {
		p = saga.Pulse{}
		if p.Lost, err = s.renew(ctx, c, b); err != nil {
			return err
		}
		var us int64
		return each(ctx, c, s.q("SELECT "+s.now()+", r.id FROM (SELECT 1 AS x) AS one LEFT JOIN saga_run r ON r.owner = ? AND r.mail > r.seen"),
			[]any{b.Node}, func(r Rows) error {
				var id *string
				if err := r.Scan(&us, &id); err != nil {
					return err
				}
				p.Now = at(us)
				if id != nil && !p.Lost {
					p.Mail = append(p.Mail, *id)
				}
				return nil
			})
	}
	var err error
	if s.d == sqldialect.Postgres {
		err = s.engine(ctx, func(c EngineConn) error { return beat(c) })
	} else {
		err = s.engineTx(ctx, func(tx Tx) error { return beat(tx) })
	}
	if err != nil {
		return saga.Pulse{}, wrap("beat", err)
	}
	if b.TTL <= 0 {
		s.hint(saga.Hint{}) // its runs are due for others
	}
	return p, nil
}

// renew writes the lease and reports whether the node is dead. It never brings
// a dead one back: somebody may have taken its runs.
func (s *Store) renew(ctx context.Context, c Conn, b saga.Beat) (lost bool, err error) {
	if b.TTL <= 0 {
		_, err := c.Exec(ctx, s.q("UPDATE saga_node SET dead = 1, until = "+s.now()+" WHERE node = ? AND dead = 0"), b.Node)
		return false, err
	}
	ttl := micros(b.TTL)
	if s.d != sqldialect.MySQL {
		n, err := c.Exec(ctx, s.q("INSERT INTO saga_node (node, until, beats, dead) VALUES (?, "+s.now()+` + ?, 1, 0)
ON CONFLICT (node) DO UPDATE SET until = excluded.until, beats = saga_node.beats + 1 WHERE saga_node.dead = 0`), b.Node, ttl)
		return n == 0, err
	}
	// The count of beats makes the row change, so that MySQL counts it.
	n, err := c.Exec(ctx, "UPDATE saga_node SET until = "+s.now()+" + ?, beats = beats + 1 WHERE node = ? AND dead = 0", ttl, b.Node)
	if err != nil || n > 0 {
		return false, err
	}
	_, err = c.Exec(ctx, "INSERT INTO saga_node (node, until, beats, dead) VALUES (?, "+s.now()+" + ?, 1, 0)", b.Node, ttl)
	if sqldialect.Classify(err) == sqldialect.Duplicate {
		return true, nil
	}
	return false, err
}

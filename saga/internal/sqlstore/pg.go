package sqlstore

import (
	"context"
	"strings"

	"github.com/backstay-go/backstay/saga"
)

// logColumns are the arrays of a batch's log entries.
type logColumns struct {
	id, event, step, op, verb, actor, next []string
	seq, epoch, attempt, delay             []int64
	data, note                             [][]byte
}

func (l *logColumns) add(id string, epoch int64, log []saga.Entry) {
	for i := range log {
		e := &log[i]
		l.id = append(l.id, id)
		l.seq = append(l.seq, e.Seq)
		l.epoch = append(l.epoch, epoch)
		l.event = append(l.event, string(e.Event))
		l.step = append(l.step, e.Step)
		l.op = append(l.op, string(e.Op))
		l.verb = append(l.verb, e.Verb)
		l.attempt = append(l.attempt, int64(e.Attempt))
		l.data = append(l.data, e.Data)
		l.note = append(l.note, e.Note)
		l.actor = append(l.actor, e.Actor)
		l.delay = append(l.delay, micros(e.Delay))
		l.next = append(l.next, strings.Join(e.Next, "\n"))
	}
}

func (s *Store) logArgs(l *logColumns) []any {
	return []any{s.texts(l.id), s.ints(l.seq), s.ints(l.epoch), s.texts(l.event), s.texts(l.step), s.texts(l.op), s.texts(l.verb),
		s.ints(l.attempt), s.blobs(l.data), s.blobs(l.note), s.texts(l.actor), s.ints(l.delay), s.texts(l.next)}
}

// pgLog inserts the log entries of the runs whose ids the query ok finds, with
// the epoch that the expression gives. Its parameters are those of logArgs.
//
// A condition "(id IN (…)) IS TRUE" is answered from a hash table. A join of
// two arrays would be a nested loop, since hash joins are forbidden (Setup):
// with 256 checkpoints 65,536 comparisons.
func pgLog(ok, epoch string, p func() string, now string) string {
	return `INSERT INTO saga_log (id, seq, epoch, event, step, op, verb, attempt, data, note, actor, delay, next, at)
SELECT l.id, l.seq, ` + epoch + `, l.event, NULLIF(l.step, ''), NULLIF(l.op, ''), NULLIF(l.verb, ''), l.attempt, l.data, l.note,
	NULLIF(l.actor, ''), l.delay, NULLIF(l.next, ''), ` + now + `
FROM unnest(` + p() + `::text[], ` + p() + `::bigint[], ` + p() + `::bigint[], ` + p() + `::text[], ` + p() + `::text[], ` + p() + `::text[], ` + p() +
		`::text[], ` + p() + `::integer[], ` + p() + `::bytea[], ` + p() + `::bytea[], ` + p() + `::text[], ` + p() + `::bigint[], ` + p() + `::text[])
	AS l(id, seq, epoch, event, step, op, verb, attempt, data, note, actor, delay, next)
WHERE (l.id IN (` + ok + `)) IS TRUE`
}

// parameters returns a function that counts $1, $2, …
func parameters(s *Store) func() string {
	n := 0
	return func() string { n++; return s.d.Placeholder(n) }
}

// startPG makes instances in one statement and answers for those it made.
func (s *Store) startPG(ctx context.Context, c Conn, batch []saga.NewInstance, out []saga.Started) error {
	var id, def, tenant, key, hash, codec, node []string
	var ver, prio, deadline, seq []int64
	var input [][]byte
	var log logColumns
	index := make(map[string]int, len(batch))
	for i := range batch {
		n := &batch[i]
		if _, ok := index[n.ID]; ok {
			continue // the same start twice: the second one finds the first
		}
		index[n.ID] = i
		id, def, ver = append(id, n.ID), append(def, n.Ref.Def), append(ver, int64(n.Ref.Ver))
		tenant, key, hash = append(tenant, n.Tenant), append(key, n.Key), append(hash, n.Hash)
		codec, input, prio = append(codec, n.Codec), append(input, n.Input), append(prio, int64(n.Priority))
		deadline, node, seq = append(deadline, micros(n.Deadline)), append(node, n.Node), append(seq, lastSeq(0, n.Log))
		log.add(n.ID, 0, n.Log)
	}
	args := append([]any{s.texts(id), s.texts(def), s.ints(ver), s.texts(tenant), s.texts(key), s.texts(hash), s.texts(codec),
		s.blobs(input), s.ints(prio), s.ints(deadline), s.texts(node), s.ints(seq)}, s.logArgs(&log)...)
	return each(ctx, c, s.sql.start, args, func(r Rows) error {
		var st saga.Started
		var now int64
		err := r.Scan(&st.ID, &st.Owned, &now)
		st.Now = at(now)
		out[index[st.ID]] = st
		return err
	})
}

func (s *Store) startText() string {
	p, now := parameters(s), s.now()
	return `WITH n AS MATERIALIZED (
	SELECT * FROM unnest(` + p() + `::text[], ` + p() + `::text[], ` + p() + `::integer[], ` + p() + `::text[], ` + p() + `::text[], ` + p() +
		`::text[], ` + p() + `::text[], ` + p() + `::bytea[], ` + p() + `::integer[], ` + p() + `::bigint[], ` + p() + `::text[], ` + p() + `::bigint[])
	AS n(id, def, ver, tenant, business_key, hash, codec, input, prio, deadline, node, seq)
), i AS (
	INSERT INTO saga_instance (id, def, ver, tenant, business_key, input_hash, codec, input, prio, created_at, deadline_at)
	SELECT id, def, ver, tenant, business_key, hash, codec, input, prio, ` + now + `, CASE WHEN deadline > 0 THEN ` + now + ` + deadline END
	FROM n ON CONFLICT DO NOTHING RETURNING id
), r AS (
	INSERT INTO saga_run (id, def, ver, prio, epoch, owner, wake_at, seq, state, step, pivot, mail, seen)
	SELECT n.id, n.def, n.ver, n.prio, CASE WHEN d.node IS NULL THEN 0 ELSE 1 END, d.node, ` + now + `, n.seq,
		CASE WHEN d.node IS NULL THEN 'ready' ELSE 'running' END, '', 0, 0, 0
	FROM n LEFT JOIN saga_node d ON d.node = n.node AND d.dead = 0 WHERE (n.id IN (SELECT id FROM i)) IS TRUE
	RETURNING id, owner
), l AS (
	` + pgLog("SELECT id FROM r", "CASE WHEN l.id IN (SELECT id FROM r WHERE owner IS NOT NULL) THEN 1 ELSE 0 END", p, now) + `
)
SELECT id, owner IS NOT NULL, ` + now + ` FROM r`
}

// What a checkpoint does with the owner and the wake-up, as pgCommit has it.
const (
	wakeKeep    = -1 // the node keeps the run
	wakeForever = -2 // released until mail comes
	wakeParked  = -3 // released until an operator comes
	wakeFinal   = -4 // the run ends
)

func wake(cp *saga.Checkpoint) int64 {
	switch {
	case cp.State.Terminal():
		return wakeFinal
	case !cp.Release:
		return wakeKeep
	case cp.State.Parked():
		return wakeParked
	case cp.Wake < 0:
		return wakeForever
	}
	return micros(cp.Wake)
}

// commitPG writes checkpoints of different instances in one statement. done
// hears of each that was written; the others had another epoch or number.
func (s *Store) commitPG(ctx context.Context, c Conn, batch []saga.Checkpoint, done func(id string, mail int64)) error {
	n := len(batch)
	id, state, step := make([]string, n), make([]string, n), make([]string, n)
	num := make([]int64, 6*n)
	epoch, seq, last, pivot, seen, wakes := num[:n], num[n:2*n], num[2*n:3*n], num[3*n:4*n], num[4*n:5*n], num[5*n:]
	var log logColumns
	var mid, mkind, mname, mmail []string
	var mlast []int64
	var final, going bool
	for i := range batch {
		cp := &batch[i]
		id[i], state[i], step[i] = cp.ID, string(cp.State), cp.Step
		epoch[i], seq[i], last[i] = cp.Epoch, cp.Seq, lastSeq(cp.Seq, cp.Log)
		pivot[i], seen[i], wakes[i] = bit(cp.Pivot), cp.Seen, wake(cp)
		if wakes[i] == wakeFinal {
			final = true
		} else {
			going = true
		}
		log.add(cp.ID, cp.Epoch, cp.Log)
		for _, m := range cp.Consume {
			mid, mkind, mname, mmail = append(mid, cp.ID), append(mkind, string(m.Kind)), append(mname, m.Name), append(mmail, m.Mail)
			mlast = append(mlast, last[i])
		}
	}
	args := []any{s.texts(id), s.ints(epoch), s.ints(seq), s.ints(last), s.texts(state), s.texts(step), s.ints(pivot), s.ints(seen), s.ints(wakes)}
	if len(log.id) > 0 {
		args = append(args, s.logArgs(&log)...)
	}
	if len(mid) > 0 {
		args = append(args, s.texts(mid), s.texts(mkind), s.texts(mname), s.texts(mmail), s.ints(mlast))
	}
	return each(ctx, c, s.sql.commit[commitForm(going, final, len(log.id) > 0, len(mid) > 0)], args, func(r Rows) error {
		var id string
		var mail int64
		if err := r.Scan(&id, &mail); err != nil {
			return err
		}
		done(id, mail)
		return nil
	})
}

// commitText builds the statement. The parts that a batch has no use for are
// left out: each costs the executor a few microseconds, and there are no more
// than twelve forms.
//
// The update or delete of saga_run is the fence: it locks the row, and every
// other part joins with the rows that it found.
func (s *Store) commitText(going, final, log, mail bool) string {
	p, now := parameters(s), s.now()
	var b strings.Builder
	b.WriteString(`WITH c AS MATERIALIZED (
	SELECT * FROM unnest(` + p() + `::text[], ` + p() + `::bigint[], ` + p() + `::bigint[], ` + p() + `::bigint[], ` + p() + `::text[], ` + p() +
		`::text[], ` + p() + `::smallint[], ` + p() + `::bigint[], ` + p() + `::bigint[])
	AS c(id, epoch, seq, last, state, step, pivot, seen, wake)
)`)
	var ok []string
	if going {
		ok = append(ok, "SELECT id, mail FROM up")
		b.WriteString(`, up AS (
	UPDATE saga_run r SET seq = c.last, state = c.state, step = c.step, pivot = c.pivot, seen = GREATEST(r.seen, c.seen),
		owner = CASE WHEN c.wake = -1 THEN r.owner END,
		wake_at = CASE WHEN c.wake = -1 THEN r.wake_at WHEN c.wake = -3 THEN 9223372036854775807
			WHEN r.mail > c.seen THEN ` + now + ` WHEN c.wake = -2 THEN 9223372036854775807 ELSE ` + now + ` + c.wake END
	FROM c WHERE c.wake <> -4 AND r.id = c.id AND r.epoch = c.epoch AND r.seq = c.seq
	RETURNING r.id, r.mail
)`)
	}
	if final {
		ok = append(ok, "SELECT id, mail FROM fin")
		b.WriteString(`, fin AS (
	DELETE FROM saga_run r USING c WHERE c.wake = -4 AND r.id = c.id AND r.epoch = c.epoch AND r.seq = c.seq
	RETURNING r.id, r.mail, c.state, c.step, c.pivot
), done AS (
	UPDATE saga_instance i SET state = f.state, step = f.step, pivot = f.pivot, ended_at = ` + now + ` FROM fin f WHERE i.id = f.id
), unlock AS (
	DELETE FROM saga_lock k USING fin f WHERE k.id = f.id
)`)
	}
	b.WriteString(`, ok AS (` + strings.Join(ok, " UNION ALL ") + `)`)
	if log {
		b.WriteString(`, log AS (` + pgLog("SELECT id FROM ok", "l.epoch", p, now) + `)`)
	}
	if mail {
		b.WriteString(`, used AS (
	UPDATE saga_mail m SET consumed = u.last
	FROM unnest(` + p() + `::text[], ` + p() + `::text[], ` + p() + `::text[], ` + p() + `::text[], ` + p() + `::bigint[]) AS u(id, kind, name, mail_id, last)
	WHERE m.id = u.id AND m.kind = u.kind AND m.name = u.name AND m.mail_id = u.mail_id AND m.consumed IS NULL
		AND (u.id IN (SELECT id FROM ok)) IS TRUE
)`)
	}
	b.WriteString(" SELECT id, mail FROM ok")
	return b.String()
}

// lastSeq is the number of the last entry of log, or seq if there is none.
func lastSeq(seq int64, log []saga.Entry) int64 {
	if len(log) == 0 {
		return seq
	}
	return log[len(log)-1].Seq
}

package sqlstore

import (
	"context"
	"strings"

	"github.com/backstay-go/backstay/saga"
)

// When an instance is alone there is no batch to share the cost with, and the
// arrays and tables of the batch's statement are most of it. So the common
// checkpoint, with one entry, no mail and the owner kept or the saga ended,
// has a statement of its own, and so has a single start.

// texts are statements that are put together once.
type texts struct {
	move, end, startAlone, start string
	commit                       [16]string // see commitForm
}

func (s *Store) prepareTexts() texts {
	now := func(query string) string { return strings.ReplaceAll(query, "{now}", s.now()) }
	t := texts{move: now(moveOne), end: now(endOne), startAlone: now(startOnePG), start: s.startText()}
	for i := range t.commit {
		t.commit[i] = s.commitText(i&1 != 0, i&2 != 0, i&4 != 0, i&8 != 0)
	}
	return t
}

// commitForm is where texts.commit keeps the form with these parts.
func commitForm(going, final, log, mail bool) int {
	return int(bit(going) | bit(final)<<1 | bit(log)<<2 | bit(mail)<<3)
}

// plain reports whether commitOne can write cp.
func plain(cp *saga.Checkpoint) bool {
	return len(cp.Log) == 1 && len(cp.Consume) == 0 && (!cp.Release || cp.State.Terminal())
}

const logOne = `INSERT INTO saga_log (id, seq, epoch, event, step, op, verb, attempt, data, note, actor, delay, next, at)
SELECT $1, $4, $2, $9::text, $10::text, $11::text, $12::text, $13::integer, $14::bytea, $15::bytea, $16::text, $17::bigint, $18::text, {now} FROM r`

const moveOne = `WITH r AS (
	UPDATE saga_run SET seq = $4::bigint, state = $5::text, step = $6::text, pivot = $7::smallint, seen = GREATEST(seen, $8::bigint)
	WHERE id = $1::text AND epoch = $2::bigint AND seq = $3::bigint RETURNING mail
), l AS (
	` + logOne + `
) SELECT mail FROM r`

const endOne = `WITH r AS (
	DELETE FROM saga_run WHERE id = $1::text AND epoch = $2::bigint AND seq = $3::bigint AND $8::bigint IS NOT NULL RETURNING mail
), l AS (
	` + logOne + `
), i AS (
	UPDATE saga_instance SET state = $5::text, step = $6::text, pivot = $7::smallint, ended_at = {now} WHERE id = $1 AND EXISTS (SELECT FROM r)
), k AS (
	DELETE FROM saga_lock WHERE id = $1 AND EXISTS (SELECT FROM r)
) SELECT mail FROM r`

// commitOne writes a plain checkpoint and reports whether the fence let it.
func (s *Store) commitOne(ctx context.Context, c Conn, cp *saga.Checkpoint) (mail int64, ok bool, err error) {
	query := s.sql.move
	if cp.State.Terminal() {
		query = s.sql.end
	}
	e := &cp.Log[0]
	ok, err = one(ctx, c, query, []any{cp.ID, cp.Epoch, cp.Seq, e.Seq, string(cp.State), cp.Step,
		bit(cp.Pivot), cp.Seen, string(e.Event), null(e.Step), null(string(e.Op)), null(e.Verb), e.Attempt, blob(e.Data), blob(e.Note),
		null(e.Actor), micros(e.Delay), null(strings.Join(e.Next, "\n"))}, &mail)
	return mail, ok, err
}

const startOnePG = `WITH i AS (
	INSERT INTO saga_instance (id, def, ver, tenant, business_key, input_hash, codec, input, prio, created_at, deadline_at)
	VALUES ($1::text, $2::text, $3::integer, $4::text, $5::text, $6::text, $7::text, $8::bytea, $9::integer, {now},
		CASE WHEN $10::bigint > 0 THEN {now} + $10::bigint END)
	ON CONFLICT DO NOTHING RETURNING id
), r AS (
	INSERT INTO saga_run (id, def, ver, prio, epoch, owner, wake_at, seq, state, step, pivot, mail, seen)
	SELECT i.id, $2, $3, $9, CASE WHEN d.node IS NULL THEN 0 ELSE 1 END, d.node, {now}, $12::bigint,
		CASE WHEN d.node IS NULL THEN 'ready' ELSE 'running' END, '', 0, 0, 0
	FROM i LEFT JOIN saga_node d ON d.node = $11::text AND d.dead = 0
	RETURNING epoch
), l AS (
	INSERT INTO saga_log (id, seq, epoch, event, attempt, data, note, delay, next, at)
	SELECT $1, $12, r.epoch, $13::text, $14::integer, $15::bytea, $16::bytea, 0, $17::text, {now} FROM r
) SELECT epoch > 0, {now} FROM r`

// plainStart reports whether startAlone can make n.
func plainStart(n *saga.NewInstance) bool {
	if len(n.Log) != 1 {
		return false
	}
	e := &n.Log[0]
	return e.Step == "" && e.Op == "" && e.Verb == "" && e.Actor == "" && e.Delay == 0
}

// startAlone makes one instance. An empty answer says that the key exists.
func (s *Store) startAlone(ctx context.Context, c Conn, n *saga.NewInstance) (st saga.Started, err error) {
	e := &n.Log[0]
	var us int64
	made, err := one(ctx, c, s.sql.startAlone, []any{n.ID, n.Ref.Def, n.Ref.Ver, n.Tenant, n.Key, n.Hash, n.Codec,
		blob(n.Input), n.Priority, micros(n.Deadline), n.Node, e.Seq, string(e.Event), e.Attempt, blob(e.Data), blob(e.Note),
		null(strings.Join(e.Next, "\n"))}, &st.Owned, &us)
	if made {
		st.ID, st.Now = n.ID, at(us)
	}
	return st, err
}

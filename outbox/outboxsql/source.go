package outboxsql

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/backstay-go/backstay/internal/sqldialect"
	"github.com/backstay-go/backstay/outbox"
)

// Source is a box in a database as its relays see it. It implements [outbox.Source], [outbox.SourceChecker] and [outbox.Listener], the last for hints
// within the process. It is safe for concurrent use and serves any number of relays.
type Source struct {
	box   *Box
	db    *sql.DB
	watch watch
}

// Source returns the box in db as its relays see it.
func (b *Box) Source(db *sql.DB) *Source {
	b.bell.use(db)
	return &Source{box: b, db: db, watch: watch{turn: make(chan struct{}, 1)}}
}

// relayConns is how many calls a relay makes at once: one each that reads, settles, tends, and renews the leases, which must not wait for the others.
const relayConns = 4

// Check implements [outbox.SourceChecker].
func (s *Source) Check(ctx context.Context) error {
	err := s.check(ctx)
	if sqldialect.Classify(err).Passes() {
		return outbox.SourceUnavailable(err)
	}
	return err
}

func (s *Source) check(ctx context.Context) error {
	if n := s.db.Stats().MaxOpenConnections; n > 0 && n < relayConns && s.box.d != SQLite {
		return fmt.Errorf("%w: the pool has %d, a relay needs %d", outbox.ErrConnections, n, relayConns)
	}
	if err := s.box.set().Check(ctx, s.db); err != nil && !s.externallyMigrated(ctx) {
		return err
	}
	_, err := s.box.stored(ctx, s.db)
	return err
}

// externallyMigrated reports that the tables are there though our own table of versions is not: another tool has made them.
func (s *Source) externallyMigrated(ctx context.Context) bool {
	var n int
	err := s.db.QueryRowContext(ctx, "SELECT count(*) FROM "+sqldialectVersion(s.box.d)).Scan(&n)
	if sqldialect.Classify(err) != sqldialect.NoTable {
		return false
	}
	_, err = s.box.stored(ctx, s.db)
	return err == nil
}

func sqldialectVersion(d Dialect) string { return d.Quote("backstay_schema") }

// Read implements [outbox.Source]: one statement for all spans, without locks.
func (s *Source) Read(ctx context.Context, spans []outbox.Span, limit int, rows []outbox.Row) ([]outbox.Row, error) {
	if len(spans) == 0 {
		return rows, nil
	}
	first := len(rows)
	found, err := s.query(ctx, spans, limit)
	if err != nil {
		return nil, err
	}
	defer found.Close()
	for found.Next() {
		var r outbox.Row
		var headers string
		var created, expires int64
		m := &r.Message
		if err := found.Scan(&r.Part, &m.Seq, &m.ID, &m.Topic, &m.Key, &m.ContentType, &headers, &m.Payload, &created, &expires); err != nil {
			return nil, err
		}
		m.Headers = outbox.DecodeHeaders(headers)
		m.Created, m.ExpiresAt = time.UnixMicro(created), instant(expires)
		rows = append(rows, r)
	}
	if err := found.Err(); err != nil {
		return nil, err
	}
	sortRows(rows[first:])
	return rows, nil
}

func instant(micros int64) time.Time {
	if micros == 0 {
		return time.Time{}
	}
	return time.UnixMicro(micros)
}

// sortRows makes sure of the order that the databases give in practice and promise nowhere.
func sortRows(rows []outbox.Row) {
	order := func(a, b outbox.Row) int {
		return cmp.Or(cmp.Compare(a.Part, b.Part), cmp.Compare(a.Message.Seq, b.Message.Seq))
	}
	if !slices.IsSortedFunc(rows, order) {
		slices.SortFunc(rows, order)
	}
}

func (s *Source) query(ctx context.Context, spans []outbox.Span, limit int) (*sql.Rows, error) {
	t := &s.box.t
	if s.box.d == Postgres {
		parts, from := make([]int64, len(spans)), make([]int64, len(spans))
		for i, sp := range spans {
			parts[i], from[i] = int64(sp.Part), sp.From
		}
		return s.db.QueryContext(ctx, "SELECT o.* FROM unnest($1::text::smallint[], $2::text::bigint[]) AS s (p, lo)"+
			" CROSS JOIN LATERAL (SELECT part, "+columns+" FROM "+t.outbox+" WHERE part = s.p AND id >= s.lo ORDER BY id LIMIT $3) o",
			intArray(parts), intArray(from), limit)
	}
	var q strings.Builder
	for i, sp := range spans {
		if i > 0 {
			q.WriteString(" UNION ALL ")
		}
		fmt.Fprintf(&q, "SELECT * FROM (SELECT part, %s FROM %s WHERE part = %d AND id >= %d ORDER BY id LIMIT %d) AS s%d", columns, t.outbox, sp.Part, sp.From, limit, i)
	}
	return s.db.QueryContext(ctx, q.String())
}

// Settle implements [outbox.Source].
func (s *Source) Settle(ctx context.Context, st outbox.Settlement) (got outbox.Settled, err error) {
	if got.Deleted, err = s.delete(ctx, st.Done); err != nil {
		return got, err
	}
	if len(st.Tries) > 0 || len(st.Parks) > 0 {
		got.Fenced, err = s.fenced(ctx, st)
	}
	return got, err
}

// delete removes what the broker has confirmed. On PostgreSQL it does not wait for the disk: a delete that a crash of the database undoes makes a
// message be published again, which a crash may always do.
func (s *Source) delete(ctx context.Context, done []outbox.Done) (deleted int, err error) {
	if len(done) == 0 {
		return 0, nil
	}
	t := &s.box.t
	var parts, ids []int64
	for _, d := range done {
		for _, id := range d.Seqs {
			parts, ids = append(parts, int64(d.Part)), append(ids, id)
		}
	}
	count := func(r sql.Result, err error) error {
		if err != nil {
			return err
		}
		n, err := r.RowsAffected()
		deleted += int(n)
		return err
	}
	if s.box.d == Postgres {
		err = count(s.db.ExecContext(ctx, "DELETE FROM "+t.outbox+" o USING unnest($1::text::smallint[], $2::text::bigint[]) AS d (p, i),"+
			" (SELECT set_config('synchronous_commit', 'off', true) AS v) c WHERE o.part = d.p AND o.id = d.i AND c.v = 'off'",
			intArray(parts), intArray(ids)))
	} else {
		for part := range slices.Chunk(ids, chunk) {
			query := s.box.deletion(t.outbox, "id", part, "")
			if err = s.retry(ctx, func() error {
				return count(s.db.ExecContext(ctx, query))
			}); err != nil {
				break
			}
		}
	}
	if err != nil {
		return deleted, err
	}
	for _, d := range done {
		if len(d.Tried) > 0 {
			if _, err := s.db.ExecContext(ctx, s.box.deletion(t.retry, "PRIMARY", d.Tried, " AND part = "+strconv.Itoa(d.Part))); err != nil {
				return deleted, err
			}
		}
	}
	return deleted, nil
}

// retry repeats a statement that lost against another transaction.
func (s *Source) retry(ctx context.Context, f func() error) error {
	for attempt := 1; ; attempt++ {
		err := f()
		if err == nil || attempt == 5 || !sqldialect.Classify(err).Retry() || ctx.Err() != nil {
			return err
		}
	}
}

// fenced writes attempts and dead letters down, each partition's only while the lease stands.
func (s *Source) fenced(ctx context.Context, st outbox.Settlement) (fenced []int, err error) {
	err = sqldialect.InTx(ctx, s.db, s.box.d, func(tx *sql.Tx) error {
		if err := s.box.mortal(ctx, tx); err != nil {
			return err
		}
		fenced = nil
		stands := map[outbox.Lease]bool{}
		check := func(l outbox.Lease) (bool, error) {
			ok, known := stands[l]
			if known {
				return ok, nil
			}
			ok, err := s.stands(ctx, tx, st.Relay, l)
			if err == nil && !ok && !slices.Contains(fenced, l.Part) {
				fenced = append(fenced, l.Part)
			}
			stands[l] = ok
			return ok, err
		}
		tries := slices.Clone(st.Tries) // locks in one order for all
		slices.SortFunc(tries, func(a, b outbox.Try) int {
			return cmp.Or(cmp.Compare(a.Lease.Part, b.Lease.Part), cmp.Compare(a.Seq, b.Seq))
		})
		for _, t := range tries {
			ok, err := check(t.Lease)
			if err == nil && ok {
				err = s.try(ctx, tx, t)
			}
			if err != nil {
				return err
			}
		}
		for _, p := range st.Parks {
			ok, err := check(p.Lease)
			if err == nil && ok {
				err = s.park(ctx, tx, p)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	return fenced, err
}

// mortal makes PostgreSQL end the transaction, and its locks with it, when its client says nothing for ten seconds: it may be dead. For the others the
// servers' own settings have to do.
func (b *Box) mortal(ctx context.Context, tx *sql.Tx) error {
	if b.d != Postgres {
		return nil
	}
	_, err := tx.ExecContext(ctx, "SELECT set_config('idle_in_transaction_session_timeout', '10000', true)")
	return err
}

// stands locks a lease's row against a change of epoch or generation, and reports whether the relay still has it. On PostgreSQL the lock is one that
// a renewal does not wait for.
func (s *Source) stands(ctx context.Context, tx *sql.Tx, relay string, l outbox.Lease) (bool, error) {
	t := &s.box.t
	where := " WHERE part = ? AND owner = ? AND epoch = ? AND gen = ? AND until_at > " + t.now
	args := []any{l.Part, relay, l.Epoch, l.Gen}
	if s.box.d == SQLite { // its way to lock is to write
		r, err := tx.ExecContext(ctx, "UPDATE "+t.lease+" SET gen = gen"+where, args...)
		if err != nil {
			return false, err
		}
		n, err := r.RowsAffected()
		return n == 1, err
	}
	var part int
	lock := " FOR UPDATE"
	if s.box.d == Postgres {
		lock = " FOR KEY SHARE"
	}
	err := tx.QueryRowContext(ctx, s.box.d.Rebind("SELECT part FROM "+t.lease+where+lock), args...).Scan(&part)
	if err == sql.ErrNoRows {
		return false, nil
	}
	return err == nil, err
}

func (s *Source) try(ctx context.Context, tx *sql.Tx, try outbox.Try) error {
	conflict := " ON CONFLICT (part, id) DO UPDATE SET attempts = excluded.attempts, last_error = excluded.last_error"
	if s.box.d == MySQL {
		conflict = " ON DUPLICATE KEY UPDATE attempts = VALUES(attempts), last_error = VALUES(last_error)"
	}
	_, err := tx.ExecContext(ctx, s.box.d.Rebind("INSERT INTO "+s.box.t.retry+" (part, id, attempts, last_error) VALUES (?, ?, ?, ?)"+conflict),
		try.Lease.Part, try.Seq, try.Attempts, plain(try.Error))
	return err
}

func (s *Source) park(ctx context.Context, tx *sql.Tx, p outbox.Park) error {
	t := &s.box.t
	for ids := range slices.Chunk(p.Seqs, chunk) {
		and := " AND part = " + strconv.Itoa(p.Lease.Part)
		reason, attempts, holds := "?", "?", "?"
		if s.box.d == Postgres {
			reason, attempts, holds = "$1::text", "$2::integer", "$3::boolean"
		}
		for _, q := range [...]struct {
			text string
			args []any
		}{
			{"INSERT INTO " + t.dead + " (part, " + columns + ", reason, attempts, holds, parked_at) SELECT part, " + columns + ", " + reason + ", " + attempts + ", " + holds + ", " + t.now +
				" FROM " + t.outbox + " WHERE id IN (" + ints(ids) + ")" + and, []any{plain(p.Reason), p.Attempts, p.Holds}},
			{s.box.deletion(t.outbox, "PRIMARY", ids, and), nil},
			{s.box.deletion(t.retry, "PRIMARY", ids, and), nil},
		} {
			if _, err := tx.ExecContext(ctx, q.text, q.args...); err != nil {
				return err
			}
		}
	}
	return nil
}

// plain is an error's text as every database stores it.
func plain(s string) string {
	s = strings.ToValidUTF8(strings.ReplaceAll(s, "\x00", ""), "\uFFFD")
	if len(s) > 2000 {
		s = strings.ToValidUTF8(s[:2000], "")
	}
	return s
}

// Listen implements [outbox.Listener] for hints within the process.
func (s *Source) Listen(ctx context.Context, ready func(), hint func(committed bool)) error {
	defer s.box.Subscribe(hint)()
	ready()
	<-ctx.Done()
	return ctx.Err()
}

package outboxpgx

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/backstay-go/backstay/internal/sqldialect"
	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/outboxsql"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Source is a box in a pool's database as its relays see it. It is safe for concurrent use and serves any number of relays.
type Source struct {
	*outboxsql.Source // leases, dead letters, scheduled messages
	box               *Box
	pool              *pgxpool.Pool
	read, remove      string
}

// Source returns the box as its relays see it. A relay needs four connections of the pool, and opens one of its own to listen.
func (b *Box) Source(pool *pgxpool.Pool) *Source {
	b.HintThrough(pool)
	db := DB(pool)
	b.mu.Lock()
	b.opened = append(b.opened, db)
	b.mu.Unlock()
	return &Source{
		Source: b.SQL.Source(db), box: b, pool: pool,
		read: "SELECT o.* FROM unnest($1::smallint[], $2::bigint[]) AS s (p, lo) CROSS JOIN LATERAL" +
			" (SELECT part, id, msg_id, topic, msg_key, content_type, headers, payload, created_at, expires_at FROM " + b.table +
			" WHERE part = s.p AND id >= s.lo ORDER BY id LIMIT $3) o",
		// A delete that a crash of the database undoes makes a message be published again, which a crash may always do: so it need not
		// wait for the disk.
		remove: "DELETE FROM " + b.table + " o USING unnest($1::smallint[], $2::bigint[]) AS d (p, i)," +
			" (SELECT set_config('synchronous_commit', 'off', true) AS v) c WHERE o.part = d.p AND o.id = d.i AND c.v = 'off'",
	}
}

// Check implements [outbox.SourceChecker].
func (s *Source) Check(ctx context.Context) error {
	if n := s.pool.Config().MaxConns; n < 4 { // reads, settles, tends, renews
		return fmt.Errorf("%w: the pool has %d, a relay needs 4", outbox.ErrConnections, n)
	}
	if err := s.Source.Check(ctx); err != nil {
		return err
	}
	err := s.box.load(ctx, s.pool)
	if sqldialect.Classify(err).Passes() {
		return outbox.SourceUnavailable(err)
	}
	return err
}

// Settle implements [outbox.Source].
func (s *Source) Settle(ctx context.Context, st outbox.Settlement) (outbox.Settled, error) {
	var got outbox.Settled
	if len(st.Done) > 0 {
		var parts []int16
		var ids []int64
		tried := false
		for _, d := range st.Done {
			for _, id := range d.Seqs {
				parts, ids = append(parts, int16(d.Part)), append(ids, id)
			}
			tried = tried || len(d.Tried) > 0
		}
		tag, err := s.pool.Exec(ctx, s.remove, parts, ids)
		if err != nil {
			return got, err
		}
		got.Deleted = int(tag.RowsAffected())
		if !tried && len(st.Tries) == 0 && len(st.Parks) == 0 {
			return got, nil
		}
		for i := range st.Done {
			st.Done[i].Seqs = nil // gone; the rest is for the other
		}
	}
	rest, err := s.Source.Settle(ctx, st)
	got.Fenced = rest.Fenced
	return got, err
}

// planner holds the planner to the index for the rest of the transaction, here the one statement that follows in the same round trip. Without statistics of
// the table, which a young or an empty one has not, it prefers to fetch all of a partition and sort it, for each page. And a plan for any arrays, which it takes for ten
// long, looks dearer to it than one for the few spans at hand: it would plan anew for each read, which takes as long as the read of fifty rows.
const planner = "SELECT set_config('plan_cache_mode', 'force_generic_plan', true), set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true), set_config('enable_sort', 'off', true)"

// Read implements [outbox.Source].
func (s *Source) Read(ctx context.Context, spans []outbox.Span, limit int, rows []outbox.Row) ([]outbox.Row, error) {
	parts, from := make([]int16, len(spans)), make([]int64, len(spans))
	for i, sp := range spans {
		parts[i], from[i] = int16(sp.Part), sp.From
	}
	var batch pgx.Batch
	batch.Queue(planner)
	batch.Queue(s.read, parts, from, limit)
	results := s.pool.SendBatch(ctx, &batch)
	defer results.Close()
	if _, err := results.Exec(); err != nil {
		return nil, err
	}
	found, err := results.Query()
	if err != nil {
		return nil, err
	}
	defer found.Close()
	first := len(rows)
	decode := scan
	if isBinary(found.FieldDescriptions()) {
		decode = scanBinary
	}
	for found.Next() {
		rows = append(rows, outbox.Row{})
		if err := decode(found, &rows[len(rows)-1]); err != nil {
			return nil, err
		}
	}
	if err := found.Err(); err != nil {
		return nil, err
	}
	order := func(a, b *outbox.Row) int {
		return cmp.Or(cmp.Compare(a.Part, b.Part), cmp.Compare(a.Message.Seq, b.Message.Seq))
	}
	own := rows[first:]
	for i := 1; i < len(own); i++ { // the order that the plan gives in practice and nobody promises
		if own[i].Part == own[i-1].Part && own[i].Message.Seq < own[i-1].Message.Seq || own[i].Part != own[i-1].Part && i+1 < len(own) && own[i+1].Part == own[i-1].Part {
			slices.SortFunc(own, func(a, b outbox.Row) int { return order(&a, &b) })
			break
		}
	}
	return rows, nil
}

var errShort = errors.New("outboxpgx: a number of unexpected length")

// isBinary says that a row's numbers and its payload are in the binary format. Text is the same in both, and pgx asks for it as text.
func isBinary(fields []pgconn.FieldDescription) bool {
	if len(fields) != 10 {
		return false
	}
	for _, i := range [...]int{0, 1, 7, 8, 9} {
		if fields[i].Format != pgx.BinaryFormatCode {
			return false
		}
	}
	return true
}

// scan leaves a row to pgx, as the text protocol needs (QueryExecModeSimpleProtocol).
func scan(found pgx.Rows, r *outbox.Row) error {
	m := &r.Message
	var created, expires int64
	var headers string
	err := found.Scan(&r.Part, &m.Seq, &m.ID, &m.Topic, &m.Key, &m.ContentType, &headers, &m.Payload, &created, &expires)
	m.Headers = outbox.DecodeHeaders(headers)
	m.Created, m.ExpiresAt = time.UnixMicro(created), instant(expires)
	return err
}

// scanBinary decodes a row with two allocations, one for all text and one for the payload, and its headers.
func scanBinary(found pgx.Rows, r *outbox.Row) error {
	m := &r.Message
	v := found.RawValues()
	if len(v) != 10 || len(v[0]) != 2 || len(v[1]) != 8 || len(v[8]) != 8 || len(v[9]) != 8 {
		return errShort
	}
	r.Part = int(int16(binary.BigEndian.Uint16(v[0])))
	m.Seq = int64(binary.BigEndian.Uint64(v[1]))
	size := 0
	for _, b := range v[2:7] {
		size += len(b)
	}
	var text strings.Builder
	text.Grow(size)
	for _, b := range v[2:7] {
		text.Write(b)
	}
	all := text.String()
	cut := func(b []byte) (s string) {
		s, all = all[:len(b)], all[len(b):]
		return s
	}
	m.ID, m.Topic, m.Key, m.ContentType = cut(v[2]), cut(v[3]), cut(v[4]), cut(v[5])
	m.Headers = outbox.DecodeHeaders(cut(v[6]))
	m.Payload = append(make([]byte, 0, len(v[7])), v[7]...)
	created, expires := int64(binary.BigEndian.Uint64(v[8])), int64(binary.BigEndian.Uint64(v[9]))
	m.Created, m.ExpiresAt = time.UnixMicro(created), instant(expires)
	return nil
}

func instant(micros int64) time.Time {
	if micros == 0 {
		return time.Time{}
	}
	return time.UnixMicro(micros)
}

package sagapgx

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"strconv"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/backstay-go/backstay/saga/internal/sqlstore"
)

// direct runs statements on one connection without what pgx does for any type
// of argument and result: a checkpoint has 18 arguments, all of them texts,
// numbers and bytes, and pgx looks up for each how it is to be written. Used by
// one goroutine at a time, and outside of transactions.
type direct struct {
	c     *pgx.Conn
	known map[string]*statement // by text
	made  int                   // statements prepared so far

	buf     []byte // scratch
	values  [][]byte
	formats []int16 // as many binary ones as were ever needed
	rows    directRows
}

// statement is one that was prepared.
type statement struct {
	sd      *pgconn.StatementDescription
	formats []int16 // of the results
}

// maxDirect bounds the statements; the texts that every step uses are fewer,
// and others go through pgx.
const maxDirect = 32

// newDirect returns nil if the connection's owner wants statements run in another way
// than pgx's own, or to see each of them.
func newDirect(c *pgx.Conn) *direct {
	cfg := c.Config()
	if cfg.DefaultQueryExecMode != pgx.QueryExecModeCacheStatement || cfg.StatementCacheCapacity <= 0 || cfg.Tracer != nil {
		return nil
	}
	return &direct{c: c, known: map[string]*statement{}, buf: make([]byte, 0, 1<<10)} // never nil, which would make an empty text NULL
}

// query runs a statement if all of its arguments are plain, and otherwise
// reports false without having done anything.
func (d *direct) query(ctx context.Context, query string, args []any) (sqlstore.Rows, bool, error) {
	if !plain(args) {
		return nil, false, nil
	}
	st := d.known[query]
	if st == nil {
		if len(d.known) == maxDirect {
			return nil, false, nil
		}
		d.made++
		sd, err := d.c.Prepare(ctx, "backstay_"+strconv.Itoa(d.made), query)
		if err != nil {
			return nil, true, err
		}
		st = &statement{sd: sd}
		for i := range sd.Fields {
			st.formats = append(st.formats, d.c.TypeMap().FormatCodeForOID(sd.Fields[i].DataTypeOID))
		}
		d.known[query] = st
	}
	if !d.encode(st.sd.ParamOIDs, args) {
		return nil, false, nil
	}
	d.rows = directRows{d: d, query: query, ctx: ctx,
		r: d.c.PgConn().ExecStatement(ctx, st.sd, d.values, d.formats[:len(d.values)], st.formats)}
	return &d.rows, true, nil
}

func plain(args []any) bool {
	for _, a := range args {
		switch a.(type) {
		case nil, string, []byte, int, int64:
		default:
			return false
		}
	}
	return true
}

// encode writes the arguments in PostgreSQL's binary format.
func (d *direct) encode(oids []uint32, args []any) bool {
	if len(oids) != len(args) {
		return false
	}
	size := 0
	for _, a := range args {
		switch a := a.(type) {
		case string:
			size += len(a)
		default:
			size += 8
		}
	}
	if cap(d.buf) < size {
		d.buf = make([]byte, 0, 2*size)
	}
	for len(d.formats) < len(args) {
		d.formats = append(d.formats, pgx.BinaryFormatCode)
	}
	d.buf, d.values = d.buf[:0], d.values[:0]
	for i, a := range args {
		var v []byte
		ok := true
		switch a := a.(type) {
		case nil:
		case string:
			ok = oids[i] == pgtype.TextOID
			v = d.text(a)
		case []byte:
			ok = oids[i] == pgtype.ByteaOID
			if v = a; v == nil {
				v = []byte{} // the store says nil for NULL
			}
		case int:
			v, ok = d.number(oids[i], int64(a))
		case int64:
			v, ok = d.number(oids[i], a)
		}
		if !ok {
			return false
		}
		d.values = append(d.values, v)
	}
	return true
}

func (d *direct) text(s string) []byte {
	at := len(d.buf)
	d.buf = append(d.buf, s...)
	return d.buf[at:len(d.buf):len(d.buf)]
}

func (d *direct) number(oid uint32, n int64) ([]byte, bool) {
	at := len(d.buf)
	switch {
	case oid == pgtype.Int8OID:
		d.buf = binary.BigEndian.AppendUint64(d.buf, uint64(n))
	case oid == pgtype.Int4OID && n >= math.MinInt32 && n <= math.MaxInt32:
		d.buf = binary.BigEndian.AppendUint32(d.buf, uint32(n))
	case oid == pgtype.Int2OID && n >= math.MinInt16 && n <= math.MaxInt16:
		d.buf = binary.BigEndian.AppendUint16(d.buf, uint16(n))
	default:
		return nil, false
	}
	return d.buf[at:len(d.buf):len(d.buf)], true
}

// directRows are the rows of a direct query.
type directRows struct {
	d     *direct
	query string
	ctx   context.Context // of the query
	r     *pgconn.ResultReader
	err   error
}

func (r *directRows) Next() bool {
	if r.err == nil && r.r.NextRow() {
		return true
	}
	r.Close()
	return false
}

func (r *directRows) Scan(dest ...any) error {
	fields, values := r.r.FieldDescriptions(), r.r.Values()
	if len(dest) != len(values) {
		return r.fail(fmt.Errorf("sagapgx: %d columns for %d places", len(values), len(dest)))
	}
	for i, v := range values {
		f := &fields[i]
		switch to := dest[i].(type) {
		case *int64:
			if f.DataTypeOID == pgtype.Int8OID && f.Format == pgx.BinaryFormatCode && len(v) == 8 {
				*to = int64(binary.BigEndian.Uint64(v))
				continue
			}
		case *bool:
			if f.DataTypeOID == pgtype.BoolOID && f.Format == pgx.BinaryFormatCode && len(v) == 1 {
				*to = v[0] != 0
				continue
			}
		}
		if err := r.d.c.TypeMap().Scan(f.DataTypeOID, f.Format, v, dest[i]); err != nil {
			return r.fail(err)
		}
	}
	return nil
}

func (r *directRows) fail(err error) error {
	r.err = err
	r.Close()
	return err
}

func (r *directRows) Err() error { return r.err }

// Close ends the query. After an error the statement is prepared anew, since
// the error may be that the tables have changed.
func (r *directRows) Close() error {
	if r.r == nil {
		return r.err
	}
	_, err := r.r.Close()
	r.r = nil
	if r.err == nil {
		r.err = err
	}
	if r.err != nil {
		r.d.forget(r.ctx, r.query)
	}
	return r.err
}

func (d *direct) forget(ctx context.Context, query string) {
	st := d.known[query]
	delete(d.known, query)
	if st != nil && !d.c.IsClosed() && d.c.Deallocate(ctx, st.sd.Name) != nil {
		closeConn(ctx, d.c)
	}
}

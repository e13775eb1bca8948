package outboxsql

import (
	"encoding/hex"
	"strconv"
	"strings"

	"github.com/backstay-go/backstay/outbox"

	"context"
)

// ints lists numbers for an IN condition. They are our own numbers, so they need no parameters, of which MySQL would prepare a statement each time.
func ints(ns []int64) string {
	b := make([]byte, 0, 12*len(ns))
	for i, n := range ns {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendInt(b, n, 10)
	}
	return string(b)
}

// listed is MySQL's table d of the numbers ns, column n, for a join that is led from number to number. Of an IN list MariaDB makes a scan of the
// table, if that has not many more rows, whatever index it is told to use; and a scan that locks waits for the rows of open transactions, up to
// innodb_lock_wait_timeout, and keeps others from them.
func listed(ns []int64) string {
	return "JSON_TABLE('[" + ints(ns) + "]', '$[*]' COLUMNS (n BIGINT PATH '$')) d STRAIGHT_JOIN "
}

// deletion deletes the rows with these ids, of which index is the key on MySQL; and is a further condition, or "".
func (b *Box) deletion(table, index string, ids []int64, and string) string {
	if b.d == MySQL {
		return "DELETE o FROM " + listed(ids) + table + " o FORCE INDEX (" + index + ") ON o.id = d.n" + and
	}
	return "DELETE FROM " + table + " WHERE id IN (" + ints(ids) + ")" + and
}

// intArray is a PostgreSQL array as text, which every driver can send.
func intArray(ns []int64) string { return "{" + ints(ns) + "}" }

// writeArrays inserts any number of messages by one statement with one array a column.
func (b *Box) writeArrays(ctx context.Context, tx Tx, ready []outbox.Enqueued) error {
	var cols [8]strings.Builder
	for i := range ready {
		m := &ready[i]
		for c := range cols {
			if i == 0 {
				cols[c].WriteByte('{')
			} else {
				cols[c].WriteByte(',')
			}
		}
		cols[0].WriteString(strconv.Itoa(m.Part))
		for c, s := range [...]string{m.ID, m.Topic, m.Key, m.ContentType, outbox.EncodeHeaders(m.Headers)} {
			arrayText(&cols[c+1], s)
		}
		cols[6].WriteString(`"\\x`)
		cols[6].WriteString(hex.EncodeToString(m.Payload))
		cols[6].WriteByte('"')
		cols[7].WriteString(strconv.FormatInt(micros(m.ExpiresAt), 10))
	}
	args := make([]any, len(cols))
	for c := range cols {
		cols[c].WriteByte('}')
		args[c] = cols[c].String()
	}
	_, err := tx.ExecContext(ctx, b.t.into()+" SELECT part, msg_id, topic, msg_key, content_type, headers, payload, "+b.t.now+", expires_at"+
		" FROM unnest($1::text::smallint[], $2::text::text[], $3::text::text[], $4::text::text[], $5::text::text[], $6::text::text[], $7::text::bytea[], $8::text::bigint[])"+
		" WITH ORDINALITY AS m (part, msg_id, topic, msg_key, content_type, headers, payload, expires_at, ord) ORDER BY ord", args...)
	return err
}

// arrayText writes one element of a text array, quoted.
func arrayText(b *strings.Builder, s string) {
	b.WriteByte('"')
	for i := range len(s) {
		if s[i] == '"' || s[i] == '\\' {
			b.WriteByte('\\')
		}
		b.WriteByte(s[i])
	}
	b.WriteByte('"')
}

package outboxsql

import (
	"strings"

	"github.com/backstay-go/backstay/internal/sqldialect"
)

// strictBuckets is how many rows MySQL's strict keys are spread over: two keys of one bucket wait for each other, 1 in 256.
const strictBuckets = 256

// columns of a message, in the order of scanning.
const columns = "id, msg_id, topic, msg_key, content_type, headers, payload, created_at, expires_at"

// tables holds the quoted names and the statements that never change.
type tables struct {
	outbox, lease, relay, retry, dead, scheduled, meta, strict, inbox string

	initMeta, initLease, initStrict, partitions string
	insert                                      string // of one message
	row, scheduledRow                           string // of a message, as VALUES has it
	now                                         string
}

func split(name string) (schema, table string) {
	if s, t, ok := strings.Cut(name, "."); ok {
		return s, t
	}
	return "", name
}

func newTables(d Dialect, c Config) tables {
	q := func(suffix string) string { return d.Quote(c.Table + suffix) }
	t := tables{
		outbox: q(""), lease: q("_lease"), relay: q("_relay"), retry: q("_retry"), dead: q("_dead"),
		scheduled: q("_scheduled"), meta: q("_meta"), strict: q("_strict"), inbox: d.Quote(c.InboxTable),
		now: d.NowMicros(),
	}
	ignore := func(into, values string) string {
		if d == sqldialect.MySQL {
			return "INSERT IGNORE INTO " + into + " VALUES " + values
		}
		return "INSERT INTO " + into + " VALUES " + values + " ON CONFLICT DO NOTHING"
	}
	t.initMeta = d.Rebind(ignore(t.meta+" (name, value)", "('partitions', ?)"))
	t.initLease = d.Rebind(ignore(t.lease+" (part, owner, epoch, gen, until_at)", "(?, '', 0, 0, 0)"))
	t.initStrict = ignore(t.strict+" (bucket)", "(?)")
	t.partitions = "SELECT value FROM " + t.meta + " WHERE name = 'partitions'"
	t.row = "(?, ?, ?, ?, ?, ?, ?, " + t.now + ", ?)"
	t.insert = d.Rebind(t.into() + " VALUES " + t.row)
	t.scheduledRow = "(" + t.due(d, "?", "?") + ", ?, ?, ?, ?, ?, ?, ?, ?)"
	return t
}

// due is the time of a scheduled message, given as two numbers: 1 and a delay, by the database's clock, or 0 and a time.
func (t tables) due(d Dialect, relative, value string) string {
	if d == sqldialect.Postgres {
		relative, value = relative+"::bigint", value+"::bigint"
	}
	return t.now + " * " + relative + " + " + value
}

func (t tables) into() string {
	return "INSERT INTO " + t.outbox + " (part, msg_id, topic, msg_key, content_type, headers, payload, created_at, expires_at)"
}

func (t tables) intoScheduled() string {
	return "INSERT INTO " + t.scheduled + " (due, part, msg_id, topic, msg_key, content_type, headers, payload, expires_at)"
}

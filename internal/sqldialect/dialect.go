// Package sqldialect holds the facts in which PostgreSQL, MySQL (with MariaDB)
// and SQLite differ as far as this module meets them: placeholders, quoting,
// the database's clock, transaction options and the classes of errors.
//
// It imports no driver. Errors are recognised by the methods and texts that
// drivers share; see [Classify].
package sqldialect

import (
	"database/sql"
	"fmt"
	"strconv"
	"strings"
)

// A Dialect names a family of databases. The zero value is no dialect; every
// method of it but Valid and String panics or returns nonsense, so check
// Valid where a Dialect comes from a user.
type Dialect uint8

const (
	// Postgres is PostgreSQL 13 or newer.
	Postgres Dialect = iota + 1
	// MySQL is MySQL 8.0 or newer and MariaDB 10.6 or newer.
	MySQL
	// SQLite is SQLite 3.42 or newer (unixepoch with 'subsec').
	SQLite
)

// Valid reports whether d is one of the known dialects.
func (d Dialect) Valid() bool { return d >= Postgres && d <= SQLite }

// String returns the name that the migration folders carry: "postgres",
// "mysql" or "sqlite".
func (d Dialect) String() string {
	switch d {
	case Postgres:
		return "postgres"
	case MySQL:
		return "mysql"
	case SQLite:
		return "sqlite"
	}
	return "unknown dialect " + strconv.Itoa(int(d))
}

// Placeholder returns the n-th parameter, counted from 1: "$n" in PostgreSQL,
// "?" elsewhere.
func (d Dialect) Placeholder(n int) string {
	if d == Postgres {
		return "$" + strconv.Itoa(n)
	}
	return "?"
}

// Rebind turns a query written with "?" into the dialect's own placeholders.
// Question marks in quoted strings and identifiers stay as they are.
func (d Dialect) Rebind(query string) string {
	if d != Postgres || !strings.Contains(query, "?") {
		return query
	}
	var b strings.Builder
	b.Grow(len(query) + 16)
	n := 0
	var quote byte
	for i := 0; i < len(query); i++ {
		c := query[i]
		switch {
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '\'' || c == '"':
			quote = c
		case c == '?':
			n++
			b.WriteByte('$')
			b.WriteString(strconv.Itoa(n))
			continue
		}
		b.WriteByte(c)
	}
	return b.String()
}

// Rows returns the parameter lists of a multi-row VALUES clause, numbered
// from first: Rows(2, 3, 1) is "($1,$2,$3),($4,$5,$6)" in PostgreSQL.
func (d Dialect) Rows(rows, columns, first int) string {
	var b strings.Builder
	b.Grow(rows * columns * 5)
	for r := range rows {
		if r > 0 {
			b.WriteByte(',')
		}
		b.WriteByte('(')
		for c := range columns {
			if c > 0 {
				b.WriteByte(',')
			}
			b.WriteString(d.Placeholder(first + r*columns + c))
		}
		b.WriteByte(')')
	}
	return b.String()
}

// List returns n placeholders between parentheses, numbered from first, for
// an IN condition. n must be at least 1.
func (d Dialect) List(n, first int) string { return d.Rows(1, n, first) }

// NowMicros is the expression of the database's clock as whole microseconds
// since the Unix epoch, of type bigint. It stands still within a statement, at
// the statement's start, so that a comparison with it can use an index (with
// clock_timestamp() or SYSDATE() it could not); it moves between the
// statements of a transaction. SQLite's clock has milliseconds.
//
// Times are kept as integers because the three databases and their drivers
// disagree on everything else about time: zones, parseTime, text formats.
func (d Dialect) NowMicros() string {
	switch d {
	case Postgres:
		return "(extract(epoch FROM statement_timestamp())*1000000)::bigint"
	case MySQL:
		// UTC_TIMESTAMP, because the hour that a session's zone repeats in
		// autumn is ambiguous to UNIX_TIMESTAMP(NOW()).
		return "TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))"
	default:
		return "CAST(round(unixepoch('subsec')*1000) AS INTEGER)*1000"
	}
}

// TxOptions returns the options for a transaction of this module's own: READ
// COMMITTED where there is a choice, because the code relies on a second
// inserter waiting and then reading the first one's row (in REPEATABLE READ
// PostgreSQL fails with 40001 instead), and because MySQL's default takes gap
// locks. SQLite knows only serializable transactions.
func (d Dialect) TxOptions() *sql.TxOptions {
	if d == SQLite {
		return nil
	}
	return &sql.TxOptions{Isolation: sql.LevelReadCommitted}
}

// CheckName returns an error unless name is a table name that can be used
// without surprises in all three databases: ^[a-z_][a-z0-9_]{0,62}$, with one
// schema of the same form and a dot before it if schema is true.
func CheckName(name string, schema bool) error {
	table := name
	if s, t, ok := strings.Cut(name, "."); ok {
		if !schema {
			return fmt.Errorf("name %q: a schema is not allowed here", name)
		}
		if !plain(s) {
			return fmt.Errorf("name %q: want ^[a-z_][a-z0-9_]{0,62}$, with at most one schema and a dot before it", name)
		}
		table = t
	}
	if !plain(table) {
		return fmt.Errorf("name %q: want ^[a-z_][a-z0-9_]{0,62}$, with at most one schema and a dot before it", name)
	}
	return nil
}

func plain(s string) bool {
	if s == "" || len(s) > 63 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if c != '_' && (c < 'a' || c > 'z') && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return true
}

// Quote returns the name quoted for the dialect, schema and table each by
// itself: `a`.`b` in MySQL, "a"."b" elsewhere. It does not check the name
// (see [CheckName]) but doubles any quote within it.
func (d Dialect) Quote(name string) string {
	q := `"`
	if d == MySQL {
		q = "`"
	}
	parts := strings.Split(name, ".")
	for i, p := range parts {
		parts[i] = q + strings.ReplaceAll(p, q, q+q) + q
	}
	return strings.Join(parts, ".")
}

package sqldialect

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
)

// A Class says what an error of a database means to the caller's next move.
type Class uint8

const (
	// Other is an error that none of the classes below covers, or nil.
	Other Class = iota
	// Duplicate: a unique or primary key exists already. In PostgreSQL the
	// transaction is over (all later statements fail) unless a savepoint
	// was taken; in MySQL and SQLite only the statement is undone.
	Duplicate
	// Serialization: the transaction lost against a concurrent one and is
	// over; a new transaction may succeed.
	Serialization
	// Deadlock: the transaction was chosen as the victim and is over; a new
	// transaction may succeed.
	Deadlock
	// Busy: a lock was not granted in time. In MySQL (1205) and SQLite the
	// transaction may still be open: roll back, then try a new one.
	Busy
	// ConnLost: the connection ended. For a statement before the commit
	// nothing has happened; for the commit itself the outcome is unknown.
	ConnLost
	// NoTable: a table or column that the statement names does not exist.
	NoTable
)

// String returns the class's name in lower case.
func (c Class) String() string {
	switch c {
	case Duplicate:
		return "duplicate"
	case Serialization:
		return "serialization"
	case Deadlock:
		return "deadlock"
	case Busy:
		return "busy"
	case ConnLost:
		return "connection lost"
	case NoTable:
		return "no such table"
	}
	return "other"
}

// Retry reports whether a new transaction may succeed where this one failed,
// and nothing of this one was committed.
func (c Class) Retry() bool { return c == Serialization || c == Deadlock || c == Busy }

// Passes reports whether the same statement may succeed later, whatever became of this one.
func (c Class) Passes() bool { return c.Retry() || c == ConnLost }

// Classify returns the class of err. It looks, in this order, at
//
//   - SQLState() string, which pgx's *pgconn.PgError and lib/pq's *pq.Error
//     have;
//   - Code() int, the SQLite result code of modernc.org/sqlite's *Error;
//   - the number at the head of the text "Error 1062 (23000): …", the form of
//     go-sql-driver's *mysql.MySQLError, which has fields but no methods;
//   - SQLite's own message texts, for drivers such as mattn's whose error has
//     fields only;
//   - the errors of net, io, syscall and database/sql/driver that tell of a
//     lost connection, and the texts that drivers use for the same.
func Classify(err error) Class {
	if err == nil {
		return Other
	}
	var state interface{ SQLState() string }
	if errors.As(err, &state) {
		if c := classifyState(state.SQLState()); c != Other {
			return c
		}
	}
	var code interface{ Code() int }
	if errors.As(err, &code) {
		if c := classifySQLite(code.Code(), err.Error()); c != Other {
			return c
		}
	}
	text := err.Error()
	if n, ok := mysqlNumber(text); ok {
		return classifyMySQL(n)
	}
	if c := classifySQLiteText(text); c != Other {
		return c
	}
	if lost(err, text) {
		return ConnLost
	}
	return Other
}

// UnknownCommit reports whether an error of Commit leaves it open if the
// transaction was committed: the connection was lost, or the context ended
// while the answer was awaited. Such a commit is settled by reading, never by
// assuming that it failed.
func UnknownCommit(err error) bool {
	if err == nil || errors.Is(err, sql.ErrTxDone) {
		return false
	}
	return Classify(err) == ConnLost || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// classifyState reads the five characters of the SQL standard, with
// PostgreSQL's own codes (its manual, appendix A).
func classifyState(s string) Class {
	switch s {
	case "23505":
		return Duplicate
	case "40001":
		return Serialization
	case "40P01":
		return Deadlock
	case "55P03": // lock_not_available: NOWAIT or lock_timeout
		return Busy
	case "42P01", "42703", "3F000": // undefined table, column, schema
		return NoTable
	case "57P01", "57P02", "57P03": // shutdown, crash, starting up
		return ConnLost
	}
	if strings.HasPrefix(s, "08") {
		return ConnLost
	}
	return Other
}

// classifySQLite reads a result code, extended or not
// (https://sqlite.org/rescode.html).
func classifySQLite(code int, text string) Class {
	switch code {
	case 2067, 1555: // CONSTRAINT_UNIQUE, CONSTRAINT_PRIMARYKEY
		return Duplicate
	case 517: // BUSY_SNAPSHOT: read, then write on an old snapshot
		return Serialization
	}
	switch code & 0xff {
	case 5, 6: // BUSY, LOCKED
		return Busy
	}
	return classifySQLiteText(text)
}

func classifySQLiteText(text string) Class {
	switch {
	case strings.Contains(text, "UNIQUE constraint failed"), strings.Contains(text, "PRIMARY KEY must be unique"):
		return Duplicate
	case strings.Contains(text, "database is locked"), strings.Contains(text, "database table is locked"):
		return Busy
	case strings.Contains(text, "no such table:"), strings.Contains(text, "no such column:"):
		return NoTable
	}
	return Other
}

// mysqlNumber finds the server's number in "Error 1062 (23000): …" or
// "Error 1062: …". The text may be wrapped by others before it.
func mysqlNumber(text string) (int, bool) {
	for {
		i := strings.Index(text, "Error ")
		if i < 0 {
			return 0, false
		}
		text = text[i+len("Error "):]
		n, k := 0, 0
		for k < len(text) && k < 6 && text[k] >= '0' && text[k] <= '9' {
			n = n*10 + int(text[k]-'0')
			k++
		}
		if k >= 4 && (strings.HasPrefix(text[k:], ":") || strings.HasPrefix(text[k:], " (")) {
			return n, true
		}
	}
}

func classifyMySQL(n int) Class {
	switch n {
	case 1062, 1586: // ER_DUP_ENTRY, ER_DUP_ENTRY_WITH_KEY_NAME
		return Duplicate
	case 1213: // ER_LOCK_DEADLOCK
		return Deadlock
	case 1020: // ER_CHECKREAD, MariaDB with innodb_snapshot_isolation
		return Serialization
	case 1205, 3572: // ER_LOCK_WAIT_TIMEOUT, ER_LOCK_NOWAIT
		return Busy
	case 1146, 1054, 1049: // no such table, column, database
		return NoTable
	case 1053, 1077, 1079, 1152, 1158, 1159, 1160, 1161, 1184, 1927, 3169: // shutdown, aborted, network, killed
		return ConnLost
	}
	return Other
}

func lost(err error, text string) bool {
	if errors.Is(err, driver.ErrBadConn) || errors.Is(err, sql.ErrConnDone) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.ErrClosedPipe) ||
		errors.Is(err, net.ErrClosed) || errors.Is(err, syscall.ECONNRESET) ||
		errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.EPIPE) {
		return true
	}
	if _, ok := errors.AsType[*net.OpError](err); ok {
		return true
	}
	// pgx closes a connection whose context ended and then says "conn
	// closed"; go-sql-driver says "invalid connection" and "bad connection".
	for _, s := range [...]string{"conn closed", "invalid connection", "bad connection", "conn busy", "broken pipe", "connection reset"} {
		if strings.Contains(text, s) {
			return true
		}
	}
	return false
}

package sqldialect_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"

	"github.com/backstay-go/backstay/internal/sqldialect"
)

type stateError string

func (e stateError) Error() string    { return "ERROR: something (SQLSTATE " + string(e) + ")" }
func (e stateError) SQLState() string { return string(e) }

type codeError struct {
	code int
	text string
}

func (e codeError) Error() string { return e.text }
func (e codeError) Code() int     { return e.code }

func TestClassify(t *testing.T) {
	for _, c := range []struct {
		err  error
		want sqldialect.Class
	}{
		{nil, sqldialect.Other},
		{errors.New("boom"), sqldialect.Other},
		{stateError("23505"), sqldialect.Duplicate},
		{stateError("40001"), sqldialect.Serialization},
		{stateError("40P01"), sqldialect.Deadlock},
		{stateError("55P03"), sqldialect.Busy},
		{stateError("57P01"), sqldialect.ConnLost},
		{stateError("08006"), sqldialect.ConnLost},
		{stateError("42P01"), sqldialect.NoTable},
		{stateError("23502"), sqldialect.Other},
		{fmt.Errorf("insert: %w", stateError("23505")), sqldialect.Duplicate},
		{errors.New("Error 1062 (23000): Duplicate entry 'a' for key 'PRIMARY'"), sqldialect.Duplicate},
		{errors.New("Error 1062: Duplicate entry"), sqldialect.Duplicate},
		{fmt.Errorf("outer Error of mine: %w", errors.New("Error 1213 (40001): Deadlock found")), sqldialect.Deadlock},
		{errors.New("Error 1205 (HY000): Lock wait timeout exceeded"), sqldialect.Busy},
		{errors.New("Error 1020 (HY000): Record has changed since last read"), sqldialect.Serialization},
		{errors.New("Error 1146 (42S02): Table 'a.b' doesn't exist"), sqldialect.NoTable},
		{errors.New("Error 1406 (22001): Data too long"), sqldialect.Other},
		{codeError{2067, "constraint failed: UNIQUE constraint failed: a.b (2067)"}, sqldialect.Duplicate},
		{codeError{1555, "constraint failed"}, sqldialect.Duplicate},
		{codeError{5, "database is locked (5) (SQLITE_BUSY)"}, sqldialect.Busy},
		{codeError{517, "database is locked (517)"}, sqldialect.Serialization},
		{codeError{1, "SQL logic error: no such table: x (1)"}, sqldialect.NoTable},
		{codeError{1299, "NOT NULL constraint failed: a.b"}, sqldialect.Other},
		{errors.New("UNIQUE constraint failed: a.b"), sqldialect.Duplicate},
		{driver.ErrBadConn, sqldialect.ConnLost},
		{io.ErrUnexpectedEOF, sqldialect.ConnLost},
		{&net.OpError{Op: "read", Err: errors.New("x")}, sqldialect.ConnLost},
		{errors.New("invalid connection"), sqldialect.ConnLost},
		{errors.New("conn closed"), sqldialect.ConnLost},
	} {
		if got := sqldialect.Classify(c.err); got != c.want {
			t.Errorf("Classify(%v): got %v, want %v", c.err, got, c.want)
		}
	}
}

func TestUnknownCommit(t *testing.T) {
	for _, err := range []error{driver.ErrBadConn, context.DeadlineExceeded, context.Canceled, io.EOF} {
		if !sqldialect.UnknownCommit(err) {
			t.Errorf("UnknownCommit(%v): got false, want true", err)
		}
	}
	for _, err := range []error{nil, stateError("40001"), sql.ErrTxDone, errors.New("deferred constraint")} {
		if sqldialect.UnknownCommit(err) {
			t.Errorf("UnknownCommit(%v): got true, want false", err)
		}
	}
}

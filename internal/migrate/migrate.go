// Package migrate applies numbered SQL files to a database, each once.
//
// It is small on purpose: users who have a migration tool copy the files from
// the store's fs.FS (the names suit golang-migrate; goose and atlas can read
// them too) and never call it. Nothing here runs unless asked.
//
// Files are named NNNN_name.up.sql, numbered from 1 without gaps. A file may
// hold several statements, each ended by a semicolon. A comment line
//
//	-- works-with: 3
//
// says that code which knows only schema 3 still works on this schema: the
// step only adds. Without it code that is older than the schema is refused.
package migrate

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strconv"

	"github.com/backstay-go/backstay/internal/sqldialect"
)

var (
	// ErrNewer reports a schema that this version of the code does not know
	// and whose files do not say that it works all the same.
	ErrNewer = errors.New("the schema is newer than this version of the library")
	// ErrOlder reports a schema to which not all files have been applied.
	ErrOlder = errors.New("the schema is older than this version of the library: run the migrations")
)

// DefaultTable is where the applied versions are kept. Several sets share it,
// told apart by their names.
const DefaultTable = "backstay_schema"

// A Set is the migrations of one component in one dialect.
type Set struct {
	Name    string              // the component: "saga", "outbox"
	Dialect sqldialect.Dialect  // which database the files are for
	FS      fs.FS               // holds the files at its top
	Table   string              // the version table, with a schema if wanted; empty: DefaultTable
	Rewrite func(string) string // changes each statement before it runs, for other table names; nil: none
}

// A file is one numbered step.
type file struct {
	version int
	floor   int // the oldest code that works on this schema
	name    string
	text    string
}

var (
	fileName  = regexp.MustCompile(`^(\d{4})_[a-z0-9_]+\.up\.sql$`)
	worksWith = regexp.MustCompile(`(?m)^-- works-with: (\d+)\s*$`)
)

// files reads and checks the set's files, in order.
func (s Set) files() ([]file, error) {
	if !s.Dialect.Valid() {
		return nil, fmt.Errorf("migrate %s: %v", s.Name, s.Dialect)
	}
	names, err := fs.Glob(s.FS, "*.up.sql")
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	var out []file
	for i, name := range names {
		m := fileName.FindStringSubmatch(name)
		if m == nil {
			return nil, fmt.Errorf("migrate %s: file %q: want NNNN_name.up.sql", s.Name, name)
		}
		v, _ := strconv.Atoi(m[1])
		if v != i+1 {
			return nil, fmt.Errorf("migrate %s: file %q: want number %d", s.Name, name, i+1)
		}
		text, err := fs.ReadFile(s.FS, name)
		if err != nil {
			return nil, err
		}
		f := file{version: v, floor: v, name: name, text: string(text)}
		if m := worksWith.FindStringSubmatch(f.text); m != nil {
			f.floor, _ = strconv.Atoi(m[1])
		}
		out = append(out, f)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("migrate %s: no files", s.Name)
	}
	return out, nil
}

func (s Set) table() string {
	if s.Table == "" {
		return s.Dialect.Quote(DefaultTable)
	}
	return s.Dialect.Quote(s.Table)
}

// Check returns nil if the database's schema suits this code: all files are
// applied, and none that is newer and unfit. Else the error wraps [ErrOlder]
// or [ErrNewer]. It writes nothing, so a role without DDL rights can call it.
func (s Set) Check(ctx context.Context, db *sql.DB) error {
	files, err := s.files()
	if err != nil {
		return err
	}
	have, floor, err := s.version(ctx, db)
	if sqldialect.Classify(err) == sqldialect.NoTable {
		return fmt.Errorf("migrate %s: %w (have none, want %d)", s.Name, ErrOlder, len(files))
	}
	if err != nil {
		return fmt.Errorf("migrate %s: %w", s.Name, err)
	}
	return s.fits(have, floor, len(files))
}

func (s Set) fits(have, floor, want int) error {
	switch {
	case have < want:
		return fmt.Errorf("migrate %s: %w (have %d, want %d)", s.Name, ErrOlder, have, want)
	case floor > want:
		return fmt.Errorf("migrate %s: %w (have %d, which needs code of at least %d; this code knows %d)", s.Name, ErrNewer, have, floor, want)
	}
	return nil
}

// version returns the newest applied version and the highest floor.
func (s Set) version(ctx context.Context, q sqldialect.Queryer) (have, floor int, err error) {
	err = q.QueryRowContext(ctx, s.Dialect.Rebind(
		"SELECT COALESCE(MAX(version),0), COALESCE(MAX(works_with),0) FROM "+s.table()+" WHERE component = ?"), s.Name).
		Scan(&have, &floor)
	return have, floor, err
}

// Up applies the files that the database does not have yet and returns how
// many it applied. Two processes may call it at once: one waits for the
// other. A schema that is newer than this code is left alone, with an error
// that wraps [ErrNewer] unless the newer files say that this code works.
//
// In PostgreSQL and SQLite all steps are one transaction. MySQL commits each
// DDL statement by itself, so a step cut short there is run again from its
// first statement: MySQL files must use IF NOT EXISTS.
func (s Set) Up(ctx context.Context, db *sql.DB) (applied int, err error) {
	files, err := s.files()
	if err != nil {
		return 0, err
	}
	var conn *sql.Conn
	// Opening may find the file locked too: a pragma of the DSN such as
	// journal_mode(WAL) needs the lock and does not wait for it.
	err = waitBusy(ctx, func() (err error) { conn, err = db.Conn(ctx); return err })
	if err != nil {
		return 0, fmt.Errorf("migrate %s: %w", s.Name, err)
	}
	defer conn.Close()
	unlock, err := s.lock(ctx, conn)
	if err != nil {
		return 0, fmt.Errorf("migrate %s: lock: %w", s.Name, err)
	}
	applied, err = s.apply(ctx, conn, files)
	if e := unlock(err == nil); err == nil && e != nil {
		err = fmt.Errorf("migrate %s: %w", s.Name, e)
	}
	if err != nil {
		return 0, err
	}
	return applied, nil
}

func (s Set) apply(ctx context.Context, conn *sql.Conn, files []file) (int, error) {
	if _, err := conn.ExecContext(ctx, s.createTable()); err != nil {
		return 0, fmt.Errorf("migrate %s: version table: %w", s.Name, err)
	}
	have, floor, err := s.version(ctx, conn)
	if err != nil {
		return 0, fmt.Errorf("migrate %s: %w", s.Name, err)
	}
	if have >= len(files) {
		return 0, s.fits(have, floor, len(files))
	}
	for _, f := range files[have:] {
		for _, stmt := range Split(f.text) {
			if s.Rewrite != nil {
				stmt = s.Rewrite(stmt)
			}
			if _, err := conn.ExecContext(ctx, stmt); err != nil {
				return 0, fmt.Errorf("migrate %s: %s: %w", s.Name, f.name, err)
			}
		}
		_, err := conn.ExecContext(ctx, s.Dialect.Rebind("INSERT INTO "+s.table()+
			" (component, version, works_with, applied_at) VALUES (?, ?, ?, "+s.Dialect.NowMicros()+")"), s.Name, f.version, f.floor)
		if err != nil {
			return 0, fmt.Errorf("migrate %s: %s: %w", s.Name, f.name, err)
		}
	}
	return len(files) - have, nil
}

func (s Set) createTable() string {
	text := "varchar(64)"
	if s.Dialect == sqldialect.MySQL {
		text = "varchar(64) CHARACTER SET ascii COLLATE ascii_bin"
	}
	return "CREATE TABLE IF NOT EXISTS " + s.table() + " (component " + text +
		" NOT NULL, version int NOT NULL, works_with int NOT NULL, applied_at bigint NOT NULL, PRIMARY KEY (component, version))"
}

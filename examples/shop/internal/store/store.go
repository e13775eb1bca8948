// Package store opens a service's own database: a SQLite file, or a schema of a PostgreSQL database. No service sees another's.
package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	_ "modernc.org/sqlite" // the driver "sqlite"

	"github.com/backstay-go/backstay/saga/guard"
)

// DB is a service's database.
type DB struct {
	*sql.DB
	Dialect guard.Dialect // the same type in guard, sagasql and outboxsql
}

// Open opens the database of a service: in the PostgreSQL database at postgresURL when there is one, else in a file in dir. It makes the
// tables of schema, which are written for both.
func Open(ctx context.Context, service, dir, postgresURL, schema string) (*DB, error) {
	open := openSQLite
	at := dir
	if postgresURL != "" {
		open, at = openPostgres, postgresURL
	}
	db, err := open(ctx, service, at)
	if err != nil {
		return nil, fmt.Errorf("the database of %s: %w", service, err)
	}
	for stmt := range strings.SplitSeq(schema, ";") {
		if strings.TrimSpace(stmt) == "" {
			continue
		}
		if _, err := db.ExecContext(ctx, stmt); err != nil {
			return nil, errors.Join(fmt.Errorf("the tables of %s: %w", service, err), db.Close())
		}
	}
	return db, nil
}

// openSQLite opens a file. A commit survives the end of the process; that it survives a power failure too would take synchronous(FULL), whose
// flushes cost more than all the rest of the shop.
func openSQLite(_ context.Context, service, dir string) (*DB, error) {
	file := filepath.Join(dir, service+".db")
	db, err := sql.Open("sqlite", "file:"+file+"?_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_pragma=synchronous(NORMAL)&_txlock=immediate")
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(8)
	db.SetMaxIdleConns(8)
	return &DB{db, guard.SQLite}, nil
}

// openPostgres opens a schema. The driver is there in a build with the tag postgres.
func openPostgres(ctx context.Context, service, at string) (*DB, error) {
	u, err := url.Parse(at)
	if err != nil {
		return nil, err
	}
	q := u.Query()
	q.Set("search_path", Schema(service))   // for every connection of the pool
	q.Set("statement_cache_capacity", "64") // each connection makes room for as many; 512 by default, which is 46 kB
	u.RawQuery = q.Encode()
	db, err := sql.Open("pgx", u.String())
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(12)
	db.SetMaxIdleConns(12)
	db.SetConnMaxIdleTime(5 * time.Second) // what a rush needed is let go after it
	if _, err := db.ExecContext(ctx, "CREATE SCHEMA IF NOT EXISTS "+Schema(service)); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return &DB{db, guard.Postgres}, nil
}

// Schema is the name of a service's schema in PostgreSQL.
func Schema(service string) string { return "shop_" + service }

// Drop forgets what services have in the PostgreSQL database at postgresURL.
func Drop(ctx context.Context, postgresURL string, services ...string) error {
	db, err := sql.Open("pgx", postgresURL)
	if err != nil {
		return err
	}
	defer db.Close()
	for _, s := range services {
		if _, err := db.ExecContext(ctx, "DROP SCHEMA IF EXISTS "+Schema(s)+" CASCADE"); err != nil {
			return err
		}
	}
	return nil
}

// Q writes a query's question marks as the database wants its parameters.
func (d *DB) Q(query string) string {
	if d.Dialect != guard.Postgres {
		return query
	}
	var b strings.Builder
	n := 0
	for part := range strings.SplitSeq(query, "?") {
		if n > 0 {
			b.WriteString("$" + strconv.Itoa(n))
		}
		b.WriteString(part)
		n++
	}
	return b.String()
}

// List returns n parameters in parentheses, for IN.
func List(n int) string { return "(?" + strings.Repeat(",?", n-1) + ")" }

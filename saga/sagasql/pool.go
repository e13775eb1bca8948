package sagasql

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"time"

	"github.com/backstay-go/backstay/internal/sqldialect"
	"github.com/backstay-go/backstay/saga/internal/sqlstore"
)

const (
	// keepConns is how many connections the store keeps: two that commit, one
	// that claims, one that renews the lease.
	keepConns = 4
	// keepFrom is the least pool of which it takes any.
	keepFrom = 2 * keepConns
)

// pool is a *sql.DB with a few connections set apart for the engine.
type pool struct {
	db *sql.DB
	d  sqldialect.Dialect

	idle sqlstore.Resting[*pinned]
}

func (p *pool) Exec(ctx context.Context, query string, args ...any) (int64, error) {
	return conn{p.db}.Exec(ctx, query, args...)
}

func (p *pool) Query(ctx context.Context, query string, args ...any) (sqlstore.Rows, error) {
	return conn{p.db}.Query(ctx, query, args...)
}

func (p *pool) Begin(ctx context.Context) (sqlstore.Tx, error) { return begin(ctx, p.db, p.d) }

// Engine lends a connection that was set up for the engine. Without limits on
// the pool, or with wide ones, it is taken from the pool and kept.
func (p *pool) Engine(ctx context.Context) (sqlstore.EngineConn, func(error), error) {
	setup := sqlstore.Setup(p.d)
	if n := p.db.Stats().MaxOpenConnections; setup == nil || n > 0 && n < keepFrom {
		return p, func(error) {}, nil
	}
	c, ok := p.idle.Take(ctx, (*pinned).ping, (*pinned).drop)
	if !ok {
		raw, err := p.db.Conn(ctx)
		if err != nil {
			return nil, nil, err
		}
		c = &pinned{conn: raw, d: p.d, stmts: map[string]*sql.Stmt{}}
		for _, stmt := range setup {
			if _, err := raw.ExecContext(ctx, stmt); err != nil {
				c.drop()
				return nil, nil, err
			}
		}
	}
	return c, func(err error) { p.release(c, err) }, nil
}

func (p *pool) release(c *pinned, err error) {
	if err != nil && (sqldialect.Classify(err) == sqldialect.ConnLost || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)) {
		c.drop()
		return
	}
	if !p.idle.Keep(c, keepConns) {
		_ = c.giveBack() // a connection that cannot be reset is dropped
	}
}

func (p *pool) close() error {
	var errs []error
	for _, c := range p.idle.Empty() {
		errs = append(errs, c.giveBack())
	}
	return errors.Join(errs...)
}

// pinned is a connection set apart, with its prepared statements: a driver
// that does not keep them itself would prepare anew each time. It is used by
// one goroutine at a time.
type pinned struct {
	conn  *sql.Conn
	d     sqldialect.Dialect
	stmts map[string]*sql.Stmt
}

// maxStmts bounds the statements kept; the store's texts are fewer, unless the
// number of definitions changes.
const maxStmts = 64

func (c *pinned) prepare(ctx context.Context, query string) (*sql.Stmt, error) {
	if st := c.stmts[query]; st != nil {
		return st, nil
	}
	st, err := c.conn.PrepareContext(ctx, query)
	if err != nil {
		return nil, err
	}
	if len(c.stmts) >= maxStmts {
		for q, old := range c.stmts {
			old.Close()
			delete(c.stmts, q)
			break
		}
	}
	c.stmts[query] = st
	return st, nil
}

func (c *pinned) Exec(ctx context.Context, query string, args ...any) (int64, error) {
	st, err := c.prepare(ctx, query)
	if err != nil {
		return 0, err
	}
	return affected(st.ExecContext(ctx, args...))
}

func (c *pinned) Query(ctx context.Context, query string, args ...any) (sqlstore.Rows, error) {
	st, err := c.prepare(ctx, query)
	if err != nil {
		return nil, err
	}
	rows, err := st.QueryContext(ctx, args...)
	if err != nil {
		return nil, err // not a typed nil
	}
	return rows, nil
}

func (c *pinned) Begin(ctx context.Context) (sqlstore.Tx, error) { return begin(ctx, c.conn, c.d) }

func (c *pinned) ping(ctx context.Context) error { return c.conn.PingContext(ctx) }

// giveBack returns the connection to the pool as it was.
func (c *pinned) giveBack() error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	for _, stmt := range sqlstore.Teardown(c.d) {
		if _, err := c.conn.ExecContext(ctx, stmt); err != nil {
			c.drop()
			return err
		}
	}
	for _, st := range c.stmts {
		st.Close()
	}
	return c.conn.Close()
}

// drop makes the pool throw the connection away, so that nobody gets one with
// the engine's settings.
func (c *pinned) drop() {
	_ = c.conn.Raw(func(any) error { return driver.ErrBadConn })
	c.conn.Close()
}

// conn makes a sqlstore.Conn of what database/sql has.
type conn struct{ q sqldialect.Queryer }

func (c conn) Exec(ctx context.Context, query string, args ...any) (int64, error) {
	return affected(c.q.ExecContext(ctx, query, args...))
}

func (c conn) Query(ctx context.Context, query string, args ...any) (sqlstore.Rows, error) {
	rows, err := c.q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err // not a typed nil
	}
	return rows, nil
}

func affected(res sql.Result, err error) (int64, error) {
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

type transaction struct {
	conn
	tx *sql.Tx
}

func begin(ctx context.Context, b interface {
	BeginTx(context.Context, *sql.TxOptions) (*sql.Tx, error)
}, d sqldialect.Dialect) (sqlstore.Tx, error) {
	tx, err := b.BeginTx(ctx, d.TxOptions())
	if err != nil {
		return nil, err
	}
	return &transaction{conn{tx}, tx}, nil
}

func (t *transaction) Commit(context.Context) error   { return t.tx.Commit() }
func (t *transaction) Rollback(context.Context) error { return t.tx.Rollback() }

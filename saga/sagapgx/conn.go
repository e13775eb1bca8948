package sagapgx

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/backstay-go/backstay/internal/sqldialect"
	"github.com/backstay-go/backstay/saga/internal/sqlstore"
)

// keepConns is how many connections the store keeps open: two that commit,
// one that claims, one that renews the lease, one that tells others.
const keepConns = 5

// own is a pool and, beside it, the engine's own connections. They are not
// taken from the pool, whose default size is the number of processors.
type own struct {
	pool *pgxpool.Pool
	idle sqlstore.Resting[*engineConn]
}

func (o *own) Exec(ctx context.Context, query string, args ...any) (int64, error) {
	return conn{o.pool}.Exec(ctx, query, args...)
}

func (o *own) Query(ctx context.Context, query string, args ...any) (sqlstore.Rows, error) {
	return conn{o.pool}.Query(ctx, query, args...)
}

func (o *own) Begin(ctx context.Context) (sqlstore.Tx, error) { return begin(ctx, o.pool) }

// Engine lends a connection that was set up for the engine.
func (o *own) Engine(ctx context.Context) (sqlstore.EngineConn, func(error), error) {
	e, ok := o.idle.Take(ctx, (*engineConn).ping, func(e *engineConn) { closeConn(ctx, e.c) })
	if !ok {
		c, err := o.connect(ctx)
		if err != nil {
			return nil, nil, err
		}
		e = &engineConn{conn{c}, c, newDirect(c)}
	}
	return e, func(error) { o.release(ctx, e) }, nil
}

// closeConn says goodbye, for a moment at most.
func closeConn(ctx context.Context, c *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = c.Close(ctx) // gone in any case
}

// connect opens a connection as the pool would.
func (o *own) connect(ctx context.Context) (*pgx.Conn, error) {
	cfg := o.pool.Config()
	if cfg.BeforeConnect != nil {
		if err := cfg.BeforeConnect(ctx, cfg.ConnConfig); err != nil {
			return nil, err
		}
	}
	c, err := pgx.ConnectConfig(ctx, cfg.ConnConfig)
	if err != nil {
		return nil, err
	}
	if cfg.AfterConnect != nil {
		if err := cfg.AfterConnect(ctx, c); err != nil {
			return nil, errors.Join(err, c.Close(ctx))
		}
	}
	for _, stmt := range sqlstore.Setup(sqldialect.Postgres) {
		if _, err := c.Exec(ctx, stmt); err != nil {
			return nil, errors.Join(err, c.Close(ctx))
		}
	}
	return c, nil
}

// release keeps a connection that is fit for use: alive and outside of any
// transaction.
func (o *own) release(ctx context.Context, e *engineConn) {
	if e.c.IsClosed() || e.c.PgConn().TxStatus() != 'I' || !o.idle.Keep(e, keepConns) {
		closeConn(ctx, e.c)
	}
}

func (o *own) close() error {
	var errs []error
	for _, c := range o.idle.Empty() {
		errs = append(errs, c.c.Close(context.Background()))
	}
	return errors.Join(errs...)
}

// querier is what pools, connections and transactions of pgx have in common.
type querier interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

type conn struct{ q querier }

func (c conn) Exec(ctx context.Context, query string, args ...any) (int64, error) {
	tag, err := c.q.Exec(ctx, query, args...)
	return tag.RowsAffected(), err
}

func (c conn) Query(ctx context.Context, query string, args ...any) (sqlstore.Rows, error) {
	r, err := c.q.Query(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	return rows{r}, nil
}

type rows struct{ pgx.Rows }

func (r rows) Close() error {
	r.Rows.Close()
	return r.Rows.Err()
}

type engineConn struct {
	conn
	c      *pgx.Conn
	direct *direct // nil: everything goes through pgx
}

func (e *engineConn) ping(ctx context.Context) error { return e.c.Ping(ctx) }

func (e *engineConn) Query(ctx context.Context, query string, args ...any) (sqlstore.Rows, error) {
	if e.direct != nil {
		if rows, done, err := e.direct.query(ctx, query, args); done {
			return rows, err
		}
	}
	return e.conn.Query(ctx, query, args...)
}

func (e *engineConn) Begin(ctx context.Context) (sqlstore.Tx, error) { return begin(ctx, e.c) }

type transaction struct {
	conn
	tx pgx.Tx
}

func begin(ctx context.Context, b interface {
	BeginTx(context.Context, pgx.TxOptions) (pgx.Tx, error)
}) (sqlstore.Tx, error) {
	tx, err := b.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.ReadCommitted})
	if err != nil {
		return nil, err
	}
	return &transaction{conn{tx}, tx}, nil
}

func (t *transaction) Commit(ctx context.Context) error   { return t.tx.Commit(ctx) }
func (t *transaction) Rollback(ctx context.Context) error { return t.tx.Rollback(ctx) }

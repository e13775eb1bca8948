// Package outboxsql keeps an outbox and inboxes in a database of your own, through database/sql: PostgreSQL 13, MySQL 8.0,
// MariaDB 10.6, SQLite 3.42, and newer. It imports no driver; it is tested with pgx/v5/stdlib, go-sql-driver/mysql and modernc.org/sqlite.
//
//	box := outboxsql.New(outboxsql.Postgres)
//	err := box.Migrate(ctx, db)                      // once, or with a tool of your own and then box.Init
//	err = box.InTx(ctx, db, func(tx *sql.Tx) error { // begins, commits, then wakes the relays
//		…                                            // the business rows
//		return box.Enqueue(ctx, tx, outbox.Message{Topic: "orders", Key: o.ID, Payload: body})
//	})
//	relay := outbox.NewRelay(box.Source(db), publisher, outbox.RelayConfig{})
//	err = relay.Run(ctx)
//
// # Order
//
// Messages of one key are published in the order of their numbers, which is the order of their commits when the writers of that key are serialised
// before they enqueue (by a row lock, a version check), always on SQLite, and always with Config.StrictKeys. Overlapping transactions of one key have no
// order otherwise.
//
// # Connections
//
// A relay needs four connections of its pool on PostgreSQL and MySQL, so that the renewal of its leases never waits for its other work; Run
// refuses fewer. On SQLite open the file with a write-ahead log and a busy timeout ("file:app.db?_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)").
// Everything works behind a pooler that hands connections out by transaction.
//
// # Roles
//
// Services that only enqueue need INSERT on outbox and outbox_scheduled and SELECT on outbox_meta; relays SELECT, INSERT, UPDATE and DELETE
// on all tables whose names begin with outbox; consumers INSERT, SELECT and DELETE on inbox.
package outboxsql

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"sync"
	"sync/atomic"

	"github.com/backstay-go/backstay/internal/configjson"
	"github.com/backstay-go/backstay/internal/migrate"
	"github.com/backstay-go/backstay/internal/sqldialect"
	"github.com/backstay-go/backstay/outbox"
)

// A Dialect names the database behind a *sql.DB.
type Dialect = sqldialect.Dialect

const (
	Postgres = sqldialect.Postgres // PostgreSQL 13 and newer
	MySQL    = sqldialect.MySQL    // MySQL 8.0, MariaDB 10.6, and newer
	SQLite   = sqldialect.SQLite   // SQLite 3.42 and newer
)

// Config changes a [Box]. The zero value works.
type Config struct {
	// Table is the name of the outbox's table and the beginning of those beside it (outbox_lease, …), with a schema if wanted. Default "outbox".
	// ^[a-z_][a-z0-9_]{0,48}$, and one schema and dot before it.
	Table string `json:"table"`
	// InboxTable is the name of the inboxes' table. Default "inbox".
	InboxTable string `json:"inboxTable"`
	// Partitions is how many relays can share the work; fixed when the tables are made. Default 16 when they are made, and later whatever they were made
	// with; any other number is refused then ([outbox.ErrPartitions]). At most 256.
	Partitions int `json:"partitions"`
	// StrictKeys makes Enqueue wait for other transactions that have enqueued under one of the same keys, so that
	// numbers and commits have one order whatever else the writers do. Keys are locked in sorted order; two calls of
	// Enqueue in one transaction may still meet another in a deadlock, which the database ends.
	StrictKeys bool `json:"strictKeys"`
	// Limits bounds what may be enqueued.
	Limits outbox.Limits `json:"limits"`
	// Sealer encrypts payloads at enqueue. Nil: none.
	Sealer outbox.Sealer `json:"-"`
	// Hints is where Enqueue sends its hints to relays in other processes, on a connection of the pool. Nil: the first database given to InTx or
	// Source; before that none are sent and relays find messages by polling. PostgreSQL only: others have polling, and hints within the process.
	Hints *sql.DB `json:"-"`
	// Silent sends no hints to other processes: for a pooler that swallows NOTIFY, or a database that should not see it.
	Silent bool `json:"silent"`
}

// Validate reports all faults of the config, joined, or nil.
func (c Config) Validate() error {
	var faults []error
	for _, n := range [...]struct{ field, name string }{{"Table", c.Table}, {"InboxTable", c.InboxTable}} {
		if n.name == "" {
			continue
		}
		if err := sqldialect.CheckName(n.name, true); err != nil {
			faults = append(faults, fmt.Errorf("outboxsql.Config.%s: %w", n.field, err))
		} else if _, base := split(n.name); len(base) > 49 {
			faults = append(faults, fmt.Errorf("outboxsql.Config.%s: %q: longer than 49 bytes", n.field, n.name))
		}
	}
	if c.Partitions < 0 || c.Partitions > 256 {
		faults = append(faults, fmt.Errorf("outboxsql.Config.Partitions: %d, want 1 to 256", c.Partitions))
	}
	return errors.Join(faults...)
}

// MarshalJSON encodes the data of the config; functions, connections and what is zero are left out.
func (c Config) MarshalJSON() ([]byte, error) { return configjson.Marshal(c) }

// UnmarshalJSON decodes what MarshalJSON encodes. Unknown fields are refused, fields not named keep their values.
func (c *Config) UnmarshalJSON(data []byte) error { return configjson.Unmarshal(data, c) }

// Box is an outbox in a database: its names and limits. It holds no connection; it is safe for concurrent use and one serves a process.
type Box struct {
	d     Dialect
	cfg   Config
	t     tables
	parts atomic.Int64 // as stored; 0: not asked yet
	bell  *bell

	mu    sync.Mutex
	hints map[*func(bool)]struct{} // relays of this process; guarded by mu
	inbox map[string]*inboxCounts  // by consumer; guarded by mu
}

// New returns a box. At most one Config may be given. New panics with the config's Validate error, or when d is not one of the constants
// of this package. It does not touch the database.
func New(d Dialect, cfg ...Config) *Box {
	if !d.Valid() {
		panic(fmt.Sprintf("outboxsql.New: %v", d))
	}
	var c Config
	switch len(cfg) {
	case 0:
	case 1:
		c = cfg[0]
	default:
		panic("outboxsql.New: more than one Config")
	}
	if err := c.Validate(); err != nil {
		panic(err)
	}
	if c.Table == "" {
		c.Table = "outbox"
	}
	if c.InboxTable == "" {
		c.InboxTable = "inbox"
	}
	b := &Box{d: d, cfg: c, t: newTables(d, c), hints: map[*func(bool)]struct{}{}, inbox: map[string]*inboxCounts{}}
	b.bell = newBell(b.Channel())
	if c.Hints != nil {
		b.bell.use(c.Hints)
	}
	return b
}

// Config returns the box's config with its names filled in.
func (b *Box) Config() Config { return b.cfg }

//go:embed migrations
var migrations embed.FS

// Migrations returns the numbered SQL files of a dialect, for a migration tool of your own. They make tables of the default names.
func Migrations(d Dialect) fs.FS {
	sub, err := fs.Sub(migrations, "migrations/"+d.String())
	if err != nil {
		panic(err) // the name is a constant
	}
	return sub
}

var tableNames = regexp.MustCompile(`\b(outbox|inbox)(_[a-z]+)?\b`)

func (b *Box) set() migrate.Set {
	s := migrate.Set{Name: "outbox", Dialect: b.d, FS: Migrations(b.d)}
	if b.cfg.Table != "outbox" || b.cfg.InboxTable != "inbox" {
		s.Name = "outbox/" + b.cfg.Table
		s.Rewrite = b.rename
	}
	return s
}

// rename puts the configured names in a statement of a migration.
func (b *Box) rename(stmt string) string {
	return tableNames.ReplaceAllStringFunc(stmt, func(name string) string {
		m := tableNames.FindStringSubmatch(name)
		base := b.cfg.Table
		if m[1] == "inbox" {
			base = b.cfg.InboxTable
		}
		schema, table := split(base)
		if m[2] == "_key" || m[2] == "_part" || m[2] == "_due" || m[2] == "_dead_key" || m[2] == "_scheduled_due" {
			return b.d.Quote(table + m[2]) // an index stands in its table's schema and is named without it
		}
		if schema != "" {
			table = schema + "." + table
		}
		return b.d.Quote(table + m[2])
	})
}

// Migrate creates or updates the tables, and calls Init. It needs the right to do so; any number of processes may call it at once. It refuses a
// schema that is newer than this code and unfit for it. Nothing else calls it.
func (b *Box) Migrate(ctx context.Context, db *sql.DB) error {
	if _, err := b.set().Up(ctx, db); err != nil {
		return err
	}
	return b.Init(ctx, db)
}

// Init stores the number of partitions, for those who ran the migrations with another tool. It may be repeated; another number
// than the stored one is [outbox.ErrPartitions].
func (b *Box) Init(ctx context.Context, db *sql.DB) error {
	n := b.cfg.Partitions
	if n == 0 {
		n = 16
	}
	return sqldialect.InTx(ctx, db, b.d, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, b.t.initMeta, n); err != nil {
			return err
		}
		stored, err := b.stored(ctx, tx)
		if err != nil {
			return err
		}
		for part := range stored {
			if _, err := tx.ExecContext(ctx, b.t.initLease, part); err != nil {
				return err
			}
		}
		for bucket := range strictBuckets {
			if b.d != MySQL {
				break
			}
			if _, err := tx.ExecContext(ctx, b.t.initStrict, bucket); err != nil {
				return err
			}
		}
		return nil
	})
}

type queryer interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// stored returns the number of partitions that the tables were made for.
func (b *Box) stored(ctx context.Context, q queryer) (int, error) {
	rows, err := q.QueryContext(ctx, b.t.partitions)
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	n := 0
	for rows.Next() {
		if err := rows.Scan(&n); err != nil {
			return 0, err
		}
	}
	if err := rows.Err(); err != nil {
		return 0, err
	}
	switch {
	case n == 0:
		return 0, fmt.Errorf("%w: none is stored: call Migrate or Init", outbox.ErrPartitions)
	case b.cfg.Partitions != 0 && b.cfg.Partitions != n:
		return 0, fmt.Errorf("%w: configured %d, the tables have %d", outbox.ErrPartitions, b.cfg.Partitions, n)
	}
	b.parts.Store(int64(n))
	return n, nil
}

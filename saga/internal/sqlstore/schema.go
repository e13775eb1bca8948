package sqlstore

import (
	"context"
	"database/sql"
	"embed"
	"io/fs"

	"github.com/backstay-go/backstay/internal/migrate"
	"github.com/backstay-go/backstay/internal/sqldialect"
	"github.com/backstay-go/backstay/saga/guard"
)

//go:embed migrations
var files embed.FS

// Migrations returns the numbered SQL files of a dialect.
func Migrations(d sqldialect.Dialect) fs.FS {
	sub, err := fs.Sub(files, "migrations/"+d.String())
	if err != nil {
		panic(err) // the name is not a valid path, which no dialect's is
	}
	return sub
}

func set(d sqldialect.Dialect) migrate.Set {
	return migrate.Set{Name: "saga", Dialect: d, FS: Migrations(d)}
}

// Migrate creates or updates the tables, those of the guard included.
func Migrate(ctx context.Context, db *sql.DB, d sqldialect.Dialect) error {
	if _, err := set(d).Up(ctx, db); err != nil {
		return err
	}
	return guard.Migrate(ctx, db, d)
}

// Check returns nil if the tables suit this code.
func Check(ctx context.Context, db *sql.DB, d sqldialect.Dialect) error {
	if err := set(d).Check(ctx, db); err != nil {
		return err
	}
	return guard.Check(ctx, db, d)
}

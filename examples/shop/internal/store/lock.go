package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
)

// Lock makes sure that no other shop is open in a folder, until unlock is called or the process ends, in whatever way. It is an exclusive transaction on a
// database of its own, which works wherever SQLite does.
func Lock(ctx context.Context, dir string) (unlock func(), err error) {
	db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, "lock.db"))
	if err != nil {
		return nil, err
	}
	conn, err := db.Conn(ctx)
	if err == nil {
		_, err = conn.ExecContext(ctx, "BEGIN EXCLUSIVE")
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("is another shop open in %s? Use -data for a folder of its own: %w", dir, err), db.Close())
	}
	return func() { conn.Close(); db.Close() }, nil
}

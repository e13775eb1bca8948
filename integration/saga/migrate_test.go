package saga_test

import (
	"context"
	"database/sql"
	"errors"
	"io/fs"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/backstay-go/backstay/integration/saga/sagadb"
	"github.com/backstay-go/backstay/internal/migrate"
	"github.com/backstay-go/backstay/internal/sqldialect"
)

func files(texts ...string) fs.FS {
	names := []string{"0001_one.up.sql", "0002_two.up.sql", "0003_three.up.sql"}
	m := fstest.MapFS{"README": {}, "0001_one.down.sql": {}}
	for i, s := range texts {
		m[names[i]] = &fstest.MapFile{Data: []byte(s)}
	}
	return m
}

const (
	one   = "CREATE TABLE m_one (a int);\nINSERT INTO m_one VALUES (1); -- a comment; with a semicolon\n"
	two   = "CREATE TABLE m_two (a int);"
	three = "-- works-with: 2\nCREATE TABLE m_three (a int);"
)

func TestMigrateOnceEach(t *testing.T) {
	sagadb.Each(t, func(t *testing.T, d sqldialect.Dialect) {
		db, ctx := sagadb.Open(t, d), t.Context()
		set := migrate.Set{Name: "m", Dialect: d, FS: files(one)}
		if err := set.Check(ctx, db); !errors.Is(err, migrate.ErrOlder) {
			t.Errorf("Check before Up: got %v, want ErrOlder", err)
		}
		wantUp(t, set, db, 1)
		wantUp(t, set, db, 0)
		set.FS = files(one, two)
		if err := set.Check(ctx, db); !errors.Is(err, migrate.ErrOlder) {
			t.Errorf("Check with a file to go: got %v, want ErrOlder", err)
		}
		wantUp(t, set, db, 1)
		if err := set.Check(ctx, db); err != nil {
			t.Errorf("Check: got %v, want nil", err)
		}
		var n int
		if err := db.QueryRow("SELECT COUNT(*) FROM m_one").Scan(&n); err != nil || n != 1 {
			t.Errorf("rows of the first file: got %d, %v, want 1, nil", n, err)
		}
		// Another component in the same version table counts by itself.
		other := migrate.Set{Name: "other", Dialect: d, FS: files("CREATE TABLE o_one (a int)")}
		wantUp(t, other, db, 1)
	})
}

func TestMigrateRefusesNewer(t *testing.T) {
	sagadb.Each(t, func(t *testing.T, d sqldialect.Dialect) {
		db, ctx := sagadb.Open(t, d), t.Context()
		wantUp(t, migrate.Set{Name: "m", Dialect: d, FS: files(one, two)}, db, 2)
		old := migrate.Set{Name: "m", Dialect: d, FS: files(one)}
		if err := old.Check(ctx, db); !errors.Is(err, migrate.ErrNewer) {
			t.Errorf("Check: got %v, want ErrNewer", err)
		}
		if _, err := old.Up(ctx, db); !errors.Is(err, migrate.ErrNewer) {
			t.Errorf("Up: got %v, want ErrNewer", err)
		}
		// The third file says that code which knows two still works.
		wantUp(t, migrate.Set{Name: "m", Dialect: d, FS: files(one, two, three)}, db, 1)
		if err := (migrate.Set{Name: "m", Dialect: d, FS: files(one, two)}).Check(ctx, db); err != nil {
			t.Errorf("Check with code that the newest file suffers: got %v, want nil", err)
		}
		if err := old.Check(ctx, db); !errors.Is(err, migrate.ErrNewer) {
			t.Errorf("Check with code older than that: got %v, want ErrNewer", err)
		}
	})
}

func TestMigrateTwoAtOnce(t *testing.T) {
	sagadb.Each(t, func(t *testing.T, d sqldialect.Dialect) {
		dsn := sagadb.DSN(t, d)
		set := migrate.Set{Name: "m", Dialect: d, FS: files(one, two, three)}
		const n = 6
		applied, errs := make([]int, n), make([]error, n)
		var wg sync.WaitGroup
		for i := range n {
			db := sagadb.Pool(t, d, dsn)
			wg.Go(func() { applied[i], errs[i] = set.Up(t.Context(), db) })
		}
		wg.Wait()
		sum := 0
		for i := range n {
			if errs[i] != nil {
				t.Errorf("Up number %d: got %v, want nil", i, errs[i])
			}
			sum += applied[i]
		}
		if sum != 3 {
			t.Errorf("files applied by all: got %d, want 3", sum)
		}
	})
}

func TestMigrateFailureLeavesNothing(t *testing.T) {
	sagadb.Each(t, func(t *testing.T, d sqldialect.Dialect) {
		db, ctx := sagadb.Open(t, d), t.Context()
		bad := migrate.Set{Name: "m", Dialect: d, FS: files("CREATE TABLE IF NOT EXISTS m_one (a int); nonsense;")}
		if _, err := bad.Up(ctx, db); err == nil {
			t.Fatal("Up with a broken file: got nil, want an error")
		}
		if err := bad.Check(ctx, db); !errors.Is(err, migrate.ErrOlder) {
			t.Errorf("Check after the failure: got %v, want ErrOlder", err)
		}
		// The lock is free and the file, put right, is applied from its start.
		wantUp(t, migrate.Set{Name: "m", Dialect: d, FS: files("CREATE TABLE IF NOT EXISTS m_one (a int);")}, db, 1)
	})
}

func wantUp(t *testing.T, set migrate.Set, db *sql.DB, want int) {
	t.Helper()
	got, err := set.Up(context.WithoutCancel(t.Context()), db)
	if err != nil || got != want {
		t.Fatalf("Up: got %d, %v, want %d, nil", got, err, want)
	}
}

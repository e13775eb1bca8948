package shop

import (
	"errors"
	"os/exec"
	"strings"
	"testing"

	"github.com/backstay-go/backstay/integration/saga/sagadb"
	"github.com/backstay-go/backstay/internal/sqldialect"
)

// TestPostgres starts the shop as it is built by default, without a driver for PostgreSQL, with a database of PostgreSQL: it builds and runs itself again. Its processes
// have the driver, and the interrupt at the end reaches it (start checks how it ends).
func TestPostgres(t *testing.T) {
	long(t)
	dsn := sagadb.DSN(t, sqldialect.Postgres)
	warm := exec.Command("go", "build", "-tags", "postgres", "-o", t.TempDir(), "./shop") // start waits for a minute
	warm.Dir = "../../examples"
	if out, err := warm.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	address := start(t, "-fresh", "-data", t.TempDir(), "-processes", "-postgres", dsn)
	if got := look(t, address).Database; got != "PostgreSQL" {
		t.Errorf("the page says %q, want PostgreSQL", got)
	}
	db := sagadb.Pool(t, sqldialect.Postgres, dsn)
	var n int
	if err := db.QueryRowContext(t.Context(), "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'shop_%'").Scan(&n); err != nil || n != 5 {
		t.Errorf("got %d schemas of services (error %v), want 5", n, err)
	}
}

// TestPostgresFails: what the shop that was built again says, and its exit status, are those of the one that was started; without a go command
// there is a word on what to type.
func TestPostgresFails(t *testing.T) {
	long(t)
	file, err := program()
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		env  []string
		want []string
	}{
		"no server": {nil, []string{"shop: building the PostgreSQL driver", "127.0.0.1:1"}},
		"no go":     {[]string{"PATH=" + t.TempDir()}, []string{"go run -tags postgres github.com/backstay-go/backstay/examples/shop"}},
	} {
		t.Run(name, func(t *testing.T) {
			shop := exec.Command(file, "-data", t.TempDir(), "-fresh", "-postgres", "postgres://postgres@127.0.0.1:1/none?sslmode=disable")
			shop.Env = append(shop.Environ(), c.env...)
			out, err := shop.CombinedOutput()
			if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 1 {
				t.Errorf("got %v, want exit status 1", err)
			}
			for _, want := range c.want {
				if !strings.Contains(string(out), want) {
					t.Errorf("%q is missing in:\n%s", want, out)
				}
			}
		})
	}
}

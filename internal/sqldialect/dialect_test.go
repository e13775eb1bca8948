package sqldialect_test

import (
	"strings"
	"testing"

	"github.com/backstay-go/backstay/internal/sqldialect"
)

func TestRebind(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"SELECT 1", "SELECT 1"},
		{"a = ? AND b = ?", "a = $1 AND b = $2"},
		{"a = '?' AND \"?\" = ?", "a = '?' AND \"?\" = $1"},
		{"a = 'it''s ?' AND b = ?", "a = 'it''s ?' AND b = $1"},
	} {
		if got := sqldialect.Postgres.Rebind(c.in); got != c.want {
			t.Errorf("Postgres.Rebind(%q): got %q, want %q", c.in, got, c.want)
		}
		if got := sqldialect.MySQL.Rebind(c.in); got != c.in {
			t.Errorf("MySQL.Rebind(%q): got %q, want it unchanged", c.in, got)
		}
	}
}

func TestRows(t *testing.T) {
	if got, want := sqldialect.Postgres.Rows(2, 3, 4), "($4,$5,$6),($7,$8,$9)"; got != want {
		t.Errorf("Postgres.Rows: got %q, want %q", got, want)
	}
	if got, want := sqldialect.SQLite.Rows(2, 2, 9), "(?,?),(?,?)"; got != want {
		t.Errorf("SQLite.Rows: got %q, want %q", got, want)
	}
	if got, want := sqldialect.Postgres.List(3, 1), "($1,$2,$3)"; got != want {
		t.Errorf("Postgres.List: got %q, want %q", got, want)
	}
}

func TestCheckName(t *testing.T) {
	for _, name := range []string{"a", "_", "outbox", "outbox_2", strings.Repeat("a", 63)} {
		if err := sqldialect.CheckName(name, false); err != nil {
			t.Errorf("CheckName(%q): got %v, want nil", name, err)
		}
		if err := sqldialect.CheckName("app."+name, true); err != nil {
			t.Errorf("CheckName(app.%q): got %v, want nil", name, err)
		}
	}
	for _, name := range []string{"", ".", "a.", ".a", "a.b.c", "A", "1a", "a-b", "a b", "a;b", `a"b`, "a\x00", "é", strings.Repeat("a", 64)} {
		if sqldialect.CheckName(name, true) == nil {
			t.Errorf("CheckName(%q): got nil, want an error", name)
		}
	}
	if sqldialect.CheckName("a.b", false) == nil {
		t.Error("CheckName(a.b) without schema: got nil, want an error")
	}
}

func TestQuote(t *testing.T) {
	if got, want := sqldialect.Postgres.Quote("app.outbox"), `"app"."outbox"`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, want := sqldialect.MySQL.Quote("outbox"), "`outbox`"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, want := sqldialect.SQLite.Quote(`a"b`), `"a""b"`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

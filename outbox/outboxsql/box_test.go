package outboxsql_test

import (
	"encoding/json"
	"io/fs"
	"strings"
	"testing"

	"github.com/backstay-go/backstay/outbox/outboxsql"
)

func TestConfig(t *testing.T) {
	for name, ok := range map[string]bool{
		"": true, "outbox": true, "app.outbox": true, "_a1": true, "a.b.c": false, "Outbox": false, "1a": false, "a-b": false, `a"b`: false, "a;drop": false, "ä": false,
		strings.Repeat("a", 49): true, strings.Repeat("a", 50): false, "a.": false, ".a": false, "a\x00": false,
	} {
		for _, cfg := range []outboxsql.Config{{Table: name}, {InboxTable: name}} {
			if err := cfg.Validate(); (err == nil) != ok {
				t.Errorf("%q: got %v, want it accepted: %v", name, err, ok)
			}
		}
	}
	for _, n := range []int{-1, 257} {
		err := outboxsql.Config{Partitions: n, Table: "A"}.Validate()
		if err == nil || !strings.Contains(err.Error(), "Config.Partitions") || !strings.Contains(err.Error(), "Config.Table") {
			t.Errorf("%d partitions and a bad name: got %v, want both faults", n, err)
		}
	}
	text, err := json.Marshal(outboxsql.Config{Table: "a", StrictKeys: true})
	if want := `{"table":"a","strictKeys":true}`; err != nil || string(text) != want {
		t.Errorf("Marshal: got %s, %v, want %s", text, err, want)
	}
	var cfg outboxsql.Config
	if err := json.Unmarshal([]byte(`{"tabel":"a"}`), &cfg); err == nil {
		t.Error("an unknown field: got nil, want an error")
	}
}

// The files of the dialects go together, and each step up has a step down.
func TestMigrations(t *testing.T) {
	var first []string
	for _, d := range []outboxsql.Dialect{outboxsql.Postgres, outboxsql.MySQL, outboxsql.SQLite} {
		names, err := fs.Glob(outboxsql.Migrations(d), "*.sql")
		if err != nil || len(names) == 0 || len(names)%2 != 0 {
			t.Errorf("%v: got %v, %v, want pairs of files", d, names, err)
		}
		if first == nil {
			first = names
		}
		if strings.Join(names, " ") != strings.Join(first, " ") {
			t.Errorf("%v: got %v, want %v as elsewhere", d, names, first)
		}
	}
}

// Channel names fit PostgreSQL's identifiers and differ between tables.
func TestChannel(t *testing.T) {
	long := strings.Repeat("s", 60) + "." + strings.Repeat("t", 40)
	seen := map[string]bool{}
	for _, table := range []string{"outbox", "a.outbox", "b.outbox", long, long + "u"} {
		c := outboxsql.New(outboxsql.Postgres, outboxsql.Config{Table: table}).Channel()
		if len(c) > 63 || seen[c] {
			t.Errorf("table %s: channel %s is too long or another's", table, c)
		}
		seen[c] = true
	}
}

package sagatest

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/backstay-go/backstay/saga"
)

// Compatible compares the graph of def with the one kept in file, and fails t when they differ: a changed graph
// needs a new version, since instances of the old one may be under way. When file does not exist it is written, to be checked in.
// Timeouts, attempts and backoffs may change within a version.
func Compatible[I any](t testing.TB, file string, def *saga.Definition[I]) {
	t.Helper()
	got := def.Shape()
	data, err := os.ReadFile(file)
	if os.IsNotExist(err) {
		out, err := json.MarshalIndent(got, "", "\t")
		if err == nil {
			err = os.MkdirAll(filepath.Dir(file), 0o755)
		}
		if err == nil {
			err = os.WriteFile(file, append(out, '\n'), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("wrote %s: check it in", file)
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	var want saga.Shape
	if err := json.Unmarshal(data, &want); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	if got.Hash() != want.Hash() {
		t.Errorf("%s version %d has another graph than %s: raise its version and keep the old one registered", got.Def, got.Ver, file)
	}
}

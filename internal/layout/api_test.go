package layout_test

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/backstay-go/backstay/internal/layout"
)

var update = flag.Bool("update", false, "rewrite the golden files of exported names")

const root = "../.."

// read parses the repository once for all tests.
func read(t *testing.T) []*layout.Package {
	t.Helper()
	all, err := layout.Read(root)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestAPI compares the exported names of every package with api/, one file each. A difference that is meant is recorded with `make api`, in
// the same commit and with a line in the CHANGELOG.
func TestAPI(t *testing.T) {
	dir := filepath.Join(root, "api")
	want := map[string]bool{}
	for _, p := range read(t) {
		if p.Internal() || len(p.Files) == 0 {
			continue
		}
		name := "backstay.txt"
		if p.Dir != "." {
			name = strings.ReplaceAll(p.Dir, "/", ".") + ".txt"
		}
		want[name] = true
		got := strings.Join(layout.API(p), "\n") + "\n"
		file := filepath.Join(dir, name)
		if *update {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		golden, err := os.ReadFile(file)
		if err != nil {
			t.Errorf("package %s has no golden file: make api", p.Dir)
			continue
		}
		report(t, p.Dir, strings.Split(string(golden), "\n"), strings.Split(got, "\n"))
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if want[f.Name()] {
			continue
		}
		if *update {
			if err := os.Remove(filepath.Join(dir, f.Name())); err != nil {
				t.Fatal(err)
			}
			continue
		}
		t.Errorf("api/%s is of no package: make api", f.Name())
	}
}

// report names what is in one of the lists only.
func report(t *testing.T, pkg string, golden, got []string) {
	t.Helper()
	for _, line := range golden {
		if !slices.Contains(got, line) {
			t.Errorf("package %s: no longer there or changed: %s", pkg, line)
		}
	}
	for _, line := range got {
		if !slices.Contains(golden, line) {
			t.Errorf("package %s: new: %s", pkg, line)
		}
	}
}

// TestAPIForm shows what a line of each kind looks like.
func TestAPIForm(t *testing.T) {
	dir := t.TempDir()
	src := `package p
import "time"
const A, b = 1, 2
var V, w int
type S[T any] struct { F time.Duration ` + "`json:\"f\"`" + `; g int; time.Time; inner }
type inner struct{}
type I interface { M(x int) error; hidden() }
type N int
type Al = N
type hidden struct{}
func F[T any](x T) (y T, err error) { return }
func f() {}
func (s *S[T]) M() {}
func (h hidden) M() {}
`
	if err := os.WriteFile(filepath.Join(dir, "p.go"), []byte(src), 0o600); err != nil {
		t.Fatal(err)
	}
	all, err := layout.Read(dir)
	if err != nil || len(all) != 1 {
		t.Fatalf("got %d packages and error %v, want 1 and nil", len(all), err)
	}
	want := []string{
		"const A",
		"func F[T any](x T) (y T, err error)",
		"method (*S[T]) M()",
		"type Al = N",
		"type I interface",
		"type I interface, M(x int) error",
		"type I interface, hidden()",
		"type N int",
		"type S[T any] struct",
		"type S[T any] struct, F time.Duration `json:\"f\"`",
		"type S[T any] struct, time.Time",
		"var V int",
	}
	if got := layout.API(all[0]); !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

package mutants_test

import (
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/backstay-go/backstay/integration/mutants"
)

var (
	all   = flag.Bool("all", false, "run every mutant")
	third = flag.Int("third", -1, "run the mutants of one third: 0, 1 or 2")
	only  = flag.String("only", "", "run the mutants whose names begin so")
)

// limit is how long a test may take to notice, its compilation included.
const limit = 3 * time.Minute

// tries is how often a test may run to notice a mutant. Some mutants break what only chance brings about, a race or a lost wake-up; a test that needs
// more than one try is named, since it should provoke what it waits for.
const tries = 3

// TestMutants applies each chosen mutant and expects its test to fail; without a flag it only sees that every patch still
// applies, which takes a second.
//
//	go test ./integration/mutants -all
//	go test ./integration/mutants -third 0
//	go test ./integration/mutants -only breaker-
func TestMutants(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("*.patch")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Skip("there are no mutants")
	}
	var baselines sync.Map // of module and arguments: a func() error that runs the test on the source as it is, once
	for i, file := range files {
		t.Run(strings.TrimSuffix(file, ".patch"), func(t *testing.T) {
			t.Parallel()
			m, err := mutants.Read(file)
			if err != nil {
				t.Fatal(err)
			}
			overlay, err := m.Apply(root, t.TempDir())
			if err != nil {
				t.Fatalf("%s: %v", m.Words, err)
			}
			if !*all && *third != i%3 && (*only == "" || !strings.HasPrefix(m.Name, *only)) {
				return
			}
			// A test that fails anyway notices nothing.
			run, _ := baselines.LoadOrStore(m.Module+" "+strings.Join(m.Args, " "), sync.OnceValues(func() (string, error) {
				return goTest(t, root, m)
			}))
			if out, err := run.(func() (string, error))(); err != nil {
				t.Fatalf("go test %s fails without the mutant: %v\n%s", strings.Join(m.Args, " "), err, tail(out))
			}
			for try := 1; ; try++ {
				out, err := goTest(t, root, m, "-overlay="+overlay, "-count=1")
				err = mutants.Judge(out, err)
				if err == nil {
					break
				}
				if !errors.Is(err, mutants.ErrSurvived) || try == tries {
					t.Errorf("%s: %v\n%s", m.Words, err, tail(out))
					break
				}
				t.Logf("%s: its test noticed nothing at try %d: it should be made certain", m.Words, try)
			}
		})
	}
}

// goTest runs the mutant's test and returns its output.
func goTest(t *testing.T, root string, m *mutants.Mutant, extra ...string) (string, error) {
	t.Helper()
	args := append([]string{"test", "-vet=off", "-failfast", "-timeout=" + limit.String()}, extra...)
	cmd := exec.CommandContext(t.Context(), "go", append(args, m.Args...)...)
	cmd.Dir = filepath.Join(root, filepath.FromSlash(m.Module))
	cmd.Env = os.Environ()
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// tail returns the last lines of out.
func tail(out string) string {
	const most = 2000
	if len(out) > most {
		out = "…" + out[len(out)-most:]
	}
	return out
}

// TestJudge holds what counts as noticed.
func TestJudge(t *testing.T) {
	failed := exec.CommandContext(t.Context(), "false").Run()
	for out, want := range map[string]bool{
		"--- FAIL: TestX (0.00s)\nFAIL\nFAIL\tp\t0.1s": true,
		"panic: boom\nFAIL\tp\t0.1s":                   true,
		"FAIL\tp [build failed]":                       false,
		"FAIL\tp [setup failed]":                       false,
		"go: cannot find main module":                  false,
	} {
		if got := mutants.Judge(out, failed) == nil; got != want {
			t.Errorf("got noticed %v for %q, want %v", got, out, want)
		}
	}
	if err := mutants.Judge("ok p 0.1s", nil); !errors.Is(err, mutants.ErrSurvived) {
		t.Errorf("got %v for a test that passes, want %v", err, mutants.ErrSurvived)
	}
	if err := mutants.Judge("ok p 0.1s [no tests to run]", nil); err == nil || errors.Is(err, mutants.ErrSurvived) {
		t.Errorf("got %v for a line that names no test, want an error of its own", err)
	}
}

// TestApply holds that a patch changes a copy and that one which does not fit is refused.
func TestApply(t *testing.T) {
	root, dir := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(root, "a.txt"), []byte("one\ntwo\nthree\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	patch := filepath.Join(dir, "x.patch")
	text := "mutant: two is four\ntest: . ./p -run 'TestA|Test B' -x \"y z\" -v\n\n--- a/a.txt\n+++ b/a.txt\n@@ -1,3 +1,3 @@\n one\n-two\n+four\n three\n"
	if err := os.WriteFile(patch, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	m, err := mutants.Read(patch)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Join(m.Args, ","), "./p,-run,TestA|Test B,-x,y z,-v"; got != want {
		t.Errorf("got arguments %s, want %s", got, want)
	}
	to := t.TempDir()
	if _, err := m.Apply(root, to); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(filepath.Join(to, "a.txt")); string(got) != "one\nfour\nthree\n" {
		t.Errorf("got %q, want the second line changed", got)
	}
	if err := os.WriteFile(filepath.Join(root, "a.txt"), []byte("something else\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Apply(root, t.TempDir()); err == nil {
		t.Error("got no error for a patch that does not fit, want one")
	}
}

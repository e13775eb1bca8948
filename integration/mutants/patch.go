package mutants

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Mutant is one patch file.
type Mutant struct {
	Name   string
	Words  string   // what is broken
	Module string   // folder of the module whose test must notice
	Args   []string // of go test
	Files  []string // which the diff changes, below the root
	Diff   string
}

// Read reads a patch file.
func Read(file string) (*Mutant, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	m := &Mutant{Name: strings.TrimSuffix(filepath.Base(file), ".patch")}
	lines := strings.SplitN(string(text), "\n", 3)
	if len(lines) < 3 {
		return nil, fmt.Errorf("%s: want two lines of header and a diff", m.Name)
	}
	var ok bool
	if m.Words, ok = strings.CutPrefix(lines[0], "mutant: "); !ok {
		return nil, fmt.Errorf("%s: the first line must be `mutant: what is broken`", m.Name)
	}
	test, ok := strings.CutPrefix(lines[1], "test: ")
	if m.Args = fields(test); !ok || len(m.Args) < 2 {
		return nil, fmt.Errorf("%s: the second line must be `test: module-folder arguments of go test`", m.Name)
	}
	m.Module, m.Args = m.Args[0], m.Args[1:]
	m.Diff = strings.TrimLeft(lines[2], "\n")
	for line := range strings.Lines(m.Diff) {
		if name, ok := strings.CutPrefix(line, "+++ b/"); ok {
			m.Files = append(m.Files, strings.TrimSpace(name))
		}
	}
	if len(m.Files) == 0 {
		return nil, fmt.Errorf("%s: no file is changed (paths must begin with a/ and b/)", m.Name)
	}
	return m, nil
}

// fields splits s at spaces, except within quotes of either kind.
func fields(s string) []string {
	var all []string
	for i, part := range strings.FieldsFunc(s, func(r rune) bool { return r == '\'' || r == '"' }) {
		if i%2 == 1 {
			all = append(all, part)
			continue
		}
		all = append(all, strings.Fields(part)...)
	}
	return all
}

// Apply patches copies of the mutant's files in dir and returns the overlay file that puts them in place of those below root.
func (m *Mutant) Apply(root, dir string) (overlay string, err error) {
	replace := map[string]string{}
	for _, name := range m.Files {
		src := filepath.Join(root, filepath.FromSlash(name))
		text, err := os.ReadFile(src)
		if err != nil {
			return "", err
		}
		to := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return "", err
		}
		if err := os.WriteFile(to, text, 0o600); err != nil {
			return "", err
		}
		replace[src] = to
	}
	cmd := exec.Command("git", "apply", "--whitespace=nowarn", "-")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_CEILING_DIRECTORIES="+filepath.Dir(dir))
	cmd.Stdin = strings.NewReader(m.Diff)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("the patch does not apply any more: %w\n%s", err, out)
	}
	text, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	overlay = filepath.Join(dir, "overlay.json")
	return overlay, os.WriteFile(overlay, text, 0o600)
}

// ErrSurvived is the result of a mutant that its test did not notice.
var ErrSurvived = errors.New("no test noticed")

// Judge says from the outcome of go test whether the mutant was noticed. What does not build, or runs no test, proves nothing.
func Judge(out string, err error) error {
	var exit *exec.ExitError
	switch {
	case strings.Contains(out, "[build failed]") || strings.Contains(out, "[setup failed]"):
		return errors.New("it does not build")
	case strings.Contains(out, "no tests to run") || strings.Contains(out, "no test files"):
		return errors.New("its line names no test")
	case err == nil:
		return ErrSurvived
	case errors.As(err, &exit) && strings.Contains(out, "FAIL"):
		return nil
	default:
		return fmt.Errorf("go test: %w", err)
	}
}

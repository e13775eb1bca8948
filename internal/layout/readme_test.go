package layout_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestReadme holds that the Go code in README.md and in the guides stands word for word, indentation aside, in a file that is compiled: a test
// or an example program. In a guide, code with an ellipsis is a sketch and is not looked for.
func TestReadme(t *testing.T) {
	documents := []string{filepath.Join(root, "README.md")}
	guides, err := filepath.Glob(filepath.Join(root, "docs", "guides", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	sources := compiled(t)
	blocks := 0
	for _, name := range append(documents, guides...) {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, block := range goBlocks(string(text)) {
			if name != documents[0] && strings.Contains(block, "…") {
				continue
			}
			blocks++
			if !found(sources, block) {
				t.Errorf("%s: this code is in no test and in no example:\n%s", filepath.Base(name), block)
			}
		}
	}
	if blocks == 0 {
		t.Error("got no Go code in README.md, want some")
	}
}

// TestReadmeLength holds that the README can be read in one go.
func TestReadmeLength(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(text), "\n"); n > 250 {
		t.Errorf("got %d lines, want at most 250", n)
	}
}

// goBlocks returns the code between ```go and ```.
func goBlocks(text string) []string {
	var blocks []string
	for {
		_, rest, ok := strings.Cut(text, "\n```go\n")
		if !ok {
			return blocks
		}
		block, after, ok := strings.Cut(rest, "\n```")
		if !ok {
			return blocks
		}
		blocks = append(blocks, block)
		text = after
	}
}

// compiled returns the text of every test and example program, each line trimmed.
func compiled(t *testing.T) []string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(name, ".go") {
			return err
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		if !strings.HasSuffix(name, "_test.go") && !strings.HasPrefix(filepath.ToSlash(rel), "examples/") {
			return nil
		}
		text, err := os.ReadFile(name)
		if err == nil {
			all = append(all, trimmed(string(text)))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// trimmed returns text with each line's own indentation and empty lines taken away.
func trimmed(text string) string {
	var s strings.Builder
	s.WriteByte('\n')
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" {
			s.WriteString(line)
			s.WriteByte('\n')
		}
	}
	return s.String()
}

func found(sources []string, block string) bool {
	want := trimmed(block)
	for _, s := range sources {
		if strings.Contains(s, want) {
			return true
		}
	}
	return false
}

// TestFound holds that a changed line is noticed.
func TestFound(t *testing.T) {
	sources := []string{trimmed("func Example() {\n\ta := 1\n\n\tb := 2\n}\n")}
	if !found(sources, "a := 1\nb := 2") {
		t.Error("got false for code that is there, want true")
	}
	for _, block := range []string{"a := 1\nb := 3", "a := 1\nc := 3\nb := 2", "= 1"} {
		if found(sources, block) {
			t.Errorf("got true for %q, want false", block)
		}
	}
	if got := goBlocks("text\n```go\na := 1\n```\nmore\n```sh\nls\n```\n"); len(got) != 1 || got[0] != "a := 1" {
		t.Errorf("got %q, want the one block of Go", got)
	}
}

// link is the target of a link in Markdown.
var link = regexp.MustCompile(`\]\(([^)\s]+)\)`)

// TestLinks holds that links within the repository lead somewhere.
func TestLinks(t *testing.T) {
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(name, ".md") {
			return err
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			target, _, _ := strings.Cut(m[1], "#")
			if target == "" || strings.Contains(target, "://") || strings.HasPrefix(target, "mailto:") {
				continue
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(name), filepath.FromSlash(target))); err != nil {
				t.Errorf("%s: the link to %s leads nowhere", strings.TrimPrefix(filepath.ToSlash(name), root+"/"), target)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

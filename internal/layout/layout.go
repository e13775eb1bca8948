// Package layout reads the repository's own source, so that tests can hold its rules: which package may import which, which
// names are exported, whether the code in the README is real.
package layout

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
)

// Module is the import path of the root module.
const Module = "github.com/backstay-go/backstay"

// Package is one folder of Go source.
type Package struct {
	Dir   string // below the root, with slashes; "." for the root itself
	Name  string
	Mod   string               // the module's folder; "." for the root module
	Files map[string]*ast.File // by path below the root; without tests
	Tests map[string]*ast.File
	Fset  *token.FileSet
}

// Path returns the import path.
func (p *Package) Path() string { return path.Join(Module, p.Dir) }

// Internal reports whether the package is out of reach of users: internal, or in a module that is not for import.
func (p *Package) Internal() bool {
	first, _, _ := strings.Cut(p.Dir, "/")
	switch first {
	case "examples", "integration", "bench":
		return true
	}
	return p.Name == "main" || strings.Contains("/"+p.Dir+"/", "/internal/")
}

// Imports returns the import paths of files, in no order.
func Imports(files map[string]*ast.File) map[string]bool {
	all := map[string]bool{}
	for _, f := range files {
		for _, s := range f.Imports {
			if p, err := strconv.Unquote(s.Path.Value); err == nil {
				all[p] = true
			}
		}
	}
	return all
}

// Read parses every package below root, nested modules included.
func Read(root string) ([]*Package, error) {
	fset := token.NewFileSet()
	byDir := map[string]*Package{}
	var all []*Package
	var modules []string
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		base := d.Name()
		if d.IsDir() {
			if name != root && (strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_") || base == "testdata") {
				return fs.SkipDir
			}
			return nil
		}
		if base == "go.mod" {
			rel, err := filepath.Rel(root, filepath.Dir(name))
			modules = append(modules, filepath.ToSlash(rel))
			return err
		}
		if !strings.HasSuffix(base, ".go") || strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_") {
			return nil
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		src, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		f, err := parser.ParseFile(fset, rel, src, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		dir := path.Dir(rel)
		p := byDir[dir]
		if p == nil {
			p = &Package{Dir: dir, Files: map[string]*ast.File{}, Tests: map[string]*ast.File{}, Fset: fset}
			byDir[dir] = p
			all = append(all, p)
		}
		if strings.HasSuffix(base, "_test.go") {
			p.Tests[rel] = f
		} else {
			p.Files[rel] = f
			p.Name = f.Name.Name
		}
		return nil
	})
	for _, p := range all {
		p.Mod = "."
		for _, m := range modules {
			if len(m) > len(p.Mod) && strings.HasPrefix(p.Dir+"/", m+"/") {
				p.Mod = m
			}
		}
	}
	return all, err
}

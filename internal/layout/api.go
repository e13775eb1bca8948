package layout

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/printer"
	"go/token"
	"maps"
	"slices"
	"strings"
)

// API returns what users of p can name, one line each, sorted: functions with their signatures, types with their exported fields
// and methods, constants and variables. JSON tags stand with their fields, since they are a format.
func API(p *Package) []string {
	w := apiWriter{fset: p.Fset}
	for _, name := range slices.Sorted(maps.Keys(p.Files)) {
		for _, d := range p.Files[name].Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				w.function(d)
			case *ast.GenDecl:
				w.general(d)
			}
		}
	}
	slices.Sort(w.lines)
	return slices.Compact(w.lines)
}

type apiWriter struct {
	fset  *token.FileSet
	lines []string
}

func (w *apiWriter) add(format string, args ...any) {
	w.lines = append(w.lines, fmt.Sprintf(format, args...))
}

// text prints n on one line.
func (w *apiWriter) text(n any) string {
	var b bytes.Buffer
	if err := printer.Fprint(&b, w.fset, n); err != nil {
		return "?" + err.Error()
	}
	return strings.Join(strings.Fields(b.String()), " ")
}

func (w *apiWriter) function(d *ast.FuncDecl) {
	if !d.Name.IsExported() {
		return
	}
	signature := d.Name.Name + strings.TrimPrefix(w.text(d.Type), "func")
	if d.Recv == nil {
		w.add("func %s", signature)
		return
	}
	receiver := d.Recv.List[0].Type
	if ast.IsExported(typeName(receiver)) {
		w.add("method (%s) %s", w.text(receiver), signature)
	}
}

// typeName returns the name of a receiver's type, without pointer and parameters.
func typeName(e ast.Expr) string {
	for {
		switch t := e.(type) {
		case *ast.StarExpr:
			e = t.X
		case *ast.IndexExpr:
			e = t.X
		case *ast.IndexListExpr:
			e = t.X
		case *ast.Ident:
			return t.Name
		default:
			return ""
		}
	}
}

func (w *apiWriter) general(d *ast.GenDecl) {
	for _, s := range d.Specs {
		switch s := s.(type) {
		case *ast.ValueSpec:
			for _, n := range s.Names {
				if !n.IsExported() {
					continue
				}
				line := d.Tok.String() + " " + n.Name
				if s.Type != nil {
					line += " " + w.text(s.Type)
				}
				w.add("%s", line)
			}
		case *ast.TypeSpec:
			if s.Name.IsExported() {
				w.typ(s)
			}
		}
	}
}

func (w *apiWriter) typ(s *ast.TypeSpec) {
	name := s.Name.Name
	if s.TypeParams != nil {
		var params []string
		for _, f := range s.TypeParams.List {
			for _, n := range f.Names {
				params = append(params, n.Name+" "+w.text(f.Type))
			}
		}
		name += "[" + strings.Join(params, ", ") + "]"
	}
	if s.Assign.IsValid() {
		w.add("type %s = %s", name, w.text(s.Type))
		return
	}
	switch t := s.Type.(type) {
	case *ast.StructType:
		w.add("type %s struct", name)
		for _, f := range t.Fields.List {
			w.field(name, "struct", f)
		}
	case *ast.InterfaceType:
		w.add("type %s interface", name)
		for _, f := range t.Methods.List {
			w.field(name, "interface", f)
		}
	default:
		w.add("type %s %s", name, w.text(t))
	}
}

// field adds a field or a method of a type; one that is embedded has no name of its own.
func (w *apiWriter) field(owner, kind string, f *ast.Field) {
	typ := w.text(f.Type)
	if f.Tag != nil {
		typ += " " + f.Tag.Value
	}
	if len(f.Names) == 0 && (kind == "interface" || ast.IsExported(lastName(f.Type))) {
		w.add("type %s %s, %s", owner, kind, typ)
	}
	for _, n := range f.Names {
		switch {
		case kind == "interface":
			w.add("type %s interface, %s%s", owner, n.Name, strings.TrimPrefix(typ, "func")) // unexported methods close an interface
		case n.IsExported():
			w.add("type %s struct, %s %s", owner, n.Name, typ)
		}
	}
}

// lastName returns the name that an embedded field has.
func lastName(e ast.Expr) string {
	if s, ok := e.(*ast.SelectorExpr); ok {
		return s.Sel.Name
	}
	if s, ok := e.(*ast.StarExpr); ok {
		return lastName(s.X)
	}
	return typeName(e)
}

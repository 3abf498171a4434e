package gatehouse_test

import (
	"fmt"
	"go/ast"
	"go/token"
	"slices"
	"strings"
)

// A package variable may be: an error made by errors.New or fmt.Errorf, a compiled regular expression, a table built from
// literals, conversions and functions that only compute, an embedded file. Nothing may write to it. What a method with a pointer
// receiver does to one cannot be seen here; that is why types made to change (sync, sync/atomic) are refused outright.

// computing lists functions of other packages that may make a package variable; "pkg.*" is all of pkg.
var computing = []string{
	"errors.New", "errors.Join", "fmt.Errorf", "fmt.Sprintf", "fmt.Sprint", "regexp.MustCompile", "net/netip.*", "strings.*",
	"slices.*", "maps.*", "bytes.*", "math.*", "cmp.*", "reflect.TypeFor", "reflect.TypeOf", "time.Date", "time.Unix", "unsafe.*",
	"sync.OnceValue", "sync.OnceValues", "strconv.*", "hash/crc32.MakeTable",
}

func checkVariables(t *tree) []string {
	var faults []string
	vars := map[string]map[string]*ast.ValueSpec{} // folder -> name -> where it is declared
	for f := range t.product {
		if f.generated {
			continue
		}
		if vars[f.dir] == nil {
			vars[f.dir] = map[string]*ast.ValueSpec{}
		}
		for _, d := range f.ast.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.VAR {
				continue
			}
			for _, s := range g.Specs {
				v := s.(*ast.ValueSpec)
				faults = append(faults, t.declared(f, g, v)...)
				for _, n := range v.Names {
					vars[f.dir][n.Name] = v
				}
			}
		}
	}
	for f := range t.product {
		if !f.generated {
			faults = append(faults, t.written(f, vars)...)
		}
	}
	return faults
}

// declared checks one var declaration at package level.
func (t *tree) declared(f *source, g *ast.GenDecl, v *ast.ValueSpec) []string {
	var faults []string
	embedded := isEmbed(g.Doc) || isEmbed(v.Doc)
	for i, n := range v.Names {
		if n.Name == "_" || embedded {
			continue
		}
		if len(v.Values) == 0 {
			faults = append(faults, fmt.Sprintf("%s: package variable %s has no value, so something must write to it. Make it a field of "+
				"a struct that cmd/gatehouse builds, or a local variable", t.at(n), n.Name))
			continue
		}
		val := v.Values[min(i, len(v.Values)-1)]
		if n.IsExported() && !f.isError(val) {
			faults = append(faults, fmt.Sprintf("%s: exported package variable %s: everybody can change it. Make it a function that "+
				"returns the value, or a constant", t.at(n), n.Name))
		}
		if bad, why := f.mutable(val); bad != nil {
			faults = append(faults, fmt.Sprintf("%s: package variable %s %s. Make it a field of a struct that cmd/gatehouse builds, or a "+
				"table of literals", t.at(bad), n.Name, why))
		}
	}
	return faults
}

func isEmbed(c *ast.CommentGroup) bool {
	return c != nil && slices.ContainsFunc(c.List, func(c *ast.Comment) bool { return strings.HasPrefix(c.Text, "//go:embed ") })
}

// isError says whether e makes a new error.
func (f *source) isError(e ast.Expr) bool {
	c, ok := e.(*ast.CallExpr)
	return ok && slices.Contains([]string{"errors.New", "fmt.Errorf"}, f.qualified(c.Fun))
}

// qualified is "path/of/import.Name" for pkg.Name, else "".
func (f *source) qualified(e ast.Expr) string {
	s, ok := e.(*ast.SelectorExpr)
	if !ok {
		return ""
	}
	x, ok := s.X.(*ast.Ident)
	if !ok || x.Obj != nil || f.imports[x.Name] == "" {
		return ""
	}
	return f.imports[x.Name] + "." + s.Sel.Name
}

// mutable finds the part of an initialiser that makes something which is meant to change, and says why it is one.
func (f *source) mutable(e ast.Expr) (bad ast.Node, why string) {
	ast.Inspect(e, func(n ast.Node) bool {
		if bad != nil {
			return false
		}
		switch n := n.(type) {
		case *ast.FuncLit:
			return false // what it does inside is seen by written
		case *ast.UnaryExpr:
			if n.Op == token.ARROW {
				bad, why = n, "receives from a channel"
			}
		case *ast.SelectorExpr:
			if q := f.qualified(n); strings.HasPrefix(q, "sync/atomic.") ||
				strings.HasPrefix(q, "sync.") && !slices.Contains(computing, q) {
				bad, why = n, "is of type "+q+", which is made to change"
			}
		case *ast.CallExpr:
			if !f.computes(n.Fun) {
				bad, why = n, "is made by a call that may do more than compute"
			}
		}
		return bad == nil
	})
	return bad, why
}

// computes says whether calling fun only computes: conversions, functions of the own package, methods, function literals, and the
// functions in computing.
func (f *source) computes(fun ast.Expr) bool {
	switch fun := fun.(type) {
	case *ast.Ident:
		// make and new give something empty, which is only of use if it is filled later.
		return fun.Name != "make" && fun.Name != "new"
	case *ast.ParenExpr:
		return f.computes(fun.X)
	case *ast.IndexExpr:
		return f.computes(fun.X)
	case *ast.IndexListExpr:
		return f.computes(fun.X)
	case *ast.SelectorExpr:
		q := f.qualified(fun)
		if q == "" {
			return true // a method of a value that was checked, or of a variable of the package
		}
		if strings.HasPrefix(q, module) {
			return true // a room of ours: it has no state to change
		}
		pkg := q[:strings.LastIndexByte(q, '.')]
		return slices.Contains(computing, q) || slices.Contains(computing, pkg+".*")
	}
	return true // array, map and func types: conversions; function literals
}

// written finds writes to package variables of ours in f.
func (t *tree) written(f *source, vars map[string]map[string]*ast.ValueSpec) []string {
	var faults []string
	report := func(n ast.Node, e ast.Expr, what string) {
		if name, ok := f.packageVar(e, vars); ok {
			faults = append(faults, fmt.Sprintf("%s: %s package variable %s. State belongs in a struct that cmd/gatehouse builds; a table "+
				"is built by its initialiser, func() T { ... }()", t.at(n), what, name))
		}
	}
	ast.Inspect(f.ast, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.AssignStmt:
			if n.Tok != token.DEFINE {
				for _, l := range n.Lhs {
					report(n, l, "writes to")
				}
			}
		case *ast.IncDecStmt:
			report(n, n.X, "writes to")
		case *ast.RangeStmt:
			if n.Tok == token.ASSIGN {
				report(n, n.Key, "writes to")
				report(n, n.Value, "writes to")
			}
		case *ast.UnaryExpr:
			if _, plain := n.X.(*ast.Ident); plain && n.Op == token.AND {
				report(n, n.X, "gives away the address of")
			}
		case *ast.SendStmt:
			report(n, n.Chan, "sends on")
		case *ast.CallExpr:
			if fn, ok := n.Fun.(*ast.Ident); ok && fn.Obj == nil && len(n.Args) > 0 &&
				slices.Contains([]string{"delete", "clear", "copy", "close"}, fn.Name) {
				report(n, n.Args[0], "calls "+fn.Name+" on")
			}
		}
		return true
	})
	return faults
}

// packageVar resolves the variable that a write through e changes, and says whether it is a package variable of ours. A local
// variable of the same name is none: the parser resolves what is declared in a function.
func (f *source) packageVar(e ast.Expr, vars map[string]map[string]*ast.ValueSpec) (string, bool) {
	for {
		switch x := e.(type) {
		case *ast.ParenExpr:
			e = x.X
		case *ast.StarExpr:
			e = x.X
		case *ast.IndexExpr:
			e = x.X
		case *ast.SliceExpr:
			e = x.X
		case *ast.SelectorExpr:
			q := f.qualified(x)
			if q == "" {
				e = x.X
				continue
			}
			dir, ours := strings.CutPrefix(q[:strings.LastIndexByte(q, '.')], module)
			_, is := vars[dir][x.Sel.Name]
			return q, ours && is
		case *ast.Ident:
			spec, is := vars[f.dir][x.Name]
			return x.Name, is && x.Name != "_" && (x.Obj == nil || x.Obj.Decl == spec)
		default:
			return "", false
		}
	}
}

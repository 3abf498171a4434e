package gatehouse_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

const module = "github.com/gatehouse-io/gatehouse/"

// source is one Go file.
type source struct {
	path      string // from the repository's root
	dir       string
	nested    bool // in a module below the root
	test      bool // *_test.go
	generated bool
	lines     int
	ast       *ast.File
	imports   map[string]string // local name -> import path
}

// tree is every Go file of the repository and every folder.
type tree struct {
	fset    *token.FileSet
	files   []*source
	folders []string
}

// load parses every Go file below fsys, but for hidden folders, testdata and what is built.
func load(fsys fs.FS) (*tree, error) {
	t := &tree{fset: token.NewFileSet()}
	var modules []string
	err := fs.WalkDir(fsys, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() {
			if p != "." && (strings.HasPrefix(name, ".") || name == "testdata" || name == "node_modules" || p == "bin") {
				return fs.SkipDir
			}
			t.folders = append(t.folders, p)
			if _, err := fs.Stat(fsys, path.Join(p, "go.mod")); err == nil && p != "." {
				modules = append(modules, p+"/")
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") {
			return nil
		}
		b, err := fs.ReadFile(fsys, p)
		if err != nil {
			return err
		}
		f, err := parser.ParseFile(t.fset, p, b, parser.ParseComments)
		if err != nil {
			return fmt.Errorf("parsing: %w", err)
		}
		t.files = append(t.files, &source{
			path: p, dir: path.Dir(p), ast: f, test: strings.HasSuffix(name, "_test.go"), generated: ast.IsGenerated(f),
			nested:  slices.ContainsFunc(modules, func(m string) bool { return strings.HasPrefix(p, m) }),
			lines:   strings.Count(string(b), "\n"),
			imports: importNames(f),
		})
		return nil
	})
	return t, err
}

// importNames maps the names by which f knows its imports to their paths. A name that the import does not give is guessed as the
// last element of the path that is not a version.
func importNames(f *ast.File) map[string]string {
	m := map[string]string{}
	for _, s := range f.Imports {
		p, err := strconv.Unquote(s.Path.Value)
		if err != nil {
			continue
		}
		name := path.Base(p)
		if len(name) > 1 && name[0] == 'v' && name[1] >= '0' && name[1] <= '9' && strings.Contains(p, ".") {
			name = path.Base(path.Dir(p))
		}
		if s.Name != nil {
			name = s.Name.Name
		}
		m[name] = p
	}
	return m
}

// product yields the files that rooms consist of: no tests, no nested modules.
func (t *tree) product(yield func(*source) bool) {
	for _, f := range t.files {
		if !f.test && !f.nested && !yield(f) {
			return
		}
	}
}

func (t *tree) at(n ast.Node) string {
	p := t.fset.Position(n.Pos())
	return fmt.Sprintf("%s:%d", p.Filename, p.Line)
}

// room names the room of a folder: "route", "policy/cors", "api", "cmd", "examples". The second value is false for a folder
// that belongs to no room.
func room(dir string) (string, bool) {
	parts := strings.Split(dir, "/")
	switch parts[0] {
	case "api", "cmd", "examples":
		return parts[0], len(parts) > 1
	case "internal":
		if len(parts) > 2 && parts[1] == "policy" {
			return "policy/" + parts[2], true
		}
		return strings.Join(parts[1:], "/"), len(parts) == 2
	}
	return dir, false
}

// row finds room's row in rows: its own, or that of policy/*.
func row(rows map[string][]string, room string) ([]string, bool) {
	r, ok := rows[room]
	if !ok && strings.HasPrefix(room, "policy/") {
		r, ok = rows["policy/*"]
	}
	return r, ok
}

// listed says whether a list of rooms has room; "policy/*" stands for all below policy but builtin.
func listed(list []string, room string) bool {
	return slices.Contains(list, room) ||
		strings.HasPrefix(room, "policy/") && room != "policy/builtin" && slices.Contains(list, "policy/*")
}

func checkImports(t *tree) []string {
	var faults []string
	rows := table()
	for f := range t.product {
		from, ok := room(f.dir)
		allowed, known := row(rows, from)
		if !ok || !known {
			faults = append(faults, fmt.Sprintf("%s:1: folder %s is no room. Rooms lie flat under internal/, only policy/ has "+
				"folders below it: move the file into a room, or add the room to the table in arch_test.go and to ARCHITECTURE.md",
				f.path, f.dir))
			continue
		}
		for _, s := range f.ast.Imports {
			p, _ := strconv.Unquote(s.Path.Value)
			dir, ours := strings.CutPrefix(p, module)
			if !ours {
				continue
			}
			to, _ := room(dir)
			if to == from || listed(allowed, to) || allowed[0] == "*" && to != "edgetest" {
				continue
			}
			faults = append(faults, fmt.Sprintf("%s: room %s may not import room %s (it may: %s). Move the code, or declare a small "+
				"interface here and let cmd/gatehouse hand the value in; a new edge is a change of the table in arch_test.go "+
				"and of ARCHITECTURE.md", t.at(s), from, to, strings.Join(allowed, " ")))
		}
	}
	return faults
}

func checkOutside(t *tree) []string {
	var faults []string
	for f := range t.product {
		from, _ := room(f.dir)
		for _, s := range f.ast.Imports {
			p, _ := strconv.Unquote(s.Path.Value)
			best := -1
			for i, o := range outside {
				if strings.HasPrefix(p, o.prefix) && (best < 0 || len(o.prefix) > len(outside[best].prefix)) {
					best = i
				}
			}
			if best >= 0 && !listed(outside[best].rooms, from) {
				faults = append(faults, fmt.Sprintf("%s: room %s may not import %s. %s; only these may: %s",
					t.at(s), from, p, outside[best].why, strings.Join(outside[best].rooms, " ")))
			}
		}
	}
	return faults
}

func checkNetHTTP(t *tree) []string {
	var faults []string
	for f := range t.product {
		from, _ := room(f.dir)
		if !slices.Contains(noNetHTTP, from) {
			continue
		}
		for _, s := range f.ast.Imports {
			if s.Path.Value == `"net/http"` || strings.HasPrefix(s.Path.Value, `"net/http/`) {
				faults = append(faults, fmt.Sprintf("%s: room %s imports %s. Messages here are exchange.Exchange; write status codes as "+
					"numbers", t.at(s), from, s.Path.Value))
			}
		}
	}
	return faults
}

// impureImports may not be imported by a pure room; the steps of policies may use net/http's Request, for policy.Doer.
var impureImports = []string{
	"os", "os/exec", "os/signal", "os/user", "net", "net/http", "net/http/httputil", "syscall", "io/ioutil", "log",
	"golang.org/x/sys/unix", "path/filepath",
}

// impureNames are what a pure room may not mention of packages that it may import.
var impureNames = map[string][]string{
	"time":       {"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "NewTimer", "NewTicker", "Tick"},
	"crypto/tls": {"Dial", "DialWithDialer", "Dialer", "Listen", "NewListener", "Client", "Server", "LoadX509KeyPair"},
	"context":    {"WithTimeout", "WithDeadline", "WithTimeoutCause", "WithDeadlineCause", "AfterFunc"},
	"net/http":   {"Get", "Head", "Post", "PostForm", "Client", "DefaultClient", "Transport", "DefaultTransport", "Server", "ListenAndServe"},
}

func checkPure(t *tree) []string {
	var faults []string
	for f := range t.product {
		from, _ := room(f.dir)
		if !listed(pure, from) {
			continue
		}
		isPolicy := from == "policy" || strings.HasPrefix(from, "policy/")
		for _, s := range f.ast.Imports {
			p, _ := strconv.Unquote(s.Path.Value)
			if slices.Contains(impureImports, p) && (!isPolicy || p != "net/http") {
				faults = append(faults, fmt.Sprintf("%s: pure room %s imports %s. Let a room with effects (drive, upstream, manifest, "+
					"cmd) do it and hand the result in; for addresses use net/netip", t.at(s), from, p))
			}
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GoStmt:
				faults = append(faults, fmt.Sprintf("%s: pure room %s starts a goroutine. Return what is to be done; control, edge or "+
					"drive does it", t.at(n), from))
			case *ast.SelectorExpr:
				x, ok := n.X.(*ast.Ident)
				if !ok || x.Obj != nil {
					break
				}
				if p := f.imports[x.Name]; slices.Contains(impureNames[p], n.Sel.Name) {
					faults = append(faults, fmt.Sprintf("%s: pure room %s uses %s.%s. Time and network are effects: take the time as an "+
						"argument (Exchange.Start, an event's time) and leave waiting and calls to the caller", t.at(n), from, x.Name, n.Sel.Name))
				}
			}
			return true
		})
	}
	return faults
}

func checkInit(t *tree) []string {
	var faults []string
	for f := range t.product {
		for _, d := range f.ast.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" && !f.generated {
				faults = append(faults, fmt.Sprintf("%s: func init. Wiring is plain Go in cmd/gatehouse; lists such as policy/builtin "+
					"are written out", t.at(fn)))
			}
		}
	}
	return faults
}

func checkComments(t *tree) []string {
	var faults []string
	docs := map[string][]string{} // folder -> files with a package comment
	for f := range t.product {
		has := docs[f.dir]
		if f.ast.Doc != nil {
			has = append(has, f.path)
			name := f.ast.Name.Name
			text := f.ast.Doc.Text()
			want := "Package " + name + " "
			if name == "main" {
				want = "Command " + path.Base(f.dir) + " "
			}
			if !strings.HasPrefix(text, want) {
				faults = append(faults, fmt.Sprintf("%s:1: the package comment does not begin with %q", f.path, want))
			}
		}
		docs[f.dir] = has
	}
	for dir, files := range docs {
		switch {
		case len(files) == 0:
			faults = append(faults, fmt.Sprintf("%s: no package comment. Say in the room's main file what it promises and what it "+
				"never does", dir))
		case len(files) > 1:
			faults = append(faults, fmt.Sprintf("%s: package comments in %s. Keep one, in the room's main file", dir, strings.Join(files, ", ")))
		}
	}
	slices.Sort(faults)
	return faults
}

func checkFolders(t *tree) []string {
	var faults []string
	for _, d := range t.folders {
		if slices.Contains(badFolders, path.Base(d)) {
			faults = append(faults, fmt.Sprintf("%s: a folder's name says what is in it, and %q does not. Name it by a noun of the field, "+
				"or put the code where it is used", d, path.Base(d)))
		}
	}
	return faults
}

func checkLines(t *tree) []string {
	var faults []string
	for _, f := range t.files {
		if f.lines > maxLines && !f.generated {
			faults = append(faults, fmt.Sprintf("%s: %d lines, at most %d. Split it by subject", f.path, f.lines, maxLines))
		}
	}
	return faults
}

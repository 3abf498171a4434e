package manifest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"
)

func FuzzParse(f *testing.F) {
	names, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(names) == 0 {
		f.Fatalf("no seeds: %v", err)
	}
	for _, name := range names {
		a, err := txtar.ParseFile(name)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range a.Files {
			if file.Name != "faults" && file.Name != "objects" {
				f.Add(file.Data)
			}
		}
	}
	for _, s := range []string{
		"a: &a [*a]", "a: &a\n  b: *a", "kind: List\nitems: &a [*a]", "&r\nkind: List\nitems: [*r]", "? [a]\n: b", "<<: *x",
		"apiVersion: v1\nkind: ConfigMap\nmetadata: &m {name: a, labels: *m}", "\x00", "\ufeff---\n", "--- !!binary x",
		"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: &d {<<: *d}", "...\n...\n---\n---", "{\"a\": \"\\ud83d\\ude00\"}",
	} {
		f.Add([]byte(s))
	}
	if b, err := os.ReadFile("../../examples/shop/ingress.yaml"); err == nil {
		f.Add(b)
	}
	r := newReader()
	f.Fuzz(func(t *testing.T, data []byte) {
		s := newSet(r)
		s.files["f.yaml"] = r.files(text{name: "f.yaml", data: data})[0]
		objs, faults := s.merge()
		lines := strings.Count(string(data), "\n") + 1
		for _, f := range faults {
			if f.File != "f.yaml" || f.Message == "" || f.Line < 1 || f.Line > lines+1 {
				t.Errorf("fault %+v of a file of %d lines", f, lines)
			}
		}
		for _, o := range objs {
			if o.GetName() == "" {
				t.Errorf("%T without a name", o)
			}
		}
		again := newSet(r)
		again.files["f.yaml"] = r.files(text{"f.yaml", data, s.files["f.yaml"]})[0]
		if more, repeated := again.merge(); len(more) != len(objs) || len(repeated) != len(faults) {
			t.Errorf("from the cache: %d objects and %d faults, before %d and %d", len(more), len(repeated), len(objs), len(faults))
		}
	})
}

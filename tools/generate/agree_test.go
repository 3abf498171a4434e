package generate_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/manifest"
)

// example is one document of ours that stands somewhere in the repository.
type example struct {
	at    string
	text  string
	loose bool // put there to be wrong: a test looks at what becomes of it
}

// examples collects what is under examples and the test data of translate.
func examples(t *testing.T) []example {
	t.Helper()
	var out []example
	add := func(at, text string, loose bool) {
		for i, doc := range strings.Split(text, "\n---\n") {
			if strings.Contains(doc, "gatehouse.dev/v1alpha1") {
				out = append(out, example{fmt.Sprintf("%s document %d", at, i), doc, loose})
			}
		}
	}
	for _, root := range []string{"../../examples", "../../internal/translate/testdata", "../../docs"} {
		err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			data, err := os.ReadFile(p)
			switch filepath.Ext(p) {
			case ".yaml":
				add(p, string(data), false)
			case ".txtar":
				for _, f := range txtar.Parse(data).Files {
					if strings.HasSuffix(f.Name, ".yaml") {
						add(p+" "+f.Name, string(f.Data), strings.HasPrefix(f.Name, "loose"))
					}
				}
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// TestExamples: what the repository shows as good, a cluster takes too.
func TestExamples(t *testing.T) {
	crds := load(t)
	seen := map[string]int{}
	for _, e := range examples(t) {
		doc := decode(t, e.text)
		name, _ := doc["kind"].(string)
		k := crds[name]
		if e.loose || k == nil {
			continue
		}
		seen[name]++
		for _, f := range k.judge(t, doc) {
			t.Errorf("%s: the CRD refuses it: %s", e.at, f)
		}
	}
	for name := range crds {
		if seen[name] == 0 {
			t.Errorf("no example of %s was found", name)
		}
	}
}

// TestAgree: for each document the CRD and internal/manifest come to the same verdict. testdata/agree.txtar has documents that try
// each rule; those under "strict" are refused by the CRD alone, and say why.
func TestAgree(t *testing.T) {
	crds := load(t)
	data, err := os.ReadFile("testdata/agree.txtar")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range txtar.Parse(data).Files {
		want, ok := map[string][2]bool{ // of the CRD, of manifest
			"accepted.yaml": {true, true}, "refused.yaml": {false, false}, "strict.yaml": {false, true},
		}[f.Name]
		if !ok {
			t.Fatalf("testdata/agree.txtar: there is no verdict called %s", f.Name)
		}
		for i, text := range strings.Split(string(f.Data), "---\n") {
			at := fmt.Sprintf("%s document %d (%s)", f.Name, i, strings.TrimSpace(strings.SplitN(text, "\n", 2)[0]))
			text = fill(text)
			doc := decode(t, text)
			if doc == nil || crds[doc["kind"].(string)] == nil {
				t.Fatalf("%s is not an object of ours:\n%s", at, text)
			}
			server := crds[doc["kind"].(string)].judge(t, doc)
			files := parse(text)
			if (len(server) == 0) != want[0] {
				t.Errorf("%s: the CRD's faults: %q", at, server)
			}
			if (len(files) == 0) != want[1] {
				t.Errorf("%s: manifest's faults: %q", at, files)
			}
		}
	}
	for _, e := range examples(t) {
		doc := decode(t, e.text)
		if k := crds[doc["kind"].(string)]; k != nil && !e.loose { // translate too finds faults of loose ones, and its own test says so
			if server, files := k.judge(t, doc), parse(e.text); (len(server) == 0) != (len(files) == 0) {
				t.Errorf("%s: the CRD's faults %q, manifest's %q", e.at, server, files)
			}
		}
	}
}

// fill makes a whole object of "Kind: {spec}", which is all that the cases differ in.
func fill(text string) string {
	var lines []string
	for l := range strings.Lines(text) {
		if !strings.HasPrefix(l, "#") {
			lines = append(lines, l)
		}
	}
	kind, spec, _ := strings.Cut(strings.Join(lines, ""), ":")
	return "apiVersion: gatehouse.dev/v1alpha1\nkind: " + kind + "\nmetadata: {name: a, namespace: b}\nspec:" + spec
}

// parse returns manifest's faults of severity error.
func parse(text string) []string {
	_, faults := manifest.Parse("a.yaml", []byte(text))
	faults = slices.DeleteFunc(faults, func(f diag.Fault) bool { return f.Severity != diag.Error })
	var out []string
	for _, f := range faults {
		out = append(out, f.Path+": "+f.Message)
	}
	return out
}

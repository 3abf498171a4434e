package manifest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	yaml "go.yaml.in/yaml/v3"
	"golang.org/x/tools/txtar"

	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/objects"
)

// Each testdata/*.txtar holds files to read and, under "faults" and "objects", what is to come of them.
func TestGolden(t *testing.T) {
	names, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(names) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, name := range names {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txtar"), func(t *testing.T) {
			a, err := txtar.ParseFile(name)
			if err != nil {
				t.Fatal(err)
			}
			s := newSet(newReader())
			var kept []txtar.File
			for _, f := range a.Files {
				if f.Name == "faults" || f.Name == "objects" {
					continue
				}
				kept = append(kept, f)
				s.files[f.Name] = s.reader.files(text{name: f.Name, data: f.Data})[0]
			}
			objs, faults := s.merge()
			got := append(kept, txtar.File{Name: "faults", Data: faultText(faults)}, txtar.File{Name: "objects", Data: objectText(objs, strings.HasPrefix(filepath.Base(name), "defaults"))})
			a.Files = got
			if *update {
				if err := os.WriteFile(name, txtar.Format(a), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			want, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), string(txtar.Format(a))); d != "" {
				t.Errorf("(-want +got):\n%s\nto accept: go test ./internal/manifest -run TestGolden -update", d)
			}
		})
	}
}

func faultText(faults []diag.Fault) []byte {
	var b bytes.Buffer
	for _, f := range faults {
		fmt.Fprintln(&b, f)
	}
	return b.Bytes()
}

// objectText is one line for each object; whole, with what it decoded to.
func objectText(objs []objects.Object, whole bool) []byte {
	var b bytes.Buffer
	for _, o := range objs {
		fmt.Fprint(&b, objects.KeyOf(o))
		if s, ok := o.(*objects.Secret); ok {
			keys := make([]string, 0, len(s.Material.Data))
			for k, v := range s.Material.Data {
				keys = append(keys, fmt.Sprintf("%s (%d bytes)", k, v.Len()))
			}
			slices.Sort(keys)
			fmt.Fprintf(&b, ": %s: %s", s.Material.Type, strings.Join(keys, ", "))
		}
		fmt.Fprintln(&b)
		if whole {
			b.WriteString(fieldsText(o))
		}
	}
	return b.Bytes()
}

// fieldsText is an object as YAML, less name, kind and status.
func fieldsText(o objects.Object) string {
	j, err := json.Marshal(o)
	if err != nil {
		panic(err)
	}
	var v map[string]any
	if err := json.Unmarshal(j, &v); err != nil {
		panic(err)
	}
	for _, k := range []string{"apiVersion", "kind", "status"} {
		delete(v, k)
	}
	if m, ok := v["metadata"].(map[string]any); ok {
		delete(m, "name")
		delete(m, "namespace")
		delete(m, "creationTimestamp")
		if len(m) == 0 {
			delete(v, "metadata")
		}
	}
	var b bytes.Buffer
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := e.Encode(v); err != nil {
		panic(err)
	}
	return "  " + strings.TrimRight(strings.ReplaceAll(b.String(), "\n", "\n  "), " ")
}

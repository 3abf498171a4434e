package builtin

import (
	"os"
	"slices"
	"testing"

	"github.com/gatehouse-io/gatehouse/internal/policy"
)

// folders are the folders of steps whose name is another.
var folders = map[string]string{"limitEarly": "limit", "externalAuth": "authn", "requestHeaders": "headers", "responseHeaders": "headers", "errorPages": "errorpages", "directResponse": "directresponse"}

// TestZeroSpecs: whatever little a user writes, a step says what is wrong with it and does not break.
func TestZeroSpecs(t *testing.T) {
	for _, s := range Steps() {
		for _, raw := range []string{"", `{}`, `null`, `[]`, `{"path":{}}`, `{"set":[{}],"add":[{}],"remove":[""]}`, `{"maxAge":null}`} {
			spec := s.New()
			if raw != "" {
				var err error
				if spec, err = s.Decode([]byte(raw)); err != nil {
					continue
				}
			}
			phase := s.Phase(spec)
			if name := phase.String(); name == "" {
				t.Errorf("%s: %s runs in phase %d", s.Name, raw, phase)
			}
			if s.Facts != nil {
				s.Facts(spec)
			}
			if s.Refs != nil {
				s.Refs(spec)
			}
			if s.Merge != nil {
				if m, _ := s.Merge([]policy.Layer{{Spec: spec}, {Spec: s.New(), Overrides: true}}); m == nil {
					t.Errorf("%s: Merge of %s is nil", s.Name, raw)
				}
			}
			h, err := spec.Compile(policy.Env{})
			if err == nil && s.EveryAnswer && h.Request != nil {
				t.Errorf("%s: %s has a Request, and is to see answers to requests that no step sees", s.Name, raw)
			}
			if err == nil && h.Done != nil && h.Request == nil {
				t.Errorf("%s: %s has a Done that never runs: it has no Request", s.Name, raw)
			}
		}
	}
}

func TestSources(t *testing.T) {
	names, sources := map[string]bool{}, map[policy.Source]string{}
	for _, s := range Steps() {
		if names[s.Name] {
			t.Errorf("two steps are called %s", s.Name)
		}
		names[s.Name] = true
		if len(s.Sources) == 0 && s.Name != "invalid" {
			t.Errorf("%s is written nowhere", s.Name)
		}
		for _, src := range s.Sources {
			if o := sources[src]; o != "" && src.Field != "limits" { // which has two phases
				t.Errorf("%+v is the source of both %s and %s", src, o, s.Name)
			}
			sources[src] = s.Name
			if (src.Filter == "") != (src.Kind != "" && src.Field != "") {
				t.Errorf("%s: %+v is neither a filter nor a field of a kind", s.Name, src)
			}
		}
	}
}

// TestFolders: each folder beside this one holds a step of the list, and each step lies in the folder of its name.
func TestFolders(t *testing.T) {
	entries, err := os.ReadDir("..")
	if err != nil {
		t.Fatal(err)
	}
	var have, want []string
	for _, e := range entries {
		if e.IsDir() && e.Name() != "builtin" {
			have = append(have, e.Name())
		}
	}
	for _, s := range Steps() {
		f := folders[s.Name]
		if f == "" {
			f = s.Name
		}
		want = append(want, f)
	}
	slices.Sort(want)
	if want = slices.Compact(want); !slices.Equal(have, want) {
		t.Errorf("the folders are %v, the steps lie in %v", have, want)
	}
}

// TestOrder: the list goes from the first phase to the last.
func TestOrder(t *testing.T) {
	last := policy.Protect
	for _, s := range Steps() {
		p := s.Phase(s.New())
		if p < last {
			t.Errorf("%s of phase %s stands behind one of phase %s", s.Name, p, last)
		}
		last = p
	}
}

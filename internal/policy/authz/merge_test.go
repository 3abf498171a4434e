package authz

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/gatehouse-io/gatehouse/api/v1alpha1"
	"github.com/gatehouse-io/gatehouse/internal/policy"
)

// TestMergeLosesNoOverride: every rule under overrides holds, whatever names nearer levels write, and a rule under defaults holds unless a
// nearer level has its name. Origins lead back to where each was written, and the result does not depend on the order of maps.
func TestMergeLosesNoOverride(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		layers := make([]policy.Layer, rapid.IntRange(1, 4).Draw(t, "layers"))
		for i := range layers {
			s := &Spec{}
			s.Rules = map[string]v1alpha1.AuthorizationRule{}
			for _, name := range rapid.SliceOfDistinct(rapid.SampledFrom([]string{"a", "b", "a@0", "a@1", "a@0@", "b@2"}), rapid.ID[string]).Draw(t, "names") {
				s.Rules[name] = v1alpha1.AuthorizationRule{When: fmt.Sprintf("%d %s", i, name)}
			}
			layers[i] = policy.Layer{Spec: s, Overrides: rapid.Bool().Draw(t, "overrides")}
		}
		merged, origins := merge(layers)
		got := map[string]int{}
		for name, r := range merged.(*Spec).Rules {
			got[r.When]++
			o := origins["rules."+name]
			written := name
			if o.Path != "" {
				written = o.Path[len("rules."):]
			}
			if r.When != fmt.Sprintf("%d %s", o.Layer, written) {
				t.Errorf("rule %q is %q, but its origin %+v", name, r.When, o)
			}
		}
		want := map[string]int{}
		for i, l := range layers {
			for name, r := range l.Spec.(*Spec).Rules {
				held := true
				for _, near := range layers[i+1:] {
					_, same := near.Spec.(*Spec).Rules[name]
					held = held && !same
				}
				if held || l.Overrides {
					want[r.When]++
				}
			}
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("rules that hold: -want +got:\n%s", d)
		}
		again, _ := merge(layers)
		if d := cmp.Diff(merged.(*Spec).Rules, again.(*Spec).Rules); d != "" {
			t.Errorf("merged once more: %s", d)
		}
	})
}

package translate

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-io/gatehouse/api/v1alpha1"
	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/ir"
	"github.com/gatehouse-io/gatehouse/internal/policy/builtin"
)

func TestUnindexed(t *testing.T) {
	for in, want := range map[string]string{
		"":                                "",
		"spec.defaults":                   "spec.defaults",
		"a[0].b":                          "a.b",
		"a[0].b[12].c":                    "a.b.c",
		"a[0][1]":                         "a",
		"methods[0].apiKey.secretRefs[1]": "methods.apiKey.secretRefs",
		"a[":                              "a",
		"a]b":                             "a]b",
	} {
		if got := unindexed(in); got != want {
			t.Errorf("unindexed(%q) = %q, want %q", in, got, want)
		}
	}
}

// TestDemand: what meets a demand for a kind is a step of it that does more than look on, or that a faulty policy closed.
func TestDemand(t *testing.T) {
	of := func(kind, name string, enforces bool) lowered {
		return lowered{Enforces: enforces, Step: &ir.Step{Name: name, Sources: map[string]ir.Source{"": {Kind: kind}}}}
	}
	auth, limits := []string{"AuthPolicy"}, []string{"AuthPolicy", "RateLimitPolicy"}
	for _, tt := range []struct {
		name  string
		kinds []string
		steps []lowered
		met   bool
	}{
		{"no demand", nil, nil, true},
		{"nothing", auth, nil, false},
		{"one", auth, []lowered{of("AuthPolicy", "authn", true)}, true},
		{"of another kind", auth, []lowered{of("RateLimitPolicy", "limit", true)}, false},
		{"one of two", limits, []lowered{of("AuthPolicy", "authn", true)}, false},
		{"both", limits, []lowered{of("RateLimitPolicy", "limit", true), of("AuthPolicy", "authz", true)}, true},
		{"that looks on", auth, []lowered{of("AuthPolicy", "authn", false)}, false},
		{"that looks on, and one that does not", auth, []lowered{of("AuthPolicy", "authz", false), of("AuthPolicy", "authz", true)}, true},
		{"that asks in shadow, and has a rule", auth, []lowered{of("AuthPolicy", "authn", false), of("AuthPolicy", "authz", true)}, false},
		{"two that ask, one in shadow", auth, []lowered{of("AuthPolicy", "authn", false), of("AuthPolicy", "authn", true)}, true},
		{"that asks, and has a rule in shadow", auth, []lowered{of("AuthPolicy", "authn", true), of("AuthPolicy", "authz", false)}, true},
		{"that is faulty", auth, []lowered{of("AuthPolicy", "invalid", false)}, true},
		{"a filter", auth, []lowered{of("", "externalAuth", true)}, false},
	} {
		room := append(make([]lowered, 0, 8), tt.steps...)
		var all []required
		for _, kind := range tt.kinds {
			all = append(all, required{Kind: kind})
		}
		got := demand(all, room, ir.Source{})
		missing := slices.ContainsFunc(got, func(l lowered) bool { return l.Step.Name == "invalid" && string(l.Step.Spec) != "" })
		if missing == tt.met {
			t.Errorf("%s: %d steps, met %v", tt.name, len(got), !missing)
		}
	}
}

// policyOf is an attached policy whose bundle is fields.
func policyOf(kind, name, fields string, overrides bool) *attached {
	a := &attached{Policy: diag.Ref{Kind: kind, Namespace: "shop", Name: name}, Target: ir.Source{Kind: "Gateway", Namespace: "shop", Name: "g"},
		Path: "spec.defaults", Overrides: overrides, Fields: map[string]json.RawMessage{}}
	if err := json.Unmarshal([]byte(fields), &a.Fields); err != nil {
		panic(err)
	}
	return a
}

func namesOf(ls []lowered) (out []string) {
	for _, l := range ls {
		out = append(out, l.Step.Name)
	}
	return out
}

// TestMergeShared: what is merged once is given to many, who add to it, take from it and order it: nobody sees that of another.
func TestMergeShared(t *testing.T) {
	p := &pass{t: New(Options{Steps: builtin.Steps()}), merged: map[mergeKey]mergedLayers{}}
	auth := policyOf("AuthPolicy", "a", `{"authentication":{"methods":[{"name":"k","apiKey":{}}]},"authorization":{"rules":{"r":{"require":{"cel":"false"}}}}}`, false)
	limits := policyOf("RateLimitPolicy", "l", `{"limits":{"x":{"rates":[{"limit":1,"period":"1s"}]},"y":{"key":["identity.subject"],"rates":[{"limit":1,"period":"1s"}]}}}`, false)
	layers := []layer{{auth, gatewayLevel}, {limits, gatewayLevel}}
	first, effects := p.merge(layers)
	want := namesOf(first)
	if len(want) != 4 || len(effects) != 2 {
		t.Fatalf("%v, %d effects", want, len(effects))
	}
	second, _ := p.merge(layers)
	if first[0].Step != second[0].Step {
		t.Error("it was merged again")
	}
	first = append(first[:1], lowered{Step: &ir.Step{Name: "mine"}})
	clear(first)
	second = append(second, lowered{Step: &ir.Step{Name: "another's"}})
	third, _ := p.merge(layers)
	third = append(third, lowered{Step: &ir.Step{Name: "third's"}})
	if d := cmp.Diff(append(slices.Clone(want), "another's"), namesOf(second)); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(append(slices.Clone(want), "third's"), namesOf(third)); d != "" {
		t.Error(d)
	}
	// Another level, or a policy written anew with the same words, is another set.
	same := *auth
	for _, other := range [][]layer{{{auth, routeLevel}, {limits, gatewayLevel}}, {{&same, gatewayLevel}, {limits, gatewayLevel}}, {{auth, gatewayLevel}}, {{limits, gatewayLevel}, {auth, gatewayLevel}}} {
		if out, _ := p.merge(other); len(out) > 0 && out[0].Step == second[0].Step {
			t.Errorf("%v is taken for %v", other, layers)
		}
	}
	if n := len(p.merged); n != 5 {
		t.Errorf("%d sets are kept, want 5", n)
	}
}

// TestBundleOf: exactly one of defaults and overrides.
func TestBundleOf(t *testing.T) {
	p := &pass{t: New(Options{Steps: builtin.Steps()}), merged: map[mergeKey]mergedLayers{}}
	limits := &v1alpha1.RateLimits{Limits: map[string]v1alpha1.RateLimit{"a": {Rates: []v1alpha1.Rate{{Limit: 1, Period: "1s"}}}}}
	for _, tt := range []struct {
		spec      v1alpha1.RateLimitPolicySpec
		overrides bool
		problem   string
	}{
		{v1alpha1.RateLimitPolicySpec{}, false, "spec: has neither defaults nor overrides that can be read (write exactly one of the two)"},
		{v1alpha1.RateLimitPolicySpec{Defaults: limits, Overrides: limits}, false, "spec: both defaults and overrides are set (exactly one must be)"},
		{v1alpha1.RateLimitPolicySpec{Defaults: limits}, false, ""},
		{v1alpha1.RateLimitPolicySpec{Overrides: limits}, true, ""},
		{v1alpha1.RateLimitPolicySpec{Defaults: &v1alpha1.RateLimits{}}, false, "spec.defaults.limits: is empty (write at least one limit by name)"},
	} {
		o := &v1alpha1.RateLimitPolicy{Spec: tt.spec}
		a := p.bundle(o)
		got := ""
		for _, q := range a.Invalid {
			got += q.Error()
			break
		}
		if got != tt.problem || a.Overrides != tt.overrides {
			t.Errorf("%+v: %q (overrides %v), want %q", tt.spec, got, a.Overrides, tt.problem)
		}
	}
}

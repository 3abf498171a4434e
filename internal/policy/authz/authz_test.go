package authz

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/gatehouse-io/gatehouse/api/v1alpha1"
	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/policy"
)

func countries(a netip.Addr) (string, bool) {
	switch a {
	case netip.MustParseAddr("192.0.2.7"):
		return "DE", true
	case netip.MustParseAddr("192.0.2.8"):
		return "", true
	}
	return "", false
}

// TestRequests: what a caller from an address, with a scope and of a path may do.
func TestRequests(t *testing.T) {
	const fails = "identity.claims.a.b.c == 'x'"
	for _, tt := range []struct {
		name, spec string
		from       string // "" 192.0.2.7
		want       string // "" passes, else a part of the detail
		shadow     int
	}{
		{"no rules", `{}`, "", "", 0},
		{"require holds", `{"rules":{"a":{"require":{"cel":"request.path == '/x'"}}}}`, "", "", 0},
		{"require does not", `{"rules":{"a":{"require":{"cel":"request.path == '/y'"}}}}`, "", "rule a: its expression is false", 0},
		{"require fails", `{"rules":{"a":{"require":{"cel":"` + fails + `"}}}}`, "", "rule a: its expression failed", 0},
		{"deny holds", `{"rules":{"a":{"deny":{"cel":"request.path == '/x'"}}}}`, "", "rule a: its expression is true", 0},
		{"deny does not", `{"rules":{"a":{"deny":{"cel":"request.path == '/y'"}}}}`, "", "", 0},
		{"deny fails", `{"rules":{"a":{"deny":{"cel":"` + fails + `"}}}}`, "", "rule a: its expression failed", 0},
		{"when does not hold", `{"rules":{"a":{"when":"request.path == '/y'","require":{"cel":"false"}}}}`, "", "", 0},
		{"when fails", `{"rules":{"a":{"when":"` + fails + `","require":{"cel":"false"}}}}`, "", "rule a", 0},
		{"every rule", `{"rules":{"a":{"require":{"cel":"true"}},"b":{"require":{"cel":"false"}},"c":{"require":{"cel":"true"}}}}`, "", "rule b", 0},
		{"require and deny", `{"rules":{"a":{"require":{"cel":"true"},"deny":{"cel":"true"}}}}`, "", "rule a", 0},
		{"every part of require", `{"rules":{"a":{"require":{"cel":"true","scopes":["read"],"cidrs":["192.0.2.0/24"],"countries":["DE"]}}}}`, "", "", 0},
		{"a part of require", `{"rules":{"a":{"require":{"cel":"true","scopes":["read"],"cidrs":["10.0.0.0/8"],"countries":["DE"]}}}}`, "", "in none of its networks", 0},
		{"a part of deny", `{"rules":{"a":{"deny":{"cel":"false","scopes":["no"],"cidrs":["10.0.0.0/8"],"countries":["DE"]}}}}`, "", "country", 0},
		{"no part of deny", `{"rules":{"a":{"deny":{"cel":"false","scopes":["no"],"cidrs":["10.0.0.0/8"],"countries":["FR"]}}}}`, "", "", 0},
		{"a scope is missing", `{"rules":{"a":{"require":{"scopes":["read","write"]}}}}`, "", "scope write is missing", 0},
		{"one scope denied", `{"rules":{"a":{"deny":{"scopes":["write","read"]}}}}`, "", "has scope read", 0},
		{"IPv4 within IPv6 required", `{"rules":{"a":{"require":{"cidrs":["192.0.2.0/24"]}}}}`, "::ffff:192.0.2.7", "", 0},
		{"IPv4 within IPv6 denied", `{"rules":{"a":{"deny":{"cidrs":["192.0.2.0/24"]}}}}`, "::ffff:192.0.2.7", "in one of its networks", 0},
		{"a zone denied", `{"rules":{"a":{"deny":{"cidrs":["fe80::/10"]}}}}`, "fe80::1%eth0", "in one of its networks", 0},
		{"a network with host bits", `{"rules":{"a":{"require":{"cidrs":["192.0.2.99/24"]}}}}`, "", "", 0},
		{"a country that is not known, required", `{"rules":{"a":{"require":{"countries":["DE"]}}}}`, "192.0.2.8", "country is not one", 0},
		{"a country that is not known, denied", `{"rules":{"a":{"deny":{"countries":["DE"]}}}}`, "192.0.2.8", "", 0},
		{"no database, required", `{"rules":{"a":{"require":{"countries":["DE"]}}}}`, "192.0.2.9", "no database", 0},
		{"no database, denied", `{"rules":{"a":{"deny":{"countries":["FR"]}}}}`, "192.0.2.9", "no database", 0},
		{"a country within IPv6", `{"rules":{"a":{"require":{"countries":["DE"]}}}}`, "::ffff:192.0.2.7", "", 0},
		{"otherwise Deny, none applies", `{"otherwise":"Deny","rules":{"a":{"when":"false","require":{"cel":"true"}}}}`, "", "no rule applies", 0},
		{"otherwise Deny, one applies", `{"otherwise":"Deny","rules":{"a":{"require":{"cel":"true"}}}}`, "", "", 0},
		{"otherwise Deny, no rules", `{"otherwise":"Deny"}`, "", "no rule applies", 0},
		{"otherwise Deny, a shadow applies", `{"otherwise":"Deny","rules":{"a":{"mode":"Shadow","require":{"cel":"true"}}}}`, "", "no rule applies", 0},
		{"otherwise Deny, a disabled one", `{"otherwise":"Deny","rules":{"a":{"mode":"Disabled","require":{"cel":"true"}}}}`, "", "no rule applies", 0},
		{"otherwise Deny, when fails", `{"otherwise":"Deny","rules":{"a":{"when":"` + fails + `","require":{"cel":"true"}}}}`, "", "", 0},
		{"a shadow refuses", `{"rules":{"a":{"mode":"Shadow","require":{"cel":"false"}},"b":{"mode":"Shadow","deny":{"cel":"true"}},"c":{"require":{"cel":"true"}}}}`, "", "", 2},
		{"a disabled one", `{"rules":{"a":{"mode":"Disabled","require":{"cel":"false"}}}}`, "", "", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h, err := layer(t, false, tt.spec).Spec.Compile(policy.Env{Country: countries})
			if err != nil {
				t.Fatal(err)
			}
			for _, dry := range []bool{false, true} {
				x := &exchange.Exchange{Client: netip.AddrPortFrom(netip.MustParseAddr(or(tt.from, "192.0.2.7")), 1), Dry: dry}
				x.Request.Path = []byte("/x")
				x.Identity.Scopes = []string{"read"}
				var v policy.Verdict
				if h.Request != nil {
					v = h.Request(x)
				}
				if (v.Status == 403) != (tt.want != "") || v.Status != 0 && v.Reason != "access_denied" || len(x.Shadow) != tt.shadow {
					t.Errorf("dry %v: %d %s (%s), %d in shadow", dry, v.Status, v.Reason, v.Detail, len(x.Shadow))
				}
				if !dry && !strings.Contains(v.Detail, tt.want) {
					t.Errorf("%s, want %s", v.Detail, tt.want)
				}
			}
		})
	}
}

func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// TestDry: an explanation says what every rule does, also behind one that refuses.
func TestDry(t *testing.T) {
	h, err := layer(t, false, `{"rules":{"a":{"require":{"cel":"false"}},"b":{"when":"false","deny":{"cel":"true"}},"c":{"require":{"cel":"true"}},
		"d":{"mode":"Shadow","deny":{"cel":"true"}}}}`).Spec.Compile(policy.Env{})
	if err != nil {
		t.Fatal(err)
	}
	want := "a refused: its expression is false; b does not apply; c passed; d would refuse (shadow): its expression is true"
	if v := h.Request(&exchange.Exchange{Dry: true}); v.Detail != want || v.Status != 403 {
		t.Errorf("%d %s, want %s", v.Status, v.Detail, want)
	}
}

// TestChallenge: a caller with a token is told which scopes are needed, another one is not.
func TestChallenge(t *testing.T) {
	for _, tt := range []struct{ scopes, issuer, want string }{
		{`"write","delete"`, "https://idp.example", `Bearer error="insufficient_scope", scope="write delete"`},
		{`"write"`, "", ""},
		{`"a\"b"`, "https://idp.example", ""},
		{`"a\nb"`, "https://idp.example", ""},
	} {
		h, err := layer(t, false, `{"rules":{"a":{"require":{"scopes":[`+tt.scopes+`]}}}}`).Spec.Compile(policy.Env{})
		if err != nil {
			t.Fatal(err)
		}
		x := &exchange.Exchange{}
		x.Identity.Issuer = tt.issuer
		got := ""
		for _, f := range h.Request(x).Header {
			got += string(f.Value)
		}
		if got != tt.want {
			t.Errorf("scopes %s of %q: %s, want %s", tt.scopes, tt.issuer, got, tt.want)
		}
	}
}

func TestFaults(t *testing.T) {
	for spec, want := range map[string]string{
		`{"otherwise":"Ask"}`:                                                     `otherwise: "Ask" is not known`,
		`{"rules":{"a":{}}}`:                                                      "rules.a: requires and denies nothing",
		`{"rules":{"a":{"require":{}}}}`:                                          "rules.a.require: is empty",
		`{"rules":{"a":{"deny":{"countries":[]}}}}`:                               "rules.a.deny: is empty",
		`{"rules":{"a b":{"require":{"cel":"true"}}}}`:                            `rules.a b: "a b" is not a name`,
		`{"rules":{"a.b":{"require":{"cel":"true"}}}}`:                            `is not a name`,
		`{"rules":{"a@b":{"require":{"cel":"true"}}}}`:                            `is not a name`,
		`{"rules":{"":{"require":{"cel":"true"}}}}`:                               `is not a name`,
		`{"rules":{"a":{"mode":"On","require":{"cel":"true"}}}}`:                  `rules.a.mode: "On" is not a mode`,
		`{"rules":{"a":{"when":"1","require":{"cel":"true"}}}}`:                   "rules.a.when: ",
		`{"rules":{"a":{"require":{"cel":"nothing"}}}}`:                           "rules.a.require.cel: ",
		`{"rules":{"a":{"deny":{"cidrs":["10.0.0.1"]}}}}`:                         `rules.a.deny.cidrs[0]: "10.0.0.1" is not a network`,
		`{"rules":{"a":{"deny":{"cidrs":["10.0.0.0/8","::ffff:10.0.0.0/104"]}}}}`: "rules.a.deny.cidrs[1]: ",
		`{"rules":{"a":{"require":{"countries":["de"]}}}}`:                        `rules.a.require.countries[0]: "de" is not a country`,
		`{"rules":{"a":{"require":{"countries":["D1"]}}}}`:                        `is not a country`,
		`{"rules":{"a":{"mode":"Disabled","require":{"cel":"nothing"}}}}`:         "rules.a.require.cel: ",
	} {
		if _, err := layer(t, false, spec).Spec.Compile(policy.Env{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", spec, err, want)
		}
	}
}

// TestMerge: every rule under overrides is there and unchanged, and each name's nearest rule; nothing else is. Every rule compiles.
func TestMerge(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names := []string{"w", "w@0", "w@0@", "w@1", "9", "w@0@0"}
		var layers []policy.Layer
		for i := range rapid.IntRange(1, 4).Draw(t, "layers") {
			s := &Spec{}
			s.Rules = map[string]v1alpha1.AuthorizationRule{}
			for _, n := range names {
				if rapid.Bool().Draw(t, n) {
					s.Rules[n] = v1alpha1.AuthorizationRule{Require: &v1alpha1.Requirement{Scopes: []string{fmt.Sprint(i, n)}}}
				}
			}
			s.Otherwise = rapid.SampledFrom([]string{"", "Allow", "Deny"}).Draw(t, "otherwise")
			layers = append(layers, policy.Layer{Spec: s, Overrides: rapid.Bool().Draw(t, "overrides")})
		}
		want := map[string]string{} // where each rule that holds was written, by what it requires
		nearest := map[string]bool{}
		otherwise := ""
		for i := len(layers) - 1; i >= 0; i-- {
			s := layers[i].Spec.(*Spec)
			for n := range s.Rules {
				if !nearest[n] || layers[i].Overrides {
					want[fmt.Sprint(i, n)] = fmt.Sprint(i, "rules.", n)
				}
				nearest[n] = true
			}
			if s.Otherwise != "" && (otherwise == "" || layers[i].Overrides) {
				otherwise = s.Otherwise
			}
		}
		merged, origins := merge(layers)
		got := map[string]string{}
		for n, r := range merged.(*Spec).Rules {
			o := origins["rules."+n]
			path := o.Path
			if path == "" {
				path = "rules." + n
			}
			got[r.Require.Scopes[0]] = fmt.Sprint(o.Layer, path)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
		if merged.(*Spec).Otherwise != otherwise {
			t.Errorf("otherwise %q, want %q", merged.(*Spec).Otherwise, otherwise)
		}
		again, _ := merge(layers)
		if d := cmp.Diff(merged, again); d != "" {
			t.Errorf("merged once more: %s", d)
		}
		if _, err := merged.Compile(policy.Env{}); err != nil {
			t.Error(err)
		}
	})
}

package authz

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/policy"
)

func layer(t *testing.T, overrides bool, text string) policy.Layer {
	t.Helper()
	step := Step()
	s, err := step.Decode([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return policy.Layer{Spec: s, Overrides: overrides}
}

// TestRulesNamed: an explanation names the policy of each rule that is not of the policy that the step is named after.
func TestRulesNamed(t *testing.T) {
	outer := layer(t, true, `{"rules":{"admin":{"require":{"cidrs":["10.0.0.0/8"]}}}}`)
	inner := layer(t, false, `{"rules":{"admin":{"require":{"cidrs":["192.0.2.0/24"]}},"home":{"deny":{"countries":["DE"]}}}}`)
	merged, _ := merge([]policy.Layer{outer, inner})
	h, err := merged.Compile(policy.Env{Sources: map[string]string{"": "AuthPolicy edge/platform", "rules.admin@0": "AuthPolicy edge/platform",
		"rules.admin": "AuthPolicy shop/orders", "rules.home": "AuthPolicy shop/orders"}})
	if err != nil {
		t.Fatal(err)
	}
	x := &exchange.Exchange{Dry: true, Client: netip.MustParseAddrPort("192.0.2.7:1")}
	v := h.Request(x)
	want := "admin (shop/orders) passed; " +
		"admin (edge/platform) refused: the client's address is in none of its networks; " +
		"home (shop/orders) refused: there is no database of countries (run --geoip)"
	if v.Status != 403 || v.Detail != want {
		t.Errorf("Request = %d %s\n%s", v.Status, v.Detail, cmp.Diff(strings.Split(want, "; "), strings.Split(v.Detail, "; ")))
	}
}

package authz

import (
	"net/netip"
	"testing"

	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/policy"
)

// TestCountries: without a database both require and deny refuse, and say why; an address that the database does not know is in no country.
func TestCountries(t *testing.T) {
	const none, require, deny = "there is no database of countries (run --geoip)", `{"require":{"countries":["DE"]}}`, `{"deny":{"countries":["DE"]}}`
	is := func(code string, ok bool) func(netip.Addr) (string, bool) {
		return func(netip.Addr) (string, bool) { return code, ok }
	}
	for _, tt := range []struct {
		name, rule string
		country    func(netip.Addr) (string, bool)
		want       string
	}{
		{"required, no database", require, nil, none},
		{"denied, no database", deny, nil, none},
		{"required, database cannot know", require, is("", false), none},
		{"required, from there", require, is("DE", true), ""},
		{"required, from elsewhere", require, is("FR", true), "the client's country is not one of its"},
		{"required, unknown address", require, is("", true), "the client's country is not one of its"},
		{"denied, from there", deny, is("DE", true), "the client's country is one of its"},
		{"denied, unknown address", deny, is("", true), ""},
	} {
		step := Step()
		spec, err := step.Decode([]byte(`{"rules":{"home":` + tt.rule + `}}`))
		if err != nil {
			t.Fatal(err)
		}
		h, err := spec.Compile(policy.Env{Country: tt.country})
		if err != nil {
			t.Fatal(err)
		}
		want := ""
		if tt.want != "" {
			want = "rule home: " + tt.want
		}
		if v := h.Request(&exchange.Exchange{Client: netip.MustParseAddrPort("192.0.2.7:1")}); v.Detail != want {
			t.Errorf("%s: %q, want %q", tt.name, v.Detail, want)
		}
	}
}

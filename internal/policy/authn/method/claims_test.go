package method

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-io/gatehouse/api/v1alpha1"
)

func TestClaimsHeader(t *testing.T) {
	claims := map[string]any{
		"sub": "ann", "space": " ann", "newline": "a\r\nX-Admin: 1", "number": int64(9007199254740993), "big": uint64(18446744073709551615),
		"float": 1.5, "lost": 1e19, "flag": true, "list": []any{"a", "b,c", int64(3)}, "object": map[string]any{"role": "x"}, "json": json.Number("7"),
		"empty": "", "none": nil, "a.b": "literal", "a": map[string]any{"b": "nested"},
	}
	for claim, want := range map[string]string{
		"sub": "ann", "space": "", "newline": "", "number": "9007199254740993", "big": "18446744073709551615", "float": "1.5", "lost": "",
		"flag": "true", "list": "a,3", "object": `{"role":"x"}`, "object.role": "x", "json": "7", "empty": "", "none": "", "missing": "", "sub.x": "",
		"a.b": "literal",
	} {
		c, err := NewClaims(nil, []v1alpha1.ClaimToHeader{{Claim: claim, Header: "X-Told"}})
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		for _, f := range c.Header(claims) {
			got += string(f.Value)
		}
		if got != want {
			t.Errorf("claim %s is told as %q, want %q", claim, got, want)
		}
	}
}

func TestNewClaimsFaults(t *testing.T) {
	_, err := NewClaims(nil, []v1alpha1.ClaimToHeader{{Header: "X-A"}, {Claim: "b", Header: "Host"}, {Claim: "c", Header: "x-a"}})
	want := `claimsToHeaders[0].claim: is empty
claimsToHeaders[1].header: "Host" cannot tell who calls: requests have it for something else (write X-User, or a name of your own)
claimsToHeaders[2].header: "x-a" stands twice`
	if err == nil {
		t.Fatal("no fault")
	}
	if d := cmp.Diff(want, err.Error()); d != "" {
		t.Errorf("faults (-want +got):\n%s", d)
	}
}

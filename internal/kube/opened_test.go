package kube

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/objects"
)

// TestEventOfAGuardThatIsGone: what a policy was attached to is told when it is deleted or attached elsewhere, with the routes that opened;
// what it never held, or what is gone with it, is not.
func TestEventOfAGuardThatIsGone(t *testing.T) {
	const group = gatewayv1.GroupName
	gw, web := diag.Ref{Group: group, Kind: "Gateway", Namespace: "shop", Name: "public"}, diag.Ref{Group: group, Kind: "HTTPRoute", Namespace: "shop", Name: "web"}
	gone, class := diag.Ref{Group: group, Kind: "HTTPRoute", Namespace: "shop", Name: "gone"}, diag.Ref{Group: "networking.k8s.io", Kind: "IngressClass", Name: "gatehouse"}
	at := func(to diag.Ref, section string, status bool, reason string) diag.Parent {
		return diag.Parent{Ref: to, SectionName: section, Conditions: []diag.Condition{{Type: "Accepted", Status: status, Reason: reason}}}
	}
	policy := func(kind string, parents ...diag.Parent) *diag.Object {
		return &diag.Object{Ref: diag.Ref{Group: "gatehouse.dev", Kind: kind, Namespace: "shop", Name: "p"}, Ours: true, Parents: parents}
	}
	route := func(name, section string) *diag.Object {
		return &diag.Object{Ref: diag.Ref{Group: group, Kind: "HTTPRoute", Namespace: "shop", Name: name}, Ours: true, Parents: []diag.Parent{at(gw, section, true, "Accepted")}}
	}
	c := testWatch("Gateway").s.c
	for _, o := range []objects.Object{&gatewayv1.Gateway{}, &gatewayv1.HTTPRoute{}} {
		o.SetNamespace("shop")
		o.SetName("public")
		if _, ok := o.(*gatewayv1.HTTPRoute); ok {
			o.SetName("web")
		}
		c.source.put(objects.KeyOf(o), o)
	}
	many := []*diag.Object{route("web", "http"), route("other", "https")}
	for i := range 11 {
		many = append(many, route(fmt.Sprintf("z%02d", i), ""))
	}
	for name, tc := range map[string]struct {
		was, is *diag.Object
		want    []string
	}{
		"deleted":                {policy("AuthPolicy", at(web, "", true, "Accepted")), nil, []string{"AuthPolicy shop/p is deleted: what it refused here may pass"}},
		"deleted, of a rule":     {policy("RateLimitPolicy", at(web, "admin", true, "Accepted")), nil, []string{"RateLimitPolicy shop/p is deleted: what it refused at admin may pass"}},
		"deleted, faulty":        {policy("AuthPolicy", at(web, "", false, "Invalid")), nil, []string{"AuthPolicy shop/p is deleted: what it refused here may pass"}},
		"deleted, of a class":    {policy("ProtectionPolicy", at(class, "", true, "Accepted")), nil, []string{"ProtectionPolicy shop/p is deleted: what it refused here may pass"}},
		"deleted, of a listener": {policy("AuthPolicy", at(gw, "https", true, "Accepted")), nil, []string{"AuthPolicy shop/p is deleted: what it refused at https may pass, on HTTPRoute shop/other, HTTPRoute shop/z00, HTTPRoute shop/z01, HTTPRoute shop/z02, HTTPRoute shop/z03, HTTPRoute shop/z04, HTTPRoute shop/z05, HTTPRoute shop/z06, HTTPRoute shop/z07, HTTPRoute shop/z08 and 2 more"}},
		"attached elsewhere":     {policy("AuthPolicy", at(web, "", true, "Accepted"), at(gw, "", true, "Accepted")), policy("AuthPolicy", at(gw, "", true, "Accepted")), []string{"AuthPolicy shop/p is no longer attached: what it refused here may pass"}},
		"another came first":     {policy("AuthPolicy", at(web, "", true, "Accepted")), policy("AuthPolicy", at(web, "", false, "Conflicted")), []string{"AuthPolicy shop/p is no longer attached: what it refused here may pass"}},
		"became faulty":          {policy("AuthPolicy", at(web, "", true, "Accepted")), policy("AuthPolicy", at(web, "", false, "Invalid")), nil},
		"never held":             {policy("AuthPolicy", at(web, "", false, "Conflicted"), at(gone, "", false, "TargetNotFound")), nil, nil},
		"gone with its target":   {policy("AuthPolicy", at(gone, "", true, "Accepted")), nil, nil},
		"no guard":               {policy("ClientTrafficPolicy", at(gw, "", true, "Accepted")), nil, nil},
		"new":                    {nil, policy("AuthPolicy", at(web, "", true, "Accepted")), nil},
	} {
		ev, recorder := testEvents(c)
		ev.opened(tc.is, tc.was, diag.NewReport(many...))
		var want []string
		for _, w := range tc.want {
			want = append(want, "Warning PolicyRemoved "+w)
		}
		if d := cmp.Diff(want, told(recorder)); d != "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
	}
}

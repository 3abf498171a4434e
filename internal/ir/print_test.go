package ir_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-io/gatehouse/internal/ir"
)

func TestRoutesText(t *testing.T) {
	rule := func(field string, m ir.Match, b ...ir.Backend) *ir.Route {
		return &ir.Route{Name: field, Source: ir.Source{Kind: "HTTPRoute", Namespace: "shop", Name: "web", Field: field}, Match: m, Backends: b}
	}
	half := []ir.Backend{{Cluster: "Service/shop/a/80", Weight: 1}, {Weight: 2}, {Cluster: "Backend/shop/b", Weight: 0}}
	redirect := rule("spec.rules[1]", ir.Match{})
	redirect.Steps = []*ir.Step{{Name: "redirect"}, {Name: "size", Sources: map[string]ir.Source{"": {Kind: "ProtectionPolicy", Name: "office"}}}}
	none := rule("spec.rules[2].matches[0]", ir.Match{Path: ir.PathMatch{Kind: ir.PathRegex, Value: "/a+"}})
	none.NoBackend = "no backendRefs"
	c := &ir.Config{
		Listeners: []*ir.Listener{
			{Key: "Gateway/shop/a/http", Group: "Gateway/shop/a", Port: 80, Hostname: "x.example"}, {Key: "Gateway/shop/a/other", Group: "Gateway/shop/a", Port: 81},
			{Key: "Gateway/shop/b/http", Group: "Gateway/shop/b", Port: 81},
		},
		Hosts: []*ir.Host{
			{Listener: "Gateway/shop/a/http", Hostname: "*.example", Routes: []*ir.Route{
				rule("spec.rules[0].matches[0]", ir.Match{Method: "GET", Headers: []ir.FieldMatch{{Name: "x-a", Value: "1"}}}, half...),
				rule("spec.rules[0].matches[1]", ir.Match{Query: []ir.FieldMatch{{Name: "q", Value: "v.*", Regex: true}}}, half[:1]...)}},
			{Listener: "Gateway/shop/a/other", Hostname: "", Routes: []*ir.Route{redirect}},
			{Listener: "Gateway/shop/a/other", Hostname: "*.b.example", Routes: []*ir.Route{none}},
			{Listener: "Gateway/shop/a/other", Hostname: "*.example", Routes: []*ir.Route{none}},
			{Listener: "Gateway/shop/a/other", Hostname: "z.example", Routes: []*ir.Route{none}},
		},
	}
	want := `LISTENER   HOST         MATCH                      POLICIES         BACKEND                                                   FROM
:80        x.example    GET prefix / header x-a=1  -                shop/a:80 33.3%, 500 no backend 66.7%, Backend shop/b 0%  HTTPRoute shop/web rule 0 match 0
:80        x.example    prefix / query q~v.*       -                shop/a:80                                                 HTTPRoute shop/web rule 0 match 1
shop/a:81  z.example    regex /a+                  -                500 no backendRefs                                        HTTPRoute shop/web rule 2
shop/a:81  *.b.example  regex /a+                  -                500 no backendRefs                                        HTTPRoute shop/web rule 2
shop/a:81  *.example    regex /a+                  -                500 no backendRefs                                        HTTPRoute shop/web rule 2
shop/a:81  *            prefix /                   redirect,office  -                                                         HTTPRoute shop/web rule 1
`
	if d := cmp.Diff(want, ir.RoutesText(c)); d != "" {
		t.Errorf("-want +got:\n%s\n%s", d, ir.RoutesText(c))
	}
}

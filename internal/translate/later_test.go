package translate_test

import (
	"strings"
	"testing"

	"github.com/gatehouse-io/gatehouse/internal/objects"
	"github.com/gatehouse-io/gatehouse/internal/translate"
)

// TestOrderOfArrival: a route is closed until what it needs is there, and again when it goes: a Secret, a grant, the policy that
// GatewayParameters demand, the parameters themselves.
func TestOrderOfArrival(t *testing.T) {
	const (
		gateway = `apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: public, namespace: shop}
spec:
  gatewayClassName: gatehouse
  infrastructure: {parametersRef: {group: gatehouse.dev, kind: GatewayParameters, name: guarded}}
  listeners: [{name: http, port: 80, protocol: HTTP}]
---
apiVersion: v1
kind: Service
metadata: {name: authz, namespace: identity}
spec: {ports: [{port: 9000}]}
`
		parameters = `apiVersion: gatehouse.dev/v1alpha1
kind: GatewayParameters
metadata: {name: guarded, namespace: shop}
spec: {requirePolicies: [AuthPolicy]}
`
		route = `apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web, namespace: shop}
spec: {parentRefs: [{name: public}], rules: [{filters: [{type: RequestRedirect, requestRedirect: {hostname: other.example}}]}]}
`
		policy = `apiVersion: gatehouse.dev/v1alpha1
kind: AuthPolicy
metadata: {name: callers, namespace: shop}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: web}]
  defaults:
    authentication:
      methods:
      - {name: people, basic: {secretRef: {name: people}}}
      - {name: ask, external: {protocol: GRPC, backendRef: {name: authz, namespace: identity, port: 9000}}}
`
		people = `apiVersion: v1
kind: Secret
metadata: {name: people, namespace: shop}
stringData: {auth: x}
`
		grant = `apiVersion: gateway.networking.k8s.io/v1
kind: ReferenceGrant
metadata: {name: shop, namespace: identity}
spec: {from: [{group: gatehouse.dev, kind: AuthPolicy, namespace: shop}], to: [{group: "", kind: Service}]}
`
	)
	store := objects.NewStore()
	tr := translate.New(options())
	for i, s := range []struct {
		add, remove string
		want        string // in the first step of the route
	}{
		{builtins, "", ""},
		{gateway, "", ""},
		{parameters, "", ""},
		{route, "", "policy_missing"},
		{policy, "", "there is no Secret shop/people and 1 more"},
		{people, "", "may not be referred to from namespace shop"},
		{grant, "", `"people","basic"`},
		{"", people, "there is no Secret shop/people"},
		{people, "", `"people","basic"`},
		{"", grant, "may not be referred to"},
		{"", policy, "policy_missing"},
		{"", parameters, "closed"}, // a Gateway without the parameters that it names is not served
		{grant + "---\n" + policy, "", "closed"},
		{parameters, "", `"people","basic"`},
	} {
		var c objects.Change
		if s.add != "" {
			c.Upserts = parse(t, s.add)
		}
		if s.remove != "" {
			for _, o := range parse(t, s.remove) {
				c.Deletes = append(c.Deletes, objects.KeyOf(o))
			}
		}
		got := tr.Update(store, store.Apply(c))
		if s.want == "" {
			continue
		}
		if s.want == "closed" {
			if len(got.Config.Hosts) > 0 {
				t.Errorf("step %d: %d hosts are served, want none", i, len(got.Config.Hosts))
			}
			continue
		}
		if len(got.Config.Hosts) != 1 || len(got.Config.Hosts[0].Routes) != 1 {
			t.Fatalf("step %d: %d hosts, want one with one route", i, len(got.Config.Hosts))
		}
		r := got.Config.Hosts[0].Routes[0]
		if text := string(r.Steps[0].Spec); !strings.Contains(text, s.want) {
			t.Errorf("step %d: the first step is %s, want %s in it", i, text, s.want)
		}
		for _, ref := range r.Steps[0].Refs {
			if name, ok := strings.CutPrefix(ref, "Service/"); ok {
				if len(got.Config.Clusters) != 1 || got.Config.Clusters[0].Key != ref {
					t.Errorf("step %d: no cluster for the service that is asked, %s", i, name)
				}
			} else if _, ok := got.Secrets[ref]; !ok {
				t.Errorf("step %d: no contents of %s", i, ref)
			}
		}
	}
}

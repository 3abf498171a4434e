package gatehouse_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/gatehouse-io/gatehouse/test/cluster"
)

// twoInstallations: a second one, in the first one's namespace even, serves its own classes, and neither touches what is the other's.
func twoInstallations(s *site, t *testing.T) {
	sc := s.scene(t)
	sc.backends("web")
	sc.install(cluster.Release{Name: "gatehouse-two", Namespace: system, Set: []string{"replicas=1", "drainGrace=0s",
		"controllers.gateway=gatehouse.dev/gateway-two", "controllers.ingress=gatehouse.dev/ingress-two", "gatewayClass.name=two", "ingressClass.name=two"}})
	sc.apply(twoGateways)
	one, two := sc.address("Gateway", "one"), sc.address("Gateway", "two")
	sc.serves(request{address: one, host: "both.example"}, "web")
	sc.serves(request{address: two, host: "both.example"}, "web")
	iOne, iTwo := sc.address("Ingress", "one"), sc.address("Ingress", "two")
	sc.serves(request{address: iOne, host: "one.example"}, "web")
	sc.refuses(request{address: iOne, host: "two.example"}, 404)
	sc.serves(request{address: iTwo, host: "two.example"}, "web")
	sc.refuses(request{address: iTwo, host: "one.example"}, 404)
	sc.installationsApart()
	sc.statusesApart()
	sc.atRest(2*time.Second, []string{"GatewayClass", "Gateway", "HTTPRoute", "GatewayParameters", "ProtectionPolicy", "Ingress", "Service"})
	sc.writesApart()

	// A Gateway that changes its installation keeps its name, so both have a hand on the name of its Service.
	sc.patch("Gateway", "one", `{"spec": {"gatewayClassName": "two"}}`)
	sc.service("Gateway", "one", owned("gatehouse-two"))
	sc.gateway("one", "Programmed", "True", "")
	sc.eventually("the moved Gateway to serve", func(ctx context.Context) error {
		o, err := sc.of("Gateway").Get(ctx, "one", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if a := addresses(o); len(a) > 0 {
			return request{address: a[0], host: "both.example"}.answers(ctx, 200, "web")
		}
		return fmt.Errorf("it has no address: %v", o.Object["status"])
	})
	sc.eventually("one entry for each of the two Gateways, by their new controller", func(ctx context.Context) error {
		by, err := sc.controllers(ctx, "both")
		if err == nil && !maps.Equal(by, map[string]string{"one": "gatehouse.dev/gateway-two", "two": "gatehouse.dev/gateway-two"}) {
			err = fmt.Errorf("entries are %v", by)
		}
		return err
	})
}

const twoGateways = `
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: one}
spec:
  gatewayClassName: gatehouse
  infrastructure: {parametersRef: {group: gatehouse.dev, kind: GatewayParameters, name: one}}
  listeners: [{name: http, port: 80, protocol: HTTP}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: two}
spec:
  gatewayClassName: two
  infrastructure: {parametersRef: {group: gatehouse.dev, kind: GatewayParameters, name: two}}
  listeners: [{name: http, port: 80, protocol: HTTP}]
---
apiVersion: gatehouse.dev/v1alpha1
kind: GatewayParameters
metadata: {name: one}
spec: {infrastructure: {service: {annotations: {example.com/for: one}}}}
---
apiVersion: gatehouse.dev/v1alpha1
kind: GatewayParameters
metadata: {name: two}
spec: {infrastructure: {service: {annotations: {example.com/for: two}}}}
---
apiVersion: gatehouse.dev/v1alpha1
kind: ProtectionPolicy
metadata: {name: one}
spec: {targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: one}], defaults: {sizes: {requestBody: 1Mi}}}
---
apiVersion: gatehouse.dev/v1alpha1
kind: ProtectionPolicy
metadata: {name: two}
spec: {targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: two}], defaults: {sizes: {requestBody: 1Mi}}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: both}
spec:
  parentRefs: [{name: one}, {name: two}]
  hostnames: [both.example]
  rules: [{backendRefs: [{name: web, port: 80}]}]
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: one}
spec:
  ingressClassName: gatehouse
  rules: [{host: one.example, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}}]
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: two}
spec:
  ingressClassName: two
  rules: [{host: two.example, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}}]
`

// installationsApart: each Service belongs to the installation of its owner's class and leads to its pods; each lease has its holder.
func (s *scene) installationsApart() {
	s.Helper()
	for name, x := range map[string]struct{ release, class string }{"one": {"gatehouse", "gatehouse"}, "two": {"gatehouse-two", "two"}} {
		for _, svc := range []*corev1.Service{s.service("Gateway", name, owned(x.release)), s.service("IngressClass", x.class, owned(x.release))} {
			if got := svc.Spec.Selector["app.kubernetes.io/instance"]; got != x.release {
				s.Errorf("the Service %v selects pods of %q", svc.Labels, got)
			}
		}
		pods, err := s.pods(s.Context(), system, x.release)
		s.must(err)
		lease, err := s.Client().CoordinationV1().Leases(system).Get(s.Context(), x.release, metav1.GetOptions{})
		s.must(err)
		if h := lease.Spec.HolderIdentity; h == nil || len(pods) != 1 || *h != pods[0].Name {
			s.Errorf("lease %s is held by %v, want the one pod of %d", x.release, h, len(pods))
		}
	}
}

// writesApart: by the API server's record, neither installation has written or tried to write what is the other's alone.
func (s *scene) writesApart() {
	s.Helper()
	of := func(name, class, release string) []string {
		all := []string{"leases " + system + "/" + release, "gatewayclasses " + class}
		for _, r := range []string{"gateways", "gatewayparameters", "protectionpolicies", "ingresses"} {
			all = append(all, r+" "+s.namespace+"/"+name)
		}
		for _, svc := range []*corev1.Service{s.service("Gateway", name, nil), s.service("IngressClass", class, nil)} {
			all = append(all, "services "+system+"/"+svc.Name)
		}
		return all
	}
	one, two := of("one", "gatehouse", "gatehouse"), of("two", "two", "gatehouse-two")
	byOne, byTwo := s.audit.wrote(s.T, account(system, "gatehouse")), s.audit.wrote(s.T, account(system, "gatehouse-two"))
	for _, what := range two {
		if !slices.Contains(byTwo, what) {
			s.Errorf("the second installation never wrote its own %s", what)
		}
		if slices.Contains(byOne, what) {
			s.Errorf("the first installation wrote the second one's %s", what)
		}
	}
	for _, what := range one {
		if !slices.Contains(byOne, what) {
			s.Errorf("the first installation never wrote its own %s", what)
		}
	}
	// Each has an entry in the route; and who makes an object, here its lease, names it in the body alone.
	two = append(two, "httproutes "+s.namespace+"/both", "leases "+system+"/")
	for _, what := range byTwo {
		if !slices.Contains(two, what) {
			s.Errorf("the second installation wrote %s", what)
		}
	}
}

// controllers says who wrote the entry about each parent of a route.
func (s *scene) controllers(ctx context.Context, route string) (map[string]string, error) {
	o, err := s.of("HTTPRoute").Get(ctx, route, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	list, _ := at(o, "status", "parents").([]any)
	for _, x := range list {
		m := x.(map[string]any)
		parent := m["parentRef"].(map[string]any)["name"].(string)
		out[parent] = strings.Trim(out[parent]+" "+m["controllerName"].(string), " ")
	}
	return out, nil
}

// statusesApart: a route with a parent in each has an entry by each.
func (s *scene) statusesApart() {
	s.Helper()
	s.eventually("an entry for each parent", func(ctx context.Context) error {
		by, err := s.controllers(ctx, "both")
		if err == nil && !maps.Equal(by, map[string]string{"one": "gatehouse.dev/gateway", "two": "gatehouse.dev/gateway-two"}) {
			err = fmt.Errorf("entries are %v", by)
		}
		return err
	})
}

// versions are the resource versions of all objects of some kinds.
func (s *scene) versions(ctx context.Context, kinds []string) (map[string]string, error) {
	out := map[string]string{}
	for _, k := range kinds {
		r := resources[k]
		l, err := s.Dynamic().Resource(r.GroupVersionResource).List(ctx, metav1.ListOptions{})
		if err != nil {
			return nil, err
		}
		for _, o := range l.Items {
			out[k+" "+o.GetNamespace()+"/"+o.GetName()] = o.GetResourceVersion()
		}
	}
	return out, nil
}

// changed lists what is not the same in two maps.
func changed(a, b map[string]string) (what []string) {
	for k := range a {
		if _, ok := b[k]; !ok {
			what = append(what, k+" went")
		}
	}
	for k, v := range b {
		if a[k] != v {
			what = append(what, k)
		}
	}
	slices.Sort(what)
	return what
}

// atRest waits until no object of these kinds changes for a time.
func (s *scene) atRest(d time.Duration, kinds []string) {
	s.Helper()
	var last map[string]string
	var since time.Time
	var history []string
	defer func() {
		if s.Failed() {
			s.Logf("changed since: %v", history)
		}
	}()
	s.eventually("objects to rest", func(ctx context.Context) error {
		now, err := s.versions(ctx, kinds)
		if err != nil {
			return err
		}
		if !maps.Equal(now, last) {
			what := changed(last, now)
			if last != nil {
				history = append(history, what...)
			}
			last, since = now, time.Now()
			return fmt.Errorf("these changed: %v", what)
		}
		if rest := time.Since(since); rest < d {
			return fmt.Errorf("at rest for %v", rest)
		}
		return nil
	})
}

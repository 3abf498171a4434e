package reliability

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/gatehouse-io/gatehouse/test/cluster"
)

func named(yaml, name string) string { return strings.ReplaceAll(yaml, "ROUTE", name) }

// TestBreakage breaks one thing after the other in one cluster, with load on all the time: no client may notice.
func TestBreakage(t *testing.T) {
	w := start(t, "standard", cluster.Options{})
	for _, s := range []struct {
		name string
		run  func(*world, *testing.T)
	}{
		{"both address families", bothFamilies},
		{"API server gone", apiServerGone},
		{"events lost", eventsLost},
		{"bad objects", badObjects},
		{"leader killed", leaderKilled},
		{"lease taken", leaseTaken},
		{"rolling update", rollingUpdate},
	} {
		if !t.Run(s.name, func(t *testing.T) {
			end := w.load(t)
			s.run(w, t)
			end()
		}) {
			break // what follows would only repeat it
		}
	}
}

// bothFamilies: in a dual-stack cluster a Gateway has an address of each family, and answers at both.
func bothFamilies(w *world, t *testing.T) {
	families := map[bool]int{}
	for _, a := range w.gatewayAddresses(t) {
		families[strings.Contains(a, ":")]++
		at := &world{w.Cluster, w.ctx, a}
		at.serves(t, "web.example")
	}
	if families[false] != 1 || families[true] != 1 {
		t.Errorf("%d IPv4 and %d IPv6 addresses, want one of each", families[false], families[true])
	}
}

// apiServerGone: while the API server is away for longer than the lease lasts, everything is served on; when it is back, what happens
// then is served too, and status is written again.
func apiServerGone(w *world, t *testing.T) {
	w.StopAPIServer()
	away := time.NewTimer(20 * time.Second) // longer than the lease and its renewal
	defer away.Stop()
	select {
	case <-away.C:
	case <-w.ctx.Done():
	}
	w.must(t, w.StartAPIServer(w.ctx))
	w.apply(t, named(route, "after"))
	w.serves(t, "after.example")
	w.accepted(t, "after")
}

// accepted waits until the status of a route says so.
func (w *world) accepted(t *testing.T, name string) {
	t.Helper()
	w.eventually(t, "status of "+name, func(ctx context.Context) error {
		u, err := w.Dynamic().Resource(gateways.GroupVersion().WithResource("httproutes")).Namespace("shop").Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if s := fmt.Sprint(u.Object["status"]); !strings.Contains(s, "reason:Accepted") {
			return errors.New(s)
		}
		return nil
	})
}

// eventsLost: the history that watches would continue is compacted away and the API server begins anew (410 Gone), while objects come,
// change and go. In the end what is served is what there is.
func eventsLost(w *world, t *testing.T) {
	for n := range 8 {
		w.apply(t, named(route, fmt.Sprintf("lost-%d", n)))
	}
	w.serves(t, "lost-7.example")
	routes := w.Dynamic().Resource(gateways.GroupVersion().WithResource("httproutes")).Namespace("shop")
	w.StopAPIServer()
	w.must(t, w.StartAPIServer(w.ctx))
	for n := range 8 { // at once: the watches are still trying to come back
		switch n % 4 {
		case 0:
			w.must(t, routes.Delete(w.ctx, fmt.Sprintf("lost-%d", n), metav1.DeleteOptions{}))
		case 1:
			w.apply(t, strings.Replace(named(route, fmt.Sprintf("lost-%d", n)), fmt.Sprintf("hostnames: [lost-%d.example]", n), fmt.Sprintf("hostnames: [moved-%d.example]", n), 1))
		}
	}
	w.must(t, w.Compact(w.ctx))
	w.must(t, w.RestartAPIServer(w.ctx))
	w.apply(t, named(route, "found"))
	w.serves(t, "found.example")
	for n := range 8 {
		old, moved := http.StatusOK, http.StatusNotFound
		if n%4 == 0 {
			old = http.StatusNotFound
		} else if n%4 == 1 {
			old, moved = http.StatusNotFound, http.StatusOK
		}
		w.answers(t, fmt.Sprintf("lost-%d.example", n), old)
		w.answers(t, fmt.Sprintf("moved-%d.example", n), moved)
	}
}

// bad are objects that the API server takes and that cannot be served as written, of every kind.
const bad = `
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: bad}
spec: {controllerName: gatehouse.dev/gateway, parametersRef: {group: gatehouse.dev, kind: GatewayParameters, namespace: shop, name: nowhere}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: bad, namespace: shop}
spec:
  gatewayClassName: gatehouse
  listeners:
  - {name: https, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: garbage}]}}
  - {name: twin, port: 80, protocol: HTTP}
  - {name: twin-2, port: 80, protocol: HTTPS, hostname: x.example, tls: {certificateRefs: [{name: nowhere}]}}
---
apiVersion: v1
kind: Secret
metadata: {name: garbage, namespace: shop}
type: kubernetes.io/tls
stringData: {tls.crt: garbage, tls.key: garbage}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: bad, namespace: shop}
spec:
  parentRefs: [{name: public, sectionName: http}, {name: nowhere}, {name: public, sectionName: nowhere}]
  hostnames: [bad.example]
  rules:
  - matches: [{path: {type: RegularExpression, value: "/(unclosed"}}]
    backendRefs: [{name: web, port: 80}]
  - filters: [{type: ExtensionRef, extensionRef: {group: gatehouse.dev, kind: ProtectionPolicy, name: nowhere}}]
    backendRefs: [{name: nowhere, port: 80}, {name: web, port: 81}, {group: example.com, kind: Bucket, name: x}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: ReferenceGrant
metadata: {name: bad, namespace: shop}
spec: {from: [{group: example.com, kind: Nothing, namespace: nowhere}], to: [{group: example.com, kind: Nothing}]}
---
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: bad}
spec: {controller: gatehouse.dev/ingress, parameters: {apiGroup: example.com, kind: Nothing, name: x}}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: bad, namespace: shop}
spec:
  ingressClassName: gatehouse
  tls: [{hosts: [web.example], secretName: nowhere}]
  rules: [{host: web.example, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: nowhere, port: {name: x}}}}]}}]
---
apiVersion: v1
kind: Service
metadata: {name: bad, namespace: shop}
spec: {type: ExternalName, externalName: nowhere.invalid}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: bad, namespace: shop, labels: {kubernetes.io/service-name: nowhere}}
addressType: FQDN
endpoints: [{addresses: [nowhere.invalid]}]
ports: []
---
apiVersion: v1
kind: ConfigMap
metadata: {name: bad, namespace: shop}
data: {ca.crt: garbage}
---
apiVersion: gatehouse.dev/v1alpha1
kind: Backend
metadata: {name: bad, namespace: shop}
spec: {endpoints: [{address: 127.0.0.1, port: 1}], tls: {hostname: x, caCertificateRefs: [{group: "", kind: ConfigMap, name: bad}]}}
---
apiVersion: gatehouse.dev/v1alpha1
kind: ProtectionPolicy
metadata: {name: bad, namespace: shop}
spec: {targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: nowhere}], defaults: {sizes: {requestBody: 1Mi}}}
---
apiVersion: gatehouse.dev/v1alpha1
kind: ClientTrafficPolicy
metadata: {name: bad, namespace: shop}
spec: {targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: public, sectionName: http}], clientAddress: {source: {type: XForwardedFor}, trustedCIDRs: [10.0.0.0/8]}, timeouts: {header: 0s}}
---
apiVersion: gatehouse.dev/v1alpha1
kind: GatewayParameters
metadata: {name: bad, namespace: shop}
spec: {defaultCertificateRef: {name: nowhere}, hsts: {maxAge: 1h}, backendAddresses: {allow: [169.254.20.10/32]}}
`

// badObjects: one bad object of every kind leaves all others untouched.
func badObjects(w *world, t *testing.T) {
	w.apply(t, bad)
	w.apply(t, named(route, "beside"))
	w.serves(t, "beside.example")
	w.accepted(t, "beside")
	w.answers(t, "bad.example", http.StatusServiceUnavailable) // an ExtensionRef that names nothing fails closed
	objects, err := cluster.ParseYAML([]byte(bad))
	w.must(t, err)
	kinds := map[string]bool{}
	for _, o := range objects {
		kinds[o.GetKind()] = true
	}
	if len(kinds) != 14 {
		t.Errorf("bad objects of %d kinds, want all but Namespace: %v", len(kinds), kinds)
	}
	for _, line := range []string{"HTTPRoute shop/bad", "Gateway shop/bad"} {
		w.eventually(t, "a word about "+line, func(ctx context.Context) error {
			pods, err := w.pods(ctx)
			if err != nil {
				return err
			}
			for _, p := range pods {
				if text, err := w.Logs(system, p.Name); err == nil && strings.Contains(text, line) {
					return nil
				}
			}
			return errors.New("no log says it")
		})
	}
}

// leaderKilled: the pod that leads is gone from one moment to the next. Another one leads, and writes.
func leaderKilled(w *world, t *testing.T) {
	old, err := w.leader(w.ctx)
	w.must(t, err)
	if old == "" {
		t.Fatal("nobody leads")
	}
	// In an orderly way as far as clients are concerned, or their requests in flight would be lost; the lease is not given back.
	w.must(t, w.Client().CoreV1().Pods(system).Delete(w.ctx, old, metav1.DeleteOptions{}))
	w.eventually(t, "another leader", func(ctx context.Context) error {
		now, err := w.leader(ctx)
		if err == nil && (now == "" || now == old) {
			err = fmt.Errorf("the leader is %q", now)
		}
		return err
	})
	w.apply(t, named(route, "heir"))
	w.serves(t, "heir.example")
	w.accepted(t, "heir")
	w.settled(t)
}

// leaseTaken: somebody else holds the lease and never renews it. Traffic and changes of routes go on; status waits until the lease runs
// out.
func leaseTaken(w *world, t *testing.T) {
	l, err := w.Client().CoordinationV1().Leases(system).Get(w.ctx, "gatehouse", metav1.GetOptions{})
	w.must(t, err)
	thief, now := "thief", metav1.NowMicro()
	l.Spec.HolderIdentity, l.Spec.RenewTime, l.Spec.AcquireTime = &thief, &now, &now
	_, err = w.Client().CoordinationV1().Leases(system).Update(w.ctx, l, metav1.UpdateOptions{})
	w.must(t, err)
	w.apply(t, named(route, "stolen"))
	w.serves(t, "stolen.example")
	w.eventually(t, "an heir of the thief", func(ctx context.Context) error {
		now, err := w.leader(ctx)
		if err == nil && now == thief {
			err = errors.New("the thief still leads")
		}
		return err
	})
	w.accepted(t, "stolen")
}

// rollingUpdate: every pod of Gatehouse is replaced.
func rollingUpdate(w *world, t *testing.T) {
	before, err := w.pods(w.ctx)
	w.must(t, err)
	old := map[types.UID]bool{}
	for _, p := range before {
		old[p.UID] = true
	}
	patch := fmt.Sprintf(`{"spec":{"template":{"metadata":{"annotations":{"test/restarted":%q}}}}}`, time.Now().Format(time.RFC3339Nano))
	_, err = w.Client().AppsV1().Deployments(system).Patch(w.ctx, "gatehouse", types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{})
	w.must(t, err)
	w.eventually(t, "new pods only", func(ctx context.Context) error {
		pods, err := w.pods(ctx)
		if err != nil {
			return err
		}
		for _, p := range pods {
			if old[p.UID] {
				return fmt.Errorf("%s is still there", p.Name)
			}
		}
		return nil
	})
	w.settled(t)
}

// settled waits until the Deployment is what it should be.
func (w *world) settled(t *testing.T) {
	t.Helper()
	w.must(t, w.WaitDeployment(w.ctx, system, "gatehouse"))
}

// TestKindsComeAndGo: without the Gateway API's CRDs Ingresses are served; when the CRDs come Gateways are too, with nothing restarted;
// when they go Ingresses are served on. The experimental channel does as well.
func TestKindsComeAndGo(t *testing.T) {
	w := start(t, "", cluster.Options{})
	w.apply(t, "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n", cluster.Echo("shop", "web", 2), ingress)
	w.address = w.ingressAddress(t)
	w.serves(t, "web.example")
	end := w.load(t)
	old := w.address
	w.must(t, w.InstallGatewayAPI(w.ctx, "experimental"))
	w.apply(t, gatewayClass, strings.ReplaceAll(named(shop, "gw"), "hostnames: [gw.example]", "hostnames: [gw.example, web.example]"))
	w.address = w.gatewayAddress(t)
	w.serves(t, "gw.example")
	crds := gateways.GroupVersion().WithResource("customresourcedefinitions")
	crds.Group = "apiextensions.k8s.io"
	all, err := w.Dynamic().Resource(crds).List(w.ctx, metav1.ListOptions{})
	w.must(t, err)
	n := 0
	for _, c := range all.Items {
		if strings.HasSuffix(c.GetName(), ".gateway.networking.k8s.io") {
			n++
			w.must(t, w.Dynamic().Resource(crds).Delete(w.ctx, c.GetName(), metav1.DeleteOptions{}))
		}
	}
	if n == 0 {
		t.Fatal("no CRD of the Gateway API was there")
	}
	w.eventually(t, "the Gateway's Service to go", func(ctx context.Context) error {
		l, err := w.Client().CoreV1().Services(system).List(ctx, metav1.ListOptions{LabelSelector: "gatehouse.dev/owner-kind=Gateway"})
		if err == nil && len(l.Items) > 0 {
			err = fmt.Errorf("%s is there", l.Items[0].Name)
		}
		return err
	})
	w.address = old
	w.serves(t, "web.example")
	end()
	pods, err := w.pods(w.ctx)
	w.must(t, err)
	for _, p := range pods {
		if p.Status.ContainerStatuses[0].RestartCount > 0 {
			t.Errorf("%s was restarted", p.Name)
		}
	}
}

const ingress = `
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web, namespace: shop}
spec:
  ingressClassName: gatehouse
  rules: [{host: web.example, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}}]
`

const gatewayClass = `
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: gatehouse}
spec: {controllerName: gatehouse.dev/gateway}
`

func (w *world) ingressAddress(t *testing.T) (address string) {
	t.Helper()
	w.eventually(t, "an address of the Ingress", func(ctx context.Context) error {
		i, err := w.Client().NetworkingV1().Ingresses("shop").Get(ctx, "web", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if len(i.Status.LoadBalancer.Ingress) == 0 {
			return errors.New("status has none")
		}
		address = i.Status.LoadBalancer.Ingress[0].IP
		return nil
	})
	return address
}

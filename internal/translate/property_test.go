package translate_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/ir"
	"github.com/gatehouse-io/gatehouse/internal/objects"
	"github.com/gatehouse-io/gatehouse/internal/translate"
)

// TestIncremental holds the result after any history of changes against the one from scratch, and checks that what did not
// change keeps its pointers.
func TestIncremental(t *testing.T) {
	w := newWorld(t)
	rapid.Check(t, func(t *rapid.T) {
		store := objects.NewStore()
		store.Apply(objects.Change{Upserts: decodeAll(w.tb, base)})
		store.Apply(w.change(t, rapid.IntRange(0, 60).Draw(t, "at first")))
		o := options()
		if rapid.Bool().Draw(t, "in a cluster") {
			o = inCluster("n1")
		}
		tr := translate.New(o)
		if rapid.Bool().Draw(t, "as if hosts were large") {
			tr.RememberAll()
		}
		last := tr.Update(store, nil)
		n := rapid.IntRange(1, 12).Draw(t, "changes")
		for range n {
			c := w.change(t, rapid.IntRange(1, 5).Draw(t, "objects"))
			touched := store.Apply(c)
			next := tr.Update(store, touched)
			want := translate.New(o).Update(store, nil)
			if d := cmp.Diff(show(t, want), show(t, next)); d != "" {
				t.Fatalf("after a history of changes (-from scratch +incremental):\n%s", d)
			}
			keptPointers(t, last, next)
			last = next
		}
	})
}

// shown is a result as JSON text, each part of it.
type shown struct{ Config, Endpoints, Secrets, Report, Pending string }

func show(t rapid.TB, r translate.Result) shown {
	return shown{text(t, r.Config), text(t, r.Endpoints), text(t, r.Secrets), text(t, r.Report.Sorted()), text(t, r.Pending)}
}

func text(t rapid.TB, v any) string {
	b, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func keptPointers(t *rapid.T, last, next translate.Result) {
	if same := last.Config == next.Config; same == next.ConfigChanged {
		t.Fatalf("ConfigChanged = %v, but the same pointer: %v", next.ConfigChanged, same)
	}
	if a, b := text(t, last.Config), text(t, next.Config); (a == b) == next.ConfigChanged {
		t.Fatalf("ConfigChanged = %v, but equal: %v", next.ConfigChanged, a == b)
	}
	if a, b := text(t, last.Endpoints), text(t, next.Endpoints); (a == b) == next.EndpointsChanged {
		t.Fatalf("EndpointsChanged = %v, but equal: %v", next.EndpointsChanged, a == b)
	}
	kept(t, last.Config.Listeners, next.Config.Listeners, func(l *ir.Listener) string { return l.Key })
	kept(t, last.Config.Clusters, next.Config.Clusters, func(c *ir.Cluster) string { return c.Key })
	kept(t, last.Config.Hosts, next.Config.Hosts, func(h *ir.Host) string { return h.Listener + " " + h.Hostname })
	kept(t, last.Report.Sorted(), next.Report.Sorted(), func(o *diag.Object) string { return o.Ref.String() })
	routes := map[string]*ir.Route{}
	for _, h := range last.Config.Hosts {
		for _, r := range h.Routes {
			routes[h.Listener+" "+h.Hostname+" "+r.Name] = r
		}
	}
	for _, h := range next.Config.Hosts {
		for _, r := range h.Routes {
			if old := routes[h.Listener+" "+h.Hostname+" "+r.Name]; old != nil && old != r && text(t, old) == text(t, r) {
				t.Fatalf("route %s of host %q did not change, but its pointer did", r.Name, h.Hostname)
			}
		}
	}
	for k, es := range next.Endpoints {
		if old, ok := last.Endpoints[k]; ok && len(es) > 0 && text(t, old) == text(t, es) && &old[0] != &es[0] {
			t.Fatalf("endpoints of %s did not change, but the slice did", k)
		}
	}
}

// kept checks that parts which are equal in both lists are one pointer, and that the keys are sorted.
func kept[T any](t *rapid.T, last, next []*T, key func(*T) string) {
	old := map[string]*T{}
	for _, v := range last {
		old[key(v)] = v
	}
	seen := map[string]bool{}
	for _, v := range next {
		k := key(v)
		if seen[k] {
			t.Fatalf("%T %s stands twice", v, k)
		}
		seen[k] = true
		if o := old[k]; o != nil && o != v && text(t, o) == text(t, v) {
			t.Fatalf("%T %s did not change, but its pointer did", v, k)
		}
	}
}

// TestEverythingTouched translates all anew and keeps every pointer.
func TestEverythingTouched(t *testing.T) {
	store := objects.NewStore()
	store.Apply(objects.Change{Upserts: parse(t, builtins)})
	store.Apply(objects.Change{Upserts: parse(t, manyRoutes(50, 50))})
	tr := translate.New(options())
	first := tr.Update(store, nil)
	if len(first.Config.Hosts) != 50 {
		t.Fatalf("%d hosts, want 50", len(first.Config.Hosts))
	}
	again := tr.Update(store, nil)
	if again.ConfigChanged || again.EndpointsChanged || again.SecretsChanged || again.Config != first.Config || again.Report != first.Report {
		t.Errorf("nothing changed, but the result did: %+v", again)
	}
}

// TestPartsChangeAlone: a rollout of pods, or a new certificate, leaves the configuration as it is.
func TestPartsChangeAlone(t *testing.T) {
	const shop = `apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web, namespace: shop}
spec:
  tls: [{hosts: [shop.example], secretName: shop-tls}]
  rules: [{host: shop.example, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}}]
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: other, namespace: shop}
spec: {type: ExternalName, externalName: other.example}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: other, namespace: shop}
spec: {defaultBackend: {service: {name: other, port: {number: 80}}}}
`
	const pods = `apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{port: 8080}]
endpoints: [{addresses: [%s]}]
`
	const certificate = `apiVersion: v1
kind: Secret
metadata: {name: shop-tls, namespace: shop}
type: kubernetes.io/tls
stringData: {tls.crt: PAIR, tls.key: PAIR}
`
	store := objects.NewStore()
	tr := translate.New(options())
	apply := func(text string) translate.Result {
		t.Helper()
		return tr.Update(store, store.Apply(objects.Change{Upserts: parse(t, text)}))
	}
	apply(builtins)
	apply(shop)
	apply(certificate)
	first := apply(fmt.Sprintf(pods, "10.0.0.1"))
	const web, other = "Service/shop/web/80", "Service/shop/other/80"
	if got := first.Endpoints[web]; first.ConfigChanged || first.SecretsChanged || len(got) != 1 || got[0].Host != "10.0.0.1" {
		t.Fatalf("new pods: %+v, want the endpoints alone", first)
	}
	second := apply(fmt.Sprintf(pods, "10.0.0.2"))
	if second.Config != first.Config || second.Endpoints[web][0].Host != "10.0.0.2" || first.Endpoints[web][0].Host != "10.0.0.1" {
		t.Errorf("other pods: %+v, want other endpoints and the same configuration", second)
	}
	if &second.Endpoints[other][0] != &first.Endpoints[other][0] {
		t.Error("other pods of one cluster: the endpoints of another one are not the same slice")
	}
	third := apply(certificate) // another pair
	if third.Config != first.Config || third.EndpointsChanged || !third.SecretsChanged || third.Report != second.Report {
		t.Errorf("another pair: %+v, want the secrets alone", third)
	}
	if fourth := apply(strings.Replace(shop, "metadata: {name: web, namespace: shop}\nspec: {ports", "metadata: {name: web, namespace: shop, labels: {a: b}}\nspec: {ports", 1)); fourth.ConfigChanged || fourth.EndpointsChanged || fourth.SecretsChanged {
		t.Errorf("a label: %+v, want nothing", fourth)
	}
	v := store.View(nil)
	for _, c := range third.Config.Clusters {
		if d := cmp.Diff(third.Endpoints[c.Key], translate.Endpoints(v, c)); d != "" {
			t.Errorf("Endpoints(%s): -in the result +by itself:\n%s", c.Key, d)
		}
	}
	set, pending := translate.Secrets(v, []string{"Secret/shop/shop-tls", "Secret/shop/none"})
	if len(set) != 1 || len(pending) != 0 || set["Secret/shop/shop-tls"] != third.Secrets["Secret/shop/shop-tls"] {
		t.Errorf("Secrets = %v, %v; want what the result has", set, pending)
	}
	s, _ := objects.Get[*objects.Secret](v, "shop", "shop-tls")
	fifth := tr.Update(store, store.Apply(objects.Change{Upserts: []objects.Object{&objects.Secret{ObjectMeta: s.ObjectMeta, Pending: true}}}))
	if d := cmp.Diff([]objects.Key{{Kind: "Secret", Namespace: "shop", Name: "shop-tls"}}, fifth.Pending); d != "" || len(fifth.Secrets) != 0 {
		t.Errorf("Pending: -want +got:\n%s", d)
	}
}

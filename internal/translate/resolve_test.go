package translate

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-io/gatehouse/api/v1alpha1"
	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/objects"
)

// notFollowed lists the reference fields that Gatehouse does not follow, and why that is safe.
func notFollowed() map[string]string {
	const unsupported = "the filter is refused: its rule is dropped"
	return map[string]string{
		"Gateway spec.tls.frontend.default.validation.caCertificateRefs":     "the listener is refused: UnsupportedValue",
		"Gateway spec.tls.frontend.perPort.tls.validation.caCertificateRefs": "the listener is refused: UnsupportedValue",
		"HTTPRoute spec.rules.backendRefs.filters.externalAuth.backendRef":   unsupported,
	}
}

// TestEveryReferenceIsKnown finds the reference fields in the types of all kinds: a new one fails until it stands in refSites, or
// here with the reason why it is not followed.
func TestEveryReferenceIsKnown(t *testing.T) {
	found := map[string]bool{}
	for _, o := range []objects.Object{&gatewayv1.GatewayClass{}, &gatewayv1.Gateway{}, &gatewayv1.HTTPRoute{}, &gatewayv1.BackendTLSPolicy{}, &networkingv1.IngressClass{},
		&networkingv1.Ingress{}, &v1alpha1.Backend{}, &v1alpha1.ProtectionPolicy{}, &v1alpha1.ClientTrafficPolicy{},
		&v1alpha1.BackendTrafficPolicy{}, &v1alpha1.AuthPolicy{}, &v1alpha1.RateLimitPolicy{}, &v1alpha1.GatewayParameters{}} {
		spec, _ := reflect.TypeOf(o).Elem().FieldByName("Spec")
		references(spec.Type, objects.KindOf(o)+" spec", found)
	}
	known := map[string]bool{}
	for _, s := range refSites() {
		known[s.from+" "+s.field] = true
	}
	for f := range found {
		if _, ok := notFollowed()[f]; !ok && !known[f] {
			t.Errorf("%s is a reference that neither refSites nor notFollowed knows", f)
		}
	}
	for f := range known {
		if !found[f] {
			t.Errorf("refSites has %s, which no type has", f)
		}
	}
	for f := range notFollowed() {
		if !found[f] || known[f] {
			t.Errorf("notFollowed has %s, which no type has or which is followed", f)
		}
	}
}

// references collects the paths of fields that name other objects.
func references(t reflect.Type, path string, found map[string]bool) {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct || strings.HasPrefix(t.PkgPath(), "k8s.io/apimachinery") {
		return
	}
	name := t.Name()
	if strings.HasSuffix(name, "Reference") || strings.HasSuffix(name, "Ref") || name == "IngressServiceBackend" {
		found[path] = true
	}
	for i := range t.NumField() {
		f := t.Field(i)
		tag, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case tag == "-":
		case tag == "":
			references(f.Type, path, found)
		case tag == "secretName" || strings.HasSuffix(tag, "ClassName"):
			found[path+"."+tag] = true
		default:
			references(f.Type, path+"."+tag, found)
		}
	}
}

// TestResolveMatrix asks about every field and every kind: what is not granted is refused.
func TestResolveMatrix(t *testing.T) {
	kinds := []string{"/Secret", "/Service", "/ConfigMap", "gatehouse.dev/Backend", "gatehouse.dev/GatewayParameters", "gatehouse.dev/ProtectionPolicy", "gatehouse.dev/AuthPolicy",
		"gateway.networking.k8s.io/Gateway", "gateway.networking.k8s.io/HTTPRoute", "networking.k8s.io/Ingress", "example.com/Secret"}
	for _, s := range refSites() {
		for _, k := range kinds {
			group, kind, _ := strings.Cut(k, "/")
			from := refOf(s.from, "here", "from")
			near := diag.Ref{Group: group, Kind: kind, Namespace: "here", Name: "to"}
			far := near
			far.Namespace = "there"
			if !slices.Contains(s.kinds, k) {
				check(t, s, from, near, "InvalidKind")
				check(t, s, from, far, "InvalidKind", grantOf(from, far))
				continue
			}
			check(t, s, from, near, "")
			if s.reach == anyNS {
				check(t, s, from, far, "")
				continue
			}
			otherFrom, otherTo, otherNS := from, far, far
			otherFrom.Namespace, otherTo.Name, otherNS.Namespace = "elsewhere", "other", "here"
			check(t, s, from, far, "RefNotPermitted")
			check(t, s, from, far, "RefNotPermitted", grantOf(otherFrom, far))
			check(t, s, from, far, "RefNotPermitted", grantOf(from, otherTo))
			check(t, s, from, far, "RefNotPermitted", grantOf(from, otherNS))
			check(t, s, from, far, "RefNotPermitted", grantOf(refOf("Service", "here", "from"), far))
			want := "RefNotPermitted"
			if s.reach == granted {
				want = ""
			}
			check(t, s, from, far, want, grantOf(from, far))
			all := grantOf(from, far)
			all.Spec.To[0].Name = nil
			check(t, s, from, far, want, all)
		}
	}
	check(t, refSite{field: "spec.unknown"}, refOf("HTTPRoute", "here", "from"), refOf("Service", "here", "to"), "InvalidKind")
}

func grantOf(from, to diag.Ref) *gatewayv1.ReferenceGrant {
	name := gatewayv1.ObjectName(to.Name)
	g := &gatewayv1.ReferenceGrant{}
	g.Namespace, g.Name = to.Namespace, "g"
	g.Spec.From = []gatewayv1.ReferenceGrantFrom{{Group: gatewayv1.Group(from.Group), Kind: gatewayv1.Kind(from.Kind), Namespace: gatewayv1.Namespace(from.Namespace)}}
	g.Spec.To = []gatewayv1.ReferenceGrantTo{{Group: gatewayv1.Group(to.Group), Kind: gatewayv1.Kind(to.Kind), Name: &name}}
	return g
}

func check(t *testing.T, s refSite, from, to diag.Ref, want string, grants ...*gatewayv1.ReferenceGrant) {
	t.Helper()
	store := objects.NewStore()
	for _, g := range grants {
		store.Apply(objects.Change{Upserts: []objects.Object{g}})
	}
	p := &pass{t: New(Options{}), view: store.View(nil)}
	got := ""
	if r := p.resolve(from, s.field, to); r != nil {
		got = r.reason
	}
	if got != want {
		t.Errorf("resolve(%s %s -> %s %s, %d grants) = %q, want %q", from, s.field, to.Group, to, len(grants), got, want)
	}
}

package objects_test

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-io/gatehouse/api/v1alpha1"
	"github.com/gatehouse-io/gatehouse/internal/objects"
)

func ptr[T any](v T) *T { return &v }

func meta(ns, name string) metav1.ObjectMeta { return metav1.ObjectMeta{Namespace: ns, Name: name} }

func TestTablesOfKindsAgree(t *testing.T) {
	seen := map[string]bool{}
	for _, k := range objects.Kinds() {
		if seen[k.Name] {
			t.Errorf("kind %s is listed twice", k.Name)
		}
		seen[k.Name] = true
		var o objects.Object = &objects.Secret{}
		if k.Name != "Secret" {
			if o = objects.New(k.Name); o == nil {
				t.Errorf("New(%q) = nil", k.Name)
				continue
			}
		}
		if got := objects.KindOf(o); got != k.Name {
			t.Errorf("KindOf(New(%q)) = %q", k.Name, got)
		}
	}
	if got := objects.New("Pod"); got != nil {
		t.Errorf(`New("Pod") = %T, want nil`, got)
	}
	if got := objects.KindOf(&corev1.Pod{}); got != "" {
		t.Errorf("KindOf(Pod) = %q, want none", got)
	}
}

func TestIndexes(t *testing.T) {
	route := &gatewayv1.HTTPRoute{ObjectMeta: meta("shop", "cart")}
	route.Spec.ParentRefs = []gatewayv1.ParentReference{
		{Name: "own"},
		{Name: "edge", Namespace: ptr(gatewayv1.Namespace("infra"))},
		{Name: "edge", Namespace: ptr(gatewayv1.Namespace("infra")), SectionName: ptr(gatewayv1.SectionName("https"))},
		{Name: "cart", Kind: ptr(gatewayv1.Kind("Service"))},
	}
	policy := &v1alpha1.ProtectionPolicy{ObjectMeta: meta("shop", "guard")}
	policy.Spec.TargetRefs = []v1alpha1.TargetRef{{Kind: "HTTPRoute", Name: "cart"}, {Kind: "IngressClass", Name: "gatehouse"}}
	client := &v1alpha1.ClientTrafficPolicy{ObjectMeta: meta("infra", "c")}
	client.Spec.TargetRefs = []v1alpha1.TargetRef{{Kind: "Gateway", Name: "edge"}, {Kind: "GatewayClass", Name: "gatehouse"}}
	old := &networkingv1.Ingress{ObjectMeta: meta("shop", "old")}
	old.Annotations = map[string]string{objects.IngressClassAnnotation: "nginx"}
	slice := &discoveryv1.EndpointSlice{ObjectMeta: meta("shop", "cart-1")}
	slice.Labels = map[string]string{discoveryv1.LabelServiceName: "cart"}
	s := objects.NewStore()
	s.Apply(objects.Change{Upserts: []objects.Object{
		route, policy, client, old, slice,
		&networkingv1.Ingress{ObjectMeta: meta("shop", "new"), Spec: networkingv1.IngressSpec{IngressClassName: ptr("gatehouse")}},
		&networkingv1.Ingress{ObjectMeta: meta("shop", "none")},
		&discoveryv1.EndpointSlice{ObjectMeta: meta("shop", "orphan")},
		&gatewayv1.Gateway{ObjectMeta: meta("infra", "edge"), Spec: gatewayv1.GatewaySpec{GatewayClassName: "gatehouse"}},
	}})
	v := s.View(nil)
	for _, c := range []struct {
		index, value string
		got          []string
		want         []string
	}{
		{objects.ByParent, "Gateway/shop/own", list[*gatewayv1.HTTPRoute](v, objects.ByParent, "Gateway/shop/own"), []string{"shop/cart"}},
		{objects.ByParent, "Gateway/infra/edge", list[*gatewayv1.HTTPRoute](v, objects.ByParent, "Gateway/infra/edge"), []string{"shop/cart"}},
		{objects.ByParent, "Service/shop/cart", list[*gatewayv1.HTTPRoute](v, objects.ByParent, "Service/shop/cart"), []string{"shop/cart"}},
		{objects.ByParent, "Gateway/shop/edge", list[*gatewayv1.HTTPRoute](v, objects.ByParent, "Gateway/shop/edge"), nil},
		{objects.ByTarget, "HTTPRoute/shop/cart", list[*v1alpha1.ProtectionPolicy](v, objects.ByTarget, "HTTPRoute/shop/cart"), []string{"shop/guard"}},
		{objects.ByTarget, "IngressClass//gatehouse", list[*v1alpha1.ProtectionPolicy](v, objects.ByTarget, "IngressClass//gatehouse"), []string{"shop/guard"}},
		{objects.ByTarget, "Gateway/infra/edge", list[*v1alpha1.ClientTrafficPolicy](v, objects.ByTarget, "Gateway/infra/edge"), []string{"infra/c"}},
		{objects.ByTarget, "GatewayClass//gatehouse", list[*v1alpha1.ClientTrafficPolicy](v, objects.ByTarget, "GatewayClass//gatehouse"), []string{"infra/c"}},
		{objects.ByClass, "nginx", list[*networkingv1.Ingress](v, objects.ByClass, "nginx"), []string{"shop/old"}},
		{objects.ByClass, "gatehouse", list[*networkingv1.Ingress](v, objects.ByClass, "gatehouse"), []string{"shop/new"}},
		{objects.ByClass, "", list[*networkingv1.Ingress](v, objects.ByClass, ""), []string{"shop/none"}},
		{objects.ByClass, "gatehouse", list[*gatewayv1.Gateway](v, objects.ByClass, "gatehouse"), []string{"infra/edge"}},
		{objects.ByService, "shop/cart", list[*discoveryv1.EndpointSlice](v, objects.ByService, "shop/cart"), []string{"shop/cart-1"}},
		{objects.ByNamespace, "shop", list[*discoveryv1.EndpointSlice](v, objects.ByNamespace, "shop"), []string{"shop/cart-1", "shop/orphan"}},
		{"", "ignored", list[*discoveryv1.EndpointSlice](v, "", "ignored"), []string{"shop/cart-1", "shop/orphan"}},
	} {
		if d := cmp.Diff(c.want, c.got); d != "" {
			t.Errorf("List(%q, %q) (-want +got):\n%s", c.index, c.value, d)
		}
	}
}

func list[T objects.Object](v *objects.View, index, value string) []string {
	var out []string
	for _, o := range objects.List[T](v, index, value) {
		out = append(out, o.GetNamespace()+"/"+o.GetName())
	}
	return out
}

func TestGet(t *testing.T) {
	s := objects.NewStore()
	svc := &corev1.Service{ObjectMeta: meta("shop", "cart")}
	s.Apply(objects.Change{Upserts: []objects.Object{svc,
		&objects.Secret{ObjectMeta: meta("shop", "tls"), Pending: true}, &objects.Secret{ObjectMeta: meta("shop", "key")}}})
	v := s.View(nil)
	if got, p := objects.Get[*corev1.Service](v, "shop", "cart"); got != svc || p != objects.Present {
		t.Errorf("Get(Service shop/cart) = %v, %v", got, p)
	}
	if got, p := objects.Get[*corev1.Service](v, "other", "cart"); got != nil || p != objects.Absent {
		t.Errorf("Get of an absent Service = %v, %v", got, p)
	}
	if got, p := objects.Get[*objects.Secret](v, "shop", "tls"); got == nil || p != objects.Pending {
		t.Errorf("Get of a pending Secret = %v, %v", got, p)
	}
	if got, p := objects.Get[*objects.Secret](v, "shop", "key"); got == nil || p != objects.Present {
		t.Errorf("Get(Secret shop/key) = %v, %v", got, p)
	}
}

func TestReadsAreRecorded(t *testing.T) {
	var got []objects.Read
	v := objects.NewStore().View(func(r objects.Read) { got = append(got, r) })
	objects.Get[*corev1.Service](v, "shop", "absent")
	objects.Get[*gatewayv1.GatewayClass](v, "", "edge")
	objects.List[*networkingv1.Ingress](v, objects.ByClass, "")
	objects.List[*networkingv1.Ingress](v, "", "ignored")
	want := []objects.Read{
		{Kind: "Service", Key: objects.Key{Kind: "Service", Namespace: "shop", Name: "absent"}},
		{Kind: "GatewayClass", Key: objects.Key{Kind: "GatewayClass", Name: "edge"}},
		{Kind: "Ingress", Index: objects.ByClass},
		{Kind: "Ingress"},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("reads (-want +got):\n%s", d)
	}
}

func TestApplyTouches(t *testing.T) {
	ingress := func(class string) *networkingv1.Ingress {
		return &networkingv1.Ingress{ObjectMeta: meta("shop", "web"), Spec: networkingv1.IngressSpec{IngressClassName: ptr(class)}}
	}
	key := objects.Key{Kind: "Ingress", Namespace: "shop", Name: "web"}
	of := func(class string) objects.Read {
		return objects.Read{Kind: "Ingress", Index: objects.ByClass, Value: class}
	}
	always := []objects.Read{
		{Kind: "Ingress", Key: key}, {Kind: "Ingress"}, {Kind: "Ingress", Index: objects.ByNamespace, Value: "shop"},
	}
	s := objects.NewStore()
	for _, c := range []struct {
		name   string
		change objects.Change
		want   []objects.Read
		left   int
	}{
		{"nothing", objects.Change{}, nil, 0},
		{"delete what is not there", objects.Change{Deletes: []objects.Key{key, {Kind: "Pod"}}}, nil, 0},
		{"add", objects.Change{Upserts: []objects.Object{ingress("a")}}, append(slices.Clip(always), of("a")), 1},
		{"move to another class", objects.Change{Upserts: []objects.Object{ingress("b")}}, append(slices.Clip(always), of("a"), of("b")), 1},
		{"delete", objects.Change{Deletes: []objects.Key{key}}, append(slices.Clip(always), of("b")), 0},
	} {
		got := map[objects.Read]bool{}
		for _, r := range s.Apply(c.change) {
			if got[r] {
				t.Errorf("%s: %+v is told twice", c.name, r)
			}
			got[r] = true
		}
		want := map[objects.Read]bool{}
		for _, r := range c.want {
			want[r] = true
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, d)
		}
		if n := s.Len("Ingress"); n != c.left {
			t.Errorf("%s: %d left, want %d", c.name, n, c.left)
		}
	}
	if got := s.Len("Pod"); got != 0 {
		t.Errorf(`Len("Pod") = %d`, got)
	}
}

func TestApplyPanicsOnAForeignKind(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("a Pod was taken in silence")
		}
	}()
	objects.NewStore().Apply(objects.Change{Upserts: []objects.Object{&corev1.Pod{}}})
}

func TestOlder(t *testing.T) {
	at := func(ns, name string, sec int64) objects.Object {
		o := &corev1.Service{ObjectMeta: meta(ns, name)}
		if sec > 0 {
			o.CreationTimestamp = metav1.NewTime(time.Unix(sec, 0))
		}
		return o
	}
	want := []objects.Object{at("b", "file", 0), at("c", "a", 1), at("a", "b", 2), at("a", "c", 2), at("b", "a", 2)}
	for i, a := range want {
		for j, b := range want {
			if got := objects.Older(a, b); (got < 0) != (i < j) || (got > 0) != (i > j) {
				t.Errorf("Older(%s/%s, %s/%s) = %d", a.GetNamespace(), a.GetName(), b.GetNamespace(), b.GetName(), got)
			}
		}
	}
}

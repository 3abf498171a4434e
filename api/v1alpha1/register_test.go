package v1alpha1_test

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/gatehouse-io/gatehouse/api/v1alpha1"
)

// Each kind with a spec has its list beside it, and both can be made from their names.
func TestAddToScheme(t *testing.T) {
	s := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(s); err != nil {
		t.Fatal(err)
	}
	gv := schema.GroupVersion{Group: v1alpha1.Group, Version: v1alpha1.Version}
	kinds := 0
	for kind, rt := range s.KnownTypes(gv) {
		if _, ok := rt.FieldByName("Spec"); !ok || rt.PkgPath() != reflect.TypeFor[v1alpha1.Backend]().PkgPath() {
			continue
		}
		kinds++
		list, err := s.New(gv.WithKind(kind + "List"))
		if err != nil {
			t.Errorf("%s has no list: %v", kind, err)
			continue
		}
		items, ok := reflect.TypeOf(list).Elem().FieldByName("Items")
		if !ok || items.Type != reflect.SliceOf(rt) {
			t.Errorf("%sList does not hold %s", kind, rt)
		}
	}
	if kinds != 7 {
		t.Errorf("%d kinds, want 7", kinds)
	}
}

// A copy is equal and shares nothing: what is behind a pointer, a list or a map of the copy can be changed alone.
func TestDeepCopy(t *testing.T) {
	full := func() *v1alpha1.ClientTrafficPolicy {
		p := &v1alpha1.ClientTrafficPolicy{}
		text := `{"metadata": {"name": "a", "labels": {"k": "v"}}, "spec": {"targetRefs": [{"group": "g", "kind": "K", "name": "n"}],
			"clientAddress": {"source": {"type": "ProxyProtocol"}, "trustedCIDRs": ["192.0.2.0/24"]},
			"limits": {"headerBytes": "1Ki", "streams": 3}, "timeouts": {"idle": "9s"}}}`
		d := json.NewDecoder(strings.NewReader(text))
		d.DisallowUnknownFields()
		if err := d.Decode(p); err != nil {
			t.Fatal(err)
		}
		return p
	}
	p := full()
	c := p.DeepCopyObject().(*v1alpha1.ClientTrafficPolicy)
	if d := cmp.Diff(p, c); d != "" {
		t.Fatalf("the copy differs (-original +copy):\n%s", d)
	}
	c.Labels["k"] = "w"
	c.Spec.TargetRefs[0].Name = "m"
	c.Spec.ClientAddress.TrustedCIDRs[0] = "198.51.100.0/24"
	*c.Spec.Limits.Streams = 4
	*c.Spec.Timeouts.Idle = "8s"
	if d := cmp.Diff(full(), p); d != "" {
		t.Errorf("changing the copy changed the original (-before +after):\n%s", d)
	}
}

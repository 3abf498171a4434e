package infra

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"pgregory.net/rapid"

	"github.com/gatehouse-io/gatehouse/internal/diag"
)

func gateway(name string, ports ...int32) *diag.Object {
	return &diag.Object{Ref: diag.Ref{Kind: "Gateway", Namespace: "shop", Name: name},
		Exposure: &diag.Exposure{Service: "gh-" + name, Type: "LoadBalancer", Ports: ports}}
}

func options() Options {
	return Options{Namespace: "edge", Installation: "main", Selector: map[string]string{"app": "gatehouse"}}
}

// ports shows which target stands behind each port.
func ports(s *corev1.Service) map[int32]int32 {
	out := map[int32]int32{}
	for _, p := range s.Spec.Ports {
		out[p.Port] = p.TargetPort.IntVal
	}
	return out
}

func TestServices(t *testing.T) {
	a, b := gateway("a", 80, 443), gateway("b", 80)
	apply, remove := Services([]*diag.Object{b, a, {Ref: diag.Ref{Kind: "Gateway", Name: "host"}}}, nil, options())
	if len(apply) != 2 || len(remove) != 0 {
		t.Fatalf("%d to apply, remove %v", len(apply), remove)
	}
	if d := cmp.Diff([]map[int32]int32{{80: 10080, 443: 10443}, {80: 20000}}, []map[int32]int32{ports(apply[0]), ports(apply[1])}); d != "" {
		t.Error(d)
	}
	have := apply
	if apply, remove = Services([]*diag.Object{a, b}, have, options()); len(apply)+len(remove) != 0 {
		t.Errorf("at rest: apply %v, remove %v", apply, remove)
	}
	if apply, remove = Services([]*diag.Object{b}, have, options()); len(apply) != 0 || len(remove) != 1 || remove[0] != "gh-a" {
		t.Errorf("without a: apply %v, remove %v", apply, remove)
	}
}

// TestKeep: while the parameters are not known nothing is made, changed or removed.
func TestKeep(t *testing.T) {
	a := gateway("a", 80)
	have, _ := Services([]*diag.Object{a}, nil, options())
	a.Exposure = &diag.Exposure{Service: "gh-a", Keep: true}
	for _, there := range [][]*corev1.Service{nil, have} {
		if apply, remove := Services([]*diag.Object{a}, there, options()); len(apply)+len(remove) != 0 {
			t.Errorf("with %d there: apply %v, remove %v", len(there), apply, remove)
		}
	}
}

// TestDrift: what others changed of what is ours is mended, what they added is left alone, what is no longer wanted is seen.
func TestDrift(t *testing.T) {
	a := gateway("a", 80)
	a.Exposure.Annotations = map[string]string{"lb/kind": "internal"}
	first, _ := Services([]*diag.Object{a}, nil, options())
	for _, c := range []struct {
		name   string
		change func(*corev1.Service)
		want   bool
	}{
		{"another's annotation", func(s *corev1.Service) { s.Annotations["cloud/id"] = "7" }, false},
		{"a node port", func(s *corev1.Service) { s.Spec.Ports[0].NodePort = 30080 }, false},
		{"a selector", func(s *corev1.Service) { s.Spec.Selector = map[string]string{"app": "other"} }, true},
		{"a port more", func(s *corev1.Service) { s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Port: 9}) }, true},
		{"our annotation", func(s *corev1.Service) { s.Annotations["lb/kind"] = "public" }, true},
		{"its type", func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeClusterIP }, true},
	} {
		s := first[0].DeepCopy()
		c.change(s)
		if apply, _ := Services([]*diag.Object{a}, []*corev1.Service{s}, options()); (len(apply) > 0) != c.want {
			t.Errorf("%s changed: applied = %v, want %v", c.name, len(apply) > 0, c.want)
		}
	}
	a.Exposure.Annotations = nil
	if apply, _ := Services([]*diag.Object{a}, first, options()); len(apply) != 1 {
		t.Error("an annotation that is no longer wanted is not seen")
	}
}

// TestTargetsOfOthersGo: a target port that cannot be one of ours, or is another's already, was written by somebody else.
func TestTargetsOfOthersGo(t *testing.T) {
	a, b := gateway("a", 80), gateway("b", 80, 443)
	have, _ := Services([]*diag.Object{a, b}, nil, options())
	for _, target := range []int32{1, 8080, 10000, 32000, 10080, 10443} { // the last two are ports of a and of b itself
		edited := []*corev1.Service{have[0], have[1].DeepCopy()}
		edited[1].Spec.Ports[0].TargetPort.IntVal = target
		apply, _ := Services([]*diag.Object{a, b}, edited, options())
		if target == 10443 && len(apply) == 1 { // the port that comes first keeps it
			if got := ports(apply[0]); got[80] == got[443] {
				t.Errorf("target %d: %v", target, got)
			}
			continue
		}
		if len(apply) != 1 || !cmp.Equal(ports(apply[0]), map[int32]int32{80: 20000, 443: 10443}) {
			t.Errorf("target %d: %v is applied", target, apply)
		}
	}
}

// TestTargetsNeverCollide: whatever comes and goes, no two ports have one target and a target that is assigned stays.
func TestTargetsNeverCollide(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var have []*corev1.Service
		was := map[string]int32{}
		for range rapid.IntRange(1, 8).Draw(t, "rounds") {
			var objects []*diag.Object
			for _, name := range []string{"a", "b", "c"} {
				ps := rapid.SliceOfNDistinct(rapid.SampledFrom([]int32{80, 443, 8080, 10000, 20000, 65535}), 0, 4, rapid.ID).Draw(t, name)
				if len(ps) > 0 {
					objects = append(objects, gateway(name, ps...))
				}
			}
			apply, remove := Services(objects, have, options())
			next := map[string]*corev1.Service{}
			for _, s := range have {
				next[s.Name] = s
			}
			for _, s := range apply {
				next[s.Name] = s
			}
			for _, n := range remove {
				delete(next, n)
			}
			have = nil
			seen, is := map[int32]string{}, map[string]int32{}
			for _, s := range next {
				have = append(have, s)
				for port, target := range ports(s) {
					at := s.Name + ":" + portName(port)
					if o := seen[target]; o != "" || target < 10000 || target > lastTarget {
						t.Fatalf("%s and %s have target %d", at, o, target)
					}
					seen[target], is[at] = at, target
					if w, ok := was[at]; ok && w != target {
						t.Fatalf("target of %s moved from %d to %d", at, w, target)
					}
				}
			}
			was = is
		}
	})
}

func TestLabelValue(t *testing.T) {
	long := strings.Repeat("a", 200)
	if got := labelValue(long); len(got) > 63 || got == labelValue(long+"b") {
		t.Errorf("labelValue(200 bytes) = %q", got)
	}
	if got := labelValue("web"); got != "web" {
		t.Errorf("labelValue(web) = %q", got)
	}
}

package objects_test

import (
	"slices"
	"testing"

	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"pgregory.net/rapid"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-io/gatehouse/api/v1alpha1"
	"github.com/gatehouse-io/gatehouse/internal/objects"
)

// Names and values come from few letters, so that histories meet themselves often.
var few = rapid.SampledFrom([]string{"", "a", "b"})

func anObject(t *rapid.T) objects.Object {
	m := meta(few.Draw(t, "namespace"), few.Draw(t, "name"))
	switch rapid.IntRange(0, 4).Draw(t, "kind") {
	case 0:
		o := &networkingv1.Ingress{ObjectMeta: m}
		if c := few.Draw(t, "class"); c != "" {
			o.Spec.IngressClassName = &c
		}
		return o
	case 1:
		o := &gatewayv1.HTTPRoute{ObjectMeta: m}
		for _, p := range rapid.SliceOfN(few, 0, 3).Draw(t, "parents") {
			o.Spec.ParentRefs = append(o.Spec.ParentRefs, gatewayv1.ParentReference{Name: gatewayv1.ObjectName(p)})
		}
		return o
	case 2:
		o := &discoveryv1.EndpointSlice{ObjectMeta: m}
		if s := few.Draw(t, "service"); s != "" {
			o.Labels = map[string]string{discoveryv1.LabelServiceName: s}
		}
		return o
	case 3:
		o := &v1alpha1.ProtectionPolicy{ObjectMeta: m}
		for _, n := range rapid.SliceOfN(few, 0, 2).Draw(t, "targets") {
			o.Spec.TargetRefs = append(o.Spec.TargetRefs, v1alpha1.TargetRef{Kind: "Gateway", Name: n})
		}
		return o
	}
	m.Namespace = ""
	return &gatewayv1.GatewayClass{ObjectMeta: m}
}

// A reader asks one thing of a view; its read and its answer are what the view recorded and returned.
type reader func(*objects.View) any

func one[T objects.Object](ns, name string) reader {
	return func(v *objects.View) any {
		o, p := objects.Get[T](v, ns, name)
		return struct {
			o objects.Object
			p objects.Presence
		}{o, p}
	}
}

func all[T objects.Object](index, value string) reader {
	return func(v *objects.View) any {
		out := [64]objects.Object{}
		for i, o := range objects.List[T](v, index, value) {
			out[i] = o
		}
		return out
	}
}

// readers ask for everything that a history over few can touch, and more.
func readers() []reader {
	var out []reader
	letters := []string{"", "a", "b"}
	for _, ns := range letters {
		for _, n := range letters {
			out = append(out, one[*networkingv1.Ingress](ns, n), one[*gatewayv1.HTTPRoute](ns, n), one[*discoveryv1.EndpointSlice](ns, n),
				one[*v1alpha1.ProtectionPolicy](ns, n), one[*gatewayv1.GatewayClass](ns, n),
				all[*gatewayv1.HTTPRoute](objects.ByParent, "Gateway/"+ns+"/"+n),
				all[*discoveryv1.EndpointSlice](objects.ByService, ns+"/"+n),
				all[*v1alpha1.ProtectionPolicy](objects.ByTarget, "Gateway/"+ns+"/"+n))
		}
		out = append(out, all[*networkingv1.Ingress](objects.ByClass, ns), all[*networkingv1.Ingress](objects.ByNamespace, ns),
			all[*gatewayv1.HTTPRoute](objects.ByNamespace, ns), all[*v1alpha1.ProtectionPolicy](objects.ByNamespace, ns))
	}
	return append(out, all[*networkingv1.Ingress]("", ""), all[*gatewayv1.HTTPRoute]("", ""), all[*gatewayv1.GatewayClass]("", ""))
}

// Over any history, a read that Apply did not name has the answer it had before; a read that it named speaks of an object
// of the change; and every answer is that of a store filled from scratch.
func TestTouchedReadsAreExactlyEnough(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, now := objects.NewStore(), map[objects.Key]objects.Object{}
		var answers map[objects.Read]any
		ask := func(s *objects.Store) map[objects.Read]any {
			out := map[objects.Read]any{}
			for _, ask := range readers() {
				var read objects.Read
				answer := ask(s.View(func(r objects.Read) { read = r }))
				out[read] = answer
			}
			return out
		}
		answers = ask(s)
		for range rapid.IntRange(1, 6).Draw(t, "steps") {
			var c objects.Change
			for range rapid.IntRange(0, 3).Draw(t, "deletes") {
				c.Deletes = append(c.Deletes, objects.KeyOf(anObject(t)))
			}
			for range rapid.IntRange(0, 4).Draw(t, "upserts") {
				o := anObject(t)
				if !slices.ContainsFunc(c.Upserts, func(p objects.Object) bool { return objects.KeyOf(p) == objects.KeyOf(o) }) {
					c.Upserts = append(c.Upserts, o)
				}
			}
			changed := map[objects.Key]bool{}
			for _, k := range c.Deletes {
				delete(now, k)
				changed[k] = true
			}
			for _, o := range c.Upserts {
				now[objects.KeyOf(o)] = o
				changed[objects.KeyOf(o)] = true
			}
			touched := map[objects.Read]bool{}
			for _, r := range s.Apply(c) {
				touched[r] = true
				if r.Key != (objects.Key{}) && !changed[r.Key] {
					t.Fatalf("%v was touched by a change of %v", r.Key, changed)
				}
			}
			next := ask(s)
			scratch := objects.NewStore()
			for _, o := range now {
				scratch.Apply(objects.Change{Upserts: []objects.Object{o}})
			}
			for r, want := range ask(scratch) {
				if next[r] != want {
					t.Fatalf("read %+v = %v, from scratch %v", r, next[r], want)
				}
				if !touched[r] && next[r] != answers[r] {
					t.Fatalf("read %+v was not touched by %+v, but is %v after %v", r, c, next[r], answers[r])
				}
			}
			for r := range touched {
				if r.Key == (objects.Key{}) && !holds(answers[r], changed) && !holds(next[r], changed) {
					t.Fatalf("read %+v was touched, but held no object of %v before or after", r, changed)
				}
			}
			answers = next
		}
	})
}

// holds says whether a list holds an object of one of the keys. A list that no reader asked for counts as one that does.
func holds(answer any, keys map[objects.Key]bool) bool {
	list, ok := answer.([64]objects.Object)
	if !ok {
		return true
	}
	for _, o := range list {
		if o != nil && keys[objects.KeyOf(o)] {
			return true
		}
	}
	return false
}

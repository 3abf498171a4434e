package translate

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-io/gatehouse/api/v1alpha1"
	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/ir"
	"github.com/gatehouse-io/gatehouse/internal/objects"
)

func targetNameOf(r diag.Ref) string { return r.Kind + "/" + r.Namespace + "/" + r.Name }

// target is what policies say about one object and its sections (listeners, rules): of several policies of one kind for
// one section the oldest.
type target struct {
	Bundles map[string]map[string]*attached // by kind (bundleKinds), then section, "" the whole object
	Client  map[string]*client
	Traffic map[string]*traffic
	TLS     map[string]*backendTLS // of a Service, by the port's name
}

// client is one ClientTrafficPolicy at one target.
type client struct {
	Policy diag.Ref
	Client *ir.Client // nil: the policy is invalid
}

// target is the unit that reads the policies of one target.
func (p *pass) target() {
	name := p.u.key.name
	kind, rest, _ := strings.Cut(name, "/")
	namespace, object, _ := strings.Cut(rest, "/")
	to := ir.Source{Kind: kind, Namespace: namespace, Name: object}
	out := &target{Bundles: map[string]map[string]*attached{}, Client: map[string]*client{}, Traffic: map[string]*traffic{}, TLS: map[string]*backendTLS{}}
	bundles[*v1alpha1.ProtectionPolicy](p, name, to, out)
	bundles[*v1alpha1.AuthPolicy](p, name, to, out)
	bundles[*v1alpha1.RateLimitPolicy](p, name, to, out)
	oldest(p, name, out.Client, func(o *v1alpha1.ClientTrafficPolicy, _ string) *client {
		c, faults := clientOf(o)
		if len(faults) > 0 {
			c = nil
		}
		return &client{refOf("ClientTrafficPolicy", o.Namespace, o.Name), c}
	})
	oldest(p, name, out.Traffic, func(o *v1alpha1.BackendTrafficPolicy, _ string) *traffic {
		t, faults := trafficOf(o)
		if len(faults) > 0 {
			t = nil
		}
		return &traffic{refOf("BackendTrafficPolicy", o.Namespace, o.Name), t}
	})
	oldest(p, name, out.TLS, func(o *gatewayv1.BackendTLSPolicy, _ string) *backendTLS {
		t, _ := p.tlsOf(o)
		return &backendTLS{refOf("BackendTLSPolicy", o.Namespace, o.Name), t}
	})
	if len(out.Bundles)+len(out.Client)+len(out.Traffic)+len(out.TLS) == 0 {
		p.gone = true
		return
	}
	p.say(topic{kind: targetTopic, name: name}, out)
}

// bundles fills in the policies of one bundle kind, and says what they refer to.
func bundles[T objects.Object](p *pass, name string, to ir.Source, out *target) {
	found := map[string]*attached{}
	oldest(p, name, found, func(o T, section string) *attached {
		a := p.bundle(o)
		p.sayRefs(a)
		a.Target = to
		a.Target.Field = section
		return a
	})
	for _, a := range found {
		out.Bundles[a.Policy.Kind] = found
	}
}

// oldest fills into, by section, with what make makes of the policies of one kind at a target: of several for a section, of the first,
// since the view lists the oldest first.
func oldest[T objects.Object, X any](p *pass, name string, into map[string]X, make func(o T, section string) X) {
	for _, o := range objects.List[T](p.view, objects.ByTarget, name) {
		for _, s := range sectionsOf(o, name) {
			if _, taken := into[s]; !taken {
				into[s] = make(o, s)
			}
		}
	}
}

// sectionsOf lists the sections of a target that o is attached to.
func sectionsOf(o objects.Object, name string) []string {
	var out []string
	for _, r := range objects.TargetRefs(o) {
		if objects.TargetName(o.GetNamespace(), r) == name && r.Group == Group(r.Kind) && !slices.Contains(out, r.SectionName) {
			out = append(out, r.SectionName)
		}
	}
	return out
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }
